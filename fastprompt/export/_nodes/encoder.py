"""Layers of image encoders."""

import math
from typing import Any

from fastprompt.export._kernels import aot
from fastprompt.export._kernels.plans import Launch, Plan, Size, Tensor, need, need_registers, pointers, power
from fastprompt.export._nodes._body import Graph, Value
from fastprompt.export._nodes._pieces import gelu, layer_norm, linear
from fastprompt.export._nodes._record import Arguments, Record, translates


class Grid:
    """Tokens of a grid in windows, of the size of the grid where there are none: one body for both kinds of layers. The
    last windows may reach beyond it."""

    def __init__(self, g: Graph, size: Value, window: Value) -> None:
        self.g, self.size, self.window = g, size, window
        self.counts = (size + window - 1) / window
        self.whole, self.cell = self.counts * window, g.ReduceProd(window, keepdims=1)

    def cut(self, x: Value, heads: Value, pad: Value | None = None) -> Value:
        """(B, h w, heads, width) as (sets, heads, cell, width), with ``pad`` outside of the grid. ``heads``: their
        number and width."""
        g, batch = self.g, x.size(0)
        zero, filler = (g.Squeeze(g.CastLike(g.value([n]), x)) for n in (0, 1))
        pads = g.Concat([0] * 6, self.whole - self.size, [0, 0], axis=0)
        grid = g.Pad(x.reshape(g.Concat(batch, self.size, heads, axis=0)), pads, zero)
        if pad is not None:
            outside = g.Pad(g.Expand(zero, g.Concat([1], self.size, [1, 1], axis=0)), pads, filler)
            grid = grid + outside * pad
        (down, across), (rows, columns) = sides(g, self.counts), sides(g, self.window)
        apart = grid.reshape(g.Concat(batch, down, rows, across, columns, heads, axis=0)).turned(0, 1, 3, 5, 2, 4, 6)
        return apart.reshape(g.Concat(self.sets(batch), g.Slice(heads, [0], [1]), self.cell, [-1], axis=0))

    def joined(self, x: Value, batch: Value, heads: Value) -> Value:
        """(sets, heads, cell, width) as (B, h w, heads, width), without what is outside."""
        g, (count, width) = self.g, sides(self.g, heads)
        apart = x.reshape(g.Concat(batch, self.counts, count, self.window, width, axis=0)).turned(0, 1, 4, 2, 5, 3, 6)
        grid = g.Slice(apart.reshape(g.Concat(batch, self.whole, heads, axis=0)), [0, 0], self.size, [1, 2])
        return grid.reshape(g.Concat(batch, g.ReduceProd(self.size, keepdims=1), heads, axis=0))

    def sets(self, batch: Value) -> Value:
        return batch * self.g.ReduceProd(self.counts, keepdims=1)


def sides(g: Graph, pair: Value) -> list[Value]:
    return [g.Slice(pair, [n], [n + 1]) for n in (0, 1)]


def relative_position(
    g: Graph, q: Value, k: Value, v: Value, rel_h: Value, rel_w: Value, pad_key: Value, pad_value: Value
) -> Value:
    window = g.value("@window")
    grid, heads, batch = Grid(g, g.value("@size"), window), q.shape(2, 4), q.size(0)
    query, key, value = grid.cut(q, heads), grid.cut(k, heads, pad_key), grid.cut(v, heads, pad_value)
    (rows, columns), (count, width), sets = sides(g, window), sides(g, heads), grid.sets(batch)

    def table(rel: Value, side: Value) -> Value:
        """The rows of the distances: (side, width, side)."""
        steps = g.Range(0, g.Squeeze(side), 1)
        return g.Gather(rel, steps.unsqueezed(1) - steps + (side - 1), axis=0).turned(0, 2, 1)

    square = query.reshape(g.Concat(sets, count, window, width, axis=0))
    down = square @ table(rel_h, rows)
    across = (square.turned(0, 1, 3, 2, 4) @ table(rel_w, columns)).turned(0, 1, 3, 2, 4)
    bias = (down.unsqueezed(5) + across.unsqueezed(4)).reshape(g.Concat(sets, count, grid.cell, grid.cell, axis=0))
    made = g.Softmax(query * "@scale" @ key.turned(0, 1, 3, 2) + bias, axis=-1) @ value
    return grid.joined(made, batch, heads)


def grid_attention(g: Graph, q: Value, k: Value, v: Value, pad_key: Value, pad_value: Value) -> Value:
    """A pool divides grid and windows: the pooled queries are a smaller grid, in as many windows."""
    size, window, pool = (g.value(f"@{name}") for name in ("size", "window", "pool"))
    grid, fewer, heads, batch = Grid(g, size, window), Grid(g, size / pool, window / pool), q.shape(2, 4), q.size(0)
    query = fewer.cut(pooled(g, q, batch, fewer.size, pool.reshape([1]), heads), heads)
    logits = query * "@scale" @ grid.cut(k, heads, pad_key).turned(0, 1, 3, 2)
    return fewer.joined(g.Softmax(logits, axis=-1) @ grid.cut(v, heads, pad_value), batch, heads)


def pooled(g: Graph, x: Value, batch: Value, size: Value, pool: Any, rest: Any) -> Value:
    """The largest of pool x pool places: (B, *size, *rest)."""
    down, across = sides(g, size)
    return g.ReduceMax(x.reshape(g.Concat(batch, down, pool, across, pool, rest, axis=0)), [2, 4], keepdims=0)


def plan(given: list[Tensor], attributes: dict[str, Any], precision: str) -> Plan:
    from fastprompt.kernels import attention_nodes as nodes

    q, pad_key = given[0], given[5]
    heads, width = q.known(2), q.known(3)
    need(heads is not None and width is not None, "heads and their width must be fixed")
    need(len({x.type for x in given}) == 1 and width <= 128, "all inputs must be of one type, heads of at most 128")  # type: ignore[operator]
    (rows, columns), (wy, wx), kind = attributes["size"], attributes["window"], q.type
    need(max(wy, wx) <= 128, "windows of at most 128 x 128")
    windows = -(-rows // wy) * -(-columns // wx)
    sizes = {"ROWS": rows, "COLUMNS": columns, "WY": wy, "WX": wx, "H": heads, "D": width, "BD": power(width)}  # type: ignore[arg-type]
    sizes |= {"PRECISION": precision}
    lines = aot.compiled(
        nodes.position_kernel, pointers([kind] * 3 + ["f32"] * 2), {**sizes, "BQ": 32, "BK": power(max(wy, wx))},
        warps=4,
    )  # fmt: skip
    need_registers(kind, precision, width)
    tile = 16 if wy * wx < 32 else 32 if kind == "f32" or width > 64 else 64  # type: ignore[operator]
    constants = {**sizes, "BQ": tile, "BX": power(wx), "HAS_PAD": not pad_key.absent}
    attend = aot.compiled(
        nodes.window_kernel, pointers([kind] * 5 + ["f32"] * 2 + [kind]) + " fp32", constants, warps=4
    )
    images = Size.of(0, 0)
    grid = (-(-wy * wx // tile), windows, images * heads)
    first = Launch(lines, (rows + columns, heads, images), ["i0", "i3", "i4", "s0", "s1"])
    second = Launch(
        attend, grid, ["i0", "i1", "i2", "i5", "i6", "s0", "s1", "o0", f"f{attributes['scale']!r}"]
    )  # fmt: skip
    scratch = [images * (4 * rows * columns * heads * w) for w in (wy, wx)]
    return Plan([kind] * 7, [(kind, [images, rows * columns, heads, width])], scratch, [first, second])


RELATIVE = Record(
    "RelativePositionAttention",
    "q:T k:T v:T rel_h:T rel_w:T pad_key:T?2 pad_value:T?2",
    "out:T",
    "size:I window:I scale:f",
    body=relative_position,
    plan=plan,
    halves=True,
)


GRID = Record(
    "GridAttention",
    "q:T k:T v:T pad_key:T?2 pad_value:T?2",
    "out:T",
    "size:I window:I pool:i scale:f",
    body=grid_attention,
)


@translates("relative_attention")
def of_relative_attention(g: Any, a: Arguments) -> Any:
    if a["coordinates"] is not None:
        raise ValueError("relative_position_attention with coordinates has no node: export it without")
    out = g.ours(RELATIVE, **(a | {"window": a["window"] if a["window"][0] else a["size"]}))
    largest = g.ReduceMax(a["q"], [3], keepdims=0)
    return out, largest.turned(0, 2, 1)  # for the gradient, which no file has: left out of it


@translates("grid_attention")
def of_grid_attention(g: Any, a: Arguments) -> Any:
    return g.ours(GRID, **(a | {"window": a["window"] if a["window"][0] else a["size"]}))


@translates("grid_layer")
def of_grid_layer(g: Any, a: Arguments) -> Any:
    """Attention is the node; linear layers and norms are the runtime's."""
    x, pool, heads, residual, batch = a["x"], a["pool"], a["heads"], a["x"], a["x"].size(0)
    size, window, width = [int(n) for n in x.of.shape[1:3]], [a["window"]] * 2, int(a["project"][0].of.shape[1])
    read = layer_norm(g, x, a["norm1"][0], a["norm1"][1], a["eps"][0])
    rows = linear(read, *a["qkv"]).reshape(g.Concat(batch, [math.prod(size), 3, heads, width // heads], axis=0))
    q, k, v = (g.Gather(rows, n, axis=2) for n in range(3))
    given = {"q": q, "k": k, "v": v, "size": size, "window": window, "pool": pool, "scale": (width // heads) ** -0.5}
    if a["window"] and any(n % a["window"] for n in size):  # hosts pad what the layer reads with zeros
        pads = a["qkv"][1].reshape([3, heads, width // heads])
        given |= {"pad_key": g.Gather(pads, 1, axis=0), "pad_value": g.Gather(pads, 2, axis=0)}
    fewer = [n // pool for n in size]
    attended = of_grid_attention(g, given).reshape(g.Concat(batch, [*fewer, width], axis=0))
    if a["residual"]:
        residual = linear(read, *a["residual"])
        residual = pooled(g, residual, batch, g.value(fewer), [pool], [int(a["project"][0].of.shape[0])])
    return of_residual_mlp(g, a | {"x": residual, "attended": attended, "norm": a["norm2"], "eps": a["eps"][1]})


@translates("normalised_linear")
def of_normalised_linear(g: Any, a: Arguments) -> Any:
    return linear(normalised(g, a["x"], a), *a["linear"])


@translates("residual_mlp")
def of_residual_mlp(g: Any, a: Arguments) -> Any:
    y, (weight, bias, *last) = a["x"] + linear(a["attended"], *a["project"]), a["mlp"]
    inner = linear(normalised(g, y, a), weight, bias)
    return y + linear(gelu(g, inner) if a["activation"] == "gelu" else g.Relu(inner), *last)


def normalised(g: Any, x: Value, a: Arguments) -> Value:
    return layer_norm(g, x, a["norm"][0], a["norm"][1], a["eps"]) if a["norm"] else x
