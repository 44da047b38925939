"""Relative-position attention of the encoders of SAM ViT-B and ViT-H at 1024 px, forward and with its gradient.

Peers: what transformers' sdpa does (the bias of every pair as a mask), eager, the same compiled, and FlexAttention: it
adds the bias inside its kernel, from the products of queries and tables, as ours does. Windows: the peers partition and
pad the input of this operator; the hosts do so one layer earlier, with as many copies.
"""

import functools
from collections.abc import Iterator
from typing import Any

from gpu.case import Case

GRID, WINDOW = (64, 64), (14, 14)
MODELS = {"ViT-B": (12, 64), "ViT-H": (16, 80)}  # heads, width of one
TOLERANCE = {"bfloat16": 2e-2, "float32": 2e-5}


def cases() -> Iterator[Case]:
    for dtype in ("bfloat16", "float32"):
        for model in MODELS:
            for window in (None, WINDOW):
                yield case(model, dtype, window, False)
        for window in (None, WINDOW):
            yield case("ViT-B", dtype, window, True)


def case(model: str, dtype: str, window: tuple[int, int] | None, gradient: bool) -> Case:
    heads, width = MODELS[model]
    tokens, cell = GRID[0] * GRID[1], window or GRID
    keys = cell[0] * cell[1]
    numbers = tokens * heads * width * (2 if dtype == "bfloat16" else 4)
    products = 4 * tokens * heads * width * (keys + cell[0] + cell[1])
    place = "windows 14 x 14" if window else "global"
    return Case(
        operator="relative position" + (", forward and backward" if gradient else ""),
        shape=f"{model}, {place}, {dtype}",
        make=functools.partial(make, heads, width, dtype, window, gradient),
        bytes=(4 + (8 if gradient else 0)) * numbers,
        flops=products * (3.5 if gradient else 1),
        launches=6 if gradient else 1,
        tolerance=TOLERANCE[dtype],
    )


def make(heads: int, width: int, dtype: str, window: tuple[int, int] | None, gradient: bool) -> Any:
    import torch

    import fastprompt as fp

    g, cell, tokens = torch.Generator("cuda").manual_seed(0), window or GRID, GRID[0] * GRID[1]
    draw = lambda *shape: torch.randn(*shape, generator=g, device="cuda").to(getattr(torch, dtype))  # noqa: E731
    qkv, tables = draw(1, tokens, 3, heads, width), [0.3 * draw(2 * n - 1, width) for n in cell]
    padding = (draw(heads, width), draw(heads, width)) if window else None
    leaves = [qkv, *tables]

    def ours(qkv: Any, rel_h: Any, rel_w: Any) -> Any:
        place: Any = {"size": GRID, "window": window, "padding": padding}
        return fp.relative_position_attention(*qkv.unbind(2), rel_h, rel_w, **place)

    def around(attention: Any) -> Any:
        return functools.partial(in_windows, attention, window=window, padding=padding)

    peers = {"sdpa": around(sdpa), "flex": around(functools.partial(flex, torch_flex()))}
    if not window or not gradient:
        peers |= {"eager": around(eager), "compiled": torch.compile(around(eager))}
    run = with_gradient if gradient else lambda call, leaves: lambda: call(*leaves)
    exact = [x.double() for x in leaves]
    pads = tuple(x.double() for x in padding) if padding else None
    expected = in_windows(eager, *exact, window=window, padding=pads)
    return run(ours, leaves), {name: run(call, leaves) for name, call in peers.items()}, expected


def with_gradient(call: Any, leaves: list[Any]) -> Any:
    """Runs forward and backward; returns the output."""
    import torch

    own = [x.detach().clone().requires_grad_() for x in leaves]

    def run() -> Any:
        out = call(*own)
        torch.autograd.grad(out, own, out.detach())
        return out.detach()

    return run


def torch_flex() -> Any:
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


# ---------------------------------------------------------------- peers: (B, H, N, D) of q, k, v and tables


def in_windows(attention: Any, qkv: Any, rel_h: Any, rel_w: Any, *, window: Any, padding: Any) -> Any:
    """(1, N, H D) of qkv (1, N, 3, H, D)."""
    if not window:
        return attention(*qkv.permute(2, 0, 3, 1, 4), rel_h, rel_w, GRID).transpose(1, 2).flatten(2)
    import torch

    zero = torch.zeros_like(padding[0])
    rows, columns = (-(-n // m) for n, m in zip(GRID, window, strict=True))
    whole = torch.stack([zero, *padding]).expand(1, rows * window[0], columns * window[1], -1, -1, -1).contiguous()
    whole[:, : GRID[0], : GRID[1]] = qkv.unflatten(1, GRID)
    cut = whole.unflatten(2, (columns, -1)).unflatten(1, (rows, -1)).transpose(2, 3).flatten(3, 4).flatten(0, 2)
    out = attention(*cut.permute(2, 0, 3, 1, 4), rel_h, rel_w, window).transpose(1, 2).flatten(2)
    out = out.unflatten(1, window).unflatten(0, (1, rows, columns)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return out[:, : GRID[0], : GRID[1]].flatten(1, 2)


def biases(q: Any, rel_h: Any, rel_w: Any, size: Any) -> tuple[Any, Any]:
    """(B, H, N, h) and (B, H, N, w): every query's, by the place of the key."""
    import torch

    at = [torch.arange(n, device=q.device) for n in size]
    tables = [rel[x[:, None] - x[None] + len(x) - 1] for rel, x in zip((rel_h, rel_w), at, strict=True)]
    grid = q.unflatten(2, size)
    down, right = torch.einsum("bnhwc,hkc->bnhwk", grid, tables[0]), torch.einsum("bnhwc,wkc->bnhwk", grid, tables[1])
    return down.flatten(2, 3), right.flatten(2, 3)


def mask(q: Any, rel_h: Any, rel_w: Any, size: Any) -> Any:
    down, right = biases(q, rel_h, rel_w, size)
    return (down[..., None] + right[..., None, :]).flatten(3)


def sdpa(q: Any, k: Any, v: Any, rel_h: Any, rel_w: Any, size: Any) -> Any:
    import torch.nn.functional as F

    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask(q, rel_h, rel_w, size))


def eager(q: Any, k: Any, v: Any, rel_h: Any, rel_w: Any, size: Any) -> Any:
    import torch

    weight = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3) + mask(q, rel_h, rel_w, size)
    exact = torch.float64 if q.dtype == torch.float64 else torch.float32
    return weight.softmax(-1, dtype=exact).to(q.dtype) @ v


def flex(attention: Any, q: Any, k: Any, v: Any, rel_h: Any, rel_w: Any, size: Any) -> Any:
    down, right = biases(q, rel_h, rel_w, size)
    width = size[1]

    def add_bias(score: Any, b: Any, h: Any, query: Any, key: Any) -> Any:
        return score + down[b, h, query, key // width] + right[b, h, query, key % width]

    return attention(q, k, v, score_mod=add_bias)
