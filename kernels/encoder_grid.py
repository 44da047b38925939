"""Attention over a grid of tokens, or in its windows where they lie, with pooled queries, on a GPU: one launch a layer.

A query is the largest of POOL x POOL places, taken as it is read. All positions of a window outside the grid are one
key, whose weight is their number: the softmax starts with it. No weights in memory.

Softmax online, with powers of two; sums in float32; products in the type of the queries, float32 ones by PRECISION.
"""

import math

import torch
import triton
import triton.language as tl
from fastprompt.kernels.encoder_relative import softmax_step
from fastprompt.kernels.encoder_relative_parts import LOG2E, both_parts, cell_of, product, rows_of, write_rows
from fastprompt.kernels.encoder_relative_tiles import SMALL, Tile, parts_of
from fastprompt.kernels.jit import jit


@triton.jit
def largest(q, token, step, first, WIDTH: tl.constexpr, POOL: tl.constexpr, D: tl.constexpr, BD: tl.constexpr):
    """(len(token), BD): columns from ``first`` on of the pools whose first places are the tokens; NaN stays NaN."""
    best = rows_of(q, token * step, first, D, BD)
    for place in tl.static_range(1, POOL * POOL):
        other = rows_of(q, (token + place // POOL * WIDTH + place % POOL) * step, first, D, BD)
        best = tl.maximum(best, other, propagate_nan=tl.PropagateNan.ALL)
    return best.to(q.dtype.element_ty)  # bfloat16 compares as float32


@jit
def grid_kernel(
    q, k, v, pad_key, pad_value, out, image_step, scale, TOKEN_STEP: tl.constexpr, HEAD_STEP: tl.constexpr,
    HEADS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CELL_H: tl.constexpr, CELL_W: tl.constexpr,
    POOL: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BQ queries of one head and window read all tokens of the window. Grid (blocks x heads x windows x images);
    HEIGHT, WIDTH, CELL_H, CELL_W count pools. The steps are constants because of heads of 56 and 72: of a number that
    16 does not divide nothing is known, and vectors of 8 would not be loaded whole."""
    block, head, image, top, left, rows, columns = cell_of(HEADS, HEIGHT, WIDTH, CELL_H, CELL_W, BQ)
    if block * BQ >= rows * columns:
        return
    i = block * BQ + tl.arange(0, BQ)
    valid, i = i < rows * columns, tl.minimum(i, rows * columns - 1)
    y, x = top + i // columns, left + i % columns
    across: tl.constexpr = WIDTH * POOL  # tokens of a row of the grid
    start = image * image_step + head * HEAD_STEP
    q += start
    k += start
    v += start
    first = y * (POOL * across) + x * POOL
    query = largest(q, first, TOKEN_STEP, 0, across, POOL, D, D0)
    query1 = query
    if D1 > 0:
        query1 = largest(q, first, TOKEN_STEP, D0, across, POOL, D, D1)

    best, total = tl.full((BQ,), -float("inf"), tl.float32), tl.zeros((BQ,), tl.float32)
    acc, acc1 = tl.zeros((BQ, D0), tl.float32), tl.zeros((BQ, D1 if D1 > 0 else 16), tl.float32)
    if PADDED:
        outside = (CELL_H * CELL_W - rows * columns) * (POOL * POOL)
        if outside > 0:
            zero = tl.zeros((BQ,), tl.int32) + head * D
            key, key1 = both_parts(pad_key, zero, D, D0, D1)
            value, value1 = both_parts(pad_value, zero, D, D0, D1)
            best = tl.sum(query.to(tl.float32) * key.to(tl.float32), 1)
            acc = value.to(tl.float32)
            if D1 > 0:
                best += tl.sum(query1.to(tl.float32) * key1.to(tl.float32), 1)
                acc1 = value1.to(tl.float32)
            best = best * (scale * LOG2E) + tl.log2(outside.to(tl.float32))
            total += 1.0

    near = columns * POOL
    count = rows * POOL * near
    corner = (top * across + left) * POOL
    for n0 in range(0, count, BN):
        n = n0 + tl.arange(0, BN)
        there, n = n < count, tl.minimum(n, count - 1)
        token = corner + (n if CELL_W == WIDTH else n // near * across + n % near)  # whole rows, or parts of them
        key, key1 = both_parts(k, token * TOKEN_STEP, D, D0, D1)
        s = product(query, query1, key, key1, D1, PRECISION) * (scale * LOG2E)
        s = tl.where(there[None, :], s, -float("inf"))
        value, value1 = both_parts(v, token * TOKEN_STEP, D, D0, D1)
        best, total, acc, acc1 = softmax_step(s, value, value1, best, total, acc, acc1, D1, PRECISION)

    at = ((y * WIDTH + x) * HEADS + head) * D
    out += image * (HEIGHT * WIDTH * HEADS * D)
    write_rows(out, at, valid, acc / total[:, None], acc1 / total[:, None], D, D0, D1)


# ---------------------------------------------------------------- launch


def tile_of(arch: int, itemsize: int, width: int, queries: int) -> Tile:
    """For windows of so many queries: the largest of those tried that ptxas fits into registers."""
    if arch < 80:
        return SMALL
    if itemsize == 4:  # three products of both halves of every operand
        keys = 16 if width > 64 else 32
        return Tile(64, keys, 8, 1) if queries > 32 else Tile(32, keys, 4, 1)
    return Tile(64 if queries > 32 else 32, 64, 4, 1 if arch in (100, 103) else 2)  # with two 24 bytes spill there


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pad_key: torch.Tensor | None, pad_value: torch.Tensor | None,
    size: tuple[int, int], window: tuple[int, int], pool: int, scale: float, arch: int, precision: str,
) -> torch.Tensor:  # fmt: skip
    """(B, N / pool^2, H, D) of q, k, v (B, N, H, D) alike with equal strides, the last 1; padding: contiguous."""
    batch, count, heads, width = q.shape
    out = q.new_empty(batch, count // pool**2, heads, width)
    cell = window if window[0] else size
    height, across, *cells = (n // pool for n in (*size, *cell))
    tile, (first, second) = tile_of(arch, q.element_size(), width, math.prod(cells)), parts_of(width)
    padded = any(n % m for n, m in zip(size, cell, strict=True))
    windows = math.prod(triton.cdiv(n, m) for n, m in zip(size, cell, strict=True))
    grid_kernel[(triton.cdiv(math.prod(cells), tile.queries) * heads * windows * batch,)](
        q, k, v, pad_key if padded else q, pad_value if padded else q, out, q.stride(0), scale,
        TOKEN_STEP=q.stride(1), HEAD_STEP=q.stride(2), HEADS=heads, HEIGHT=height, WIDTH=across, CELL_H=cells[0],
        CELL_W=cells[1], POOL=pool, D=width, D0=first, D1=second, BQ=tile.queries, BN=tile.keys,
        PADDED=padded, PRECISION=precision, num_warps=tile.warps,
        num_stages=tile.stages,
    )  # fmt: skip
    return out
