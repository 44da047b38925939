"""Layers of image encoders."""

from typing import Any

from fastprompt.export._kernels import aot
from fastprompt.export._kernels.plans import Launch, Plan, Size, Tensor, need, need_registers, pointers, power
from fastprompt.export._nodes._body import Graph, Value
from fastprompt.export._nodes._pieces import gelu, layer_norm, linear
from fastprompt.export._nodes._record import Arguments, Record, translates


def relative_position(
    g: Graph, q: Value, k: Value, v: Value, rel_h: Value, rel_w: Value, pad_key: Value, pad_value: Value
) -> Value:
    """Windows of the size of the grid where there are none: one body for both kinds of layers of an encoder."""
    size, window = g.value("@size"), g.value("@window")
    counts = (size + window - 1) / window
    whole, (batch, heads, width) = counts * window, (q.size(n) for n in (0, 2, 3))
    pads = g.Concat([0] * 6, whole - size, [0, 0], axis=0)
    zero, filler = (g.Squeeze(g.CastLike(g.value([n]), q)) for n in (0, 1))
    outside = g.Pad(g.Expand(zero, g.Concat([1], size, [1, 1], axis=0)), pads, filler)
    down, across = ([g.Slice(x, [n], [n + 1]) for x in (counts, window)] for n in (0, 1))
    cut = g.Concat(batch, *down, *across, heads, width, axis=0)
    sets, cell = batch * g.ReduceProd(counts, keepdims=1), g.ReduceProd(window, keepdims=1)

    def windows(x: Value, pad: Value | None = None) -> Value:
        """(sets, heads, cell, width)."""
        grid = g.Pad(x.reshape(g.Concat(batch, size, heads, width, axis=0)), pads, zero)
        grid = grid if pad is None else grid + outside * pad
        return grid.reshape(cut).turned(0, 1, 3, 5, 2, 4, 6).reshape(g.Concat(sets, heads, cell, width, axis=0))

    def table(rel: Value, side: Value) -> Value:
        """The rows of the distances: (side, width, side)."""
        steps = g.Range(0, side, 1)
        return g.Gather(rel, steps.unsqueezed(1) - steps + (side - 1), axis=0).turned(0, 2, 1)

    query, key, value = windows(q), windows(k, pad_key), windows(v, pad_value)
    square = query.reshape(g.Concat(sets, heads, window, width, axis=0))
    rows = square @ table(rel_h, g.Squeeze(down[1]))
    columns = (square.turned(0, 1, 3, 2, 4) @ table(rel_w, g.Squeeze(across[1]))).turned(0, 1, 3, 2, 4)
    bias = (rows.unsqueezed(5) + columns.unsqueezed(4)).reshape(g.Concat(sets, heads, cell, cell, axis=0))
    made = g.Softmax(query * "@scale" @ key.turned(0, 1, 3, 2) + bias, axis=-1) @ value
    back = made.reshape(g.Concat(batch, counts, heads, window, width, axis=0)).turned(0, 1, 4, 2, 5, 3, 6)
    joined = back.reshape(g.Concat(batch, whole, heads, width, axis=0))
    return g.Slice(joined, [0, 0], size, [1, 2]).reshape(q.shape())


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


@translates("relative_attention")
def of_relative_attention(g: Any, a: Arguments) -> Any:
    if a["coordinates"] is not None:
        raise ValueError("relative_position_attention with coordinates has no node: export it without")
    out = g.ours(RELATIVE, **(a | {"window": a["window"] if a["window"][0] else a["size"]}))
    largest = g.ReduceMax(a["q"], [3], keepdims=0)
    return out, largest.turned(0, 2, 1)  # for the gradient, which no file has: left out of it


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
