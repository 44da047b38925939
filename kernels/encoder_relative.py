"""Attention over a grid of tokens with decomposed relative position on a GPU, one launch a layer.

    logit[q, k] = scale <q, k> + <q, Rh[y_q - y_k + h - 1]> + <q, Rw[x_q - x_k + w - 1]>

A program multiplies its queries with both tables once and writes what it needs of that, h + w numbers a query, where
only it reads them. A tile of keys is a few whole rows of the grid (or of a window): the term of the columns is then one
matrix of queries x columns, which stays in registers for all tiles, and that of the rows one number per query and row.
The tokens of a list come in any order: there a product with the keys' one-hot places picks both terms.

grid_kernel   all tokens of a grid, or of its windows where they lie; what lies outside the grid is one more key
list_kernel   any tokens of a grid, with their coordinates

Softmax online, with powers of two; sums in float32; products in the type of the queries, float32 ones by PRECISION.
"""

import math

import torch
import triton
import triton.language as tl
from fastprompt.kernels.encoder_relative_parts import (
    LOG2E,
    block_of,
    both_parts,
    cell_of,
    columns_bias,
    halves,
    picked,
    place_of,
    product,
    products_with_table,
    tile_of_keys,
    with_bias,
    write_rows,
)
from fastprompt.kernels.encoder_relative_tiles import cut, forward_tile, parts_of
from fastprompt.kernels.jit import jit


@triton.jit
def softmax_step(s, v, v1, top, total, acc, acc1, D1: tl.constexpr, PRECISION: tl.constexpr):
    """Adds a tile of logits, in units of log 2, and its values to the running softmax."""
    new = tl.maximum(top, tl.max(s, 1))
    p, shrink = tl.exp2(s - new[:, None]), tl.exp2(top - new)
    total = total * shrink + tl.sum(p, 1)
    acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
    if D1 > 0:
        acc1 = tl.dot(p.to(v.dtype), v1, acc1 * shrink[:, None], input_precision=PRECISION)
    return new, total, acc, acc1


@triton.jit
def log_sum(data, step, first, last, B: tl.constexpr):
    """log2 of the sum of 2^x over the numbers first <= n < last behind each pointer; -inf if there are none."""
    top, total = tl.full(data.shape, -float("inf"), tl.float32), tl.zeros(data.shape, tl.float32)
    for start in range(first, last, B):
        n = start + tl.arange(0, B)
        x = tl.load(data[:, None] + n[None, :] * step, mask=(n < last)[None, :], other=-float("inf"))
        new = tl.maximum(top, tl.max(x, 1))
        total = total * tl.exp2(top - new) + tl.sum(tl.exp2(x - new[:, None]), 1)
        top = new
    return top + tl.log2(total)


@triton.jit
def log_add(a, b):
    top = tl.maximum(a, b)
    return top + tl.log2(tl.exp2(a - top) + tl.exp2(b - top))


@triton.jit
def weight_outside(far_h, h_step, far_w, rows, columns, CELL_H: tl.constexpr, CELL_W: tl.constexpr):
    """log2 of the sum of 2^bias over the positions of a window that lie outside the grid, where key and value are the
    same: those below it, and those to the right of it."""
    inside_w, outside_w = log_sum(far_w, 1, 0, columns, 16), log_sum(far_w, 1, columns, CELL_W, 16)
    below = log_sum(far_h, h_step, rows, CELL_H, 16) + log_add(inside_w, outside_w)
    return log_add(below, log_sum(far_h, h_step, 0, rows, 16) + outside_w)


@jit
def grid_kernel(
    q, k, v, rel_h, rel_w, pad_key, pad_value, far, out, log_weight, image_step, token_step, head_step, scale,
    HEADS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CELL_H: tl.constexpr, CELL_W: tl.constexpr,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, BQ: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    BR: tl.constexpr, PADDED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BQ queries of one head and window attend to all tokens of the window. Grid (blocks x heads x windows x images).

    far: for every image and head (CELL_H, N), then (N, CELL_W), the queries' biases by the place of the key.
    """
    count: tl.constexpr = HEIGHT * WIDTH
    block, head, image, top, left, rows, columns = cell_of(HEADS, HEIGHT, WIDTH, CELL_H, CELL_W, BQ)
    if block * BQ >= rows * columns:
        return
    i = block * BQ + tl.arange(0, BQ)
    valid, i = i < rows * columns, tl.minimum(i, rows * columns - 1)
    y, x = i // columns, i % columns
    token = (top + y) * WIDTH + left + x
    start = image * image_step + head * head_step
    k += start
    v += start
    query, query1 = both_parts(q + start, token * token_step, D, D0, D1)

    far_h = far + (image * HEADS + head) * (count * (CELL_H + CELL_W)) + token
    far_w = far_h + count * CELL_H + token * (CELL_W - 1)
    products_with_table(query, query1, rel_h, y, valid, far_h, count, CELL_H, D, D0, D1, BR, PRECISION)
    products_with_table(query, query1, rel_w, x, valid, far_w, 1, CELL_W, D, D0, D1, BR, PRECISION)
    tl.debug_barrier()  # from here on other threads of this program read them

    best, total = tl.full((BQ,), -float("inf"), tl.float32), tl.zeros((BQ,), tl.float32)
    acc, acc1 = tl.zeros((BQ, D0), tl.float32), tl.zeros((BQ, D1 if D1 > 0 else 16), tl.float32)
    if PADDED:  # noqa: SIM102 (known at compile time)
        if rows * columns < CELL_H * CELL_W:
            zero = tl.zeros((BQ,), tl.int32) + head * D
            key, key1 = both_parts(pad_key, zero, D, D0, D1)
            value, value1 = both_parts(pad_value, zero, D, D0, D1)
            best = tl.sum(query.to(tl.float32) * key.to(tl.float32), 1)
            acc = value.to(tl.float32)
            if D1 > 0:
                best += tl.sum(query1.to(tl.float32) * key1.to(tl.float32), 1)
                acc1 = value1.to(tl.float32)
            best = best * (scale * LOG2E) + weight_outside(far_h, count, far_w, rows, columns, CELL_H, CELL_W)
            total += 1.0

    near = columns_bias(far_w, 0, columns, COLS)
    for t in range(0, tl.cdiv(rows, ROWS) * tl.cdiv(columns, COLS)):
        row, column, n = tile_of_keys(t, top, left, rows, columns, WIDTH, ROWS, COLS)
        key, key1 = both_parts(k, n * token_step, D, D0, D1)
        s = product(query, query1, key, key1, D1, PRECISION) * (scale * LOG2E)
        if CELL_W > COLS:
            near = columns_bias(far_w, column, columns, COLS)
        s = with_bias(s, near, far_h, count, row, rows, ROWS, COLS)
        value, value1 = both_parts(v, n * token_step, D, D0, D1)
        best, total, acc, acc1 = softmax_step(s, value, value1, best, total, acc, acc1, D1, PRECISION)

    at = (token * HEADS + head) * D
    write_rows(out + image * (count * HEADS * D), at, valid, acc / total[:, None], acc1 / total[:, None], D, D0, D1)
    tl.store(log_weight + (image * HEADS + head) * count + token, (best + tl.log2(total)) / LOG2E, mask=valid)


@jit
def list_kernel(
    q, k, v, rel_h, rel_w, coordinates, far, out, log_weight, image_step, token_step, head_step, place_step, scale,
    count,
    HEADS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr, D0: tl.constexpr,
    D1: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr, BR: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """BQ tokens of a list attend to all of them. Grid (blocks x heads x images).

    far: for every image, head and token HEIGHT + WIDTH numbers. BH, BW: at least HEIGHT, WIDTH, powers of two; 0: the
    biases are loaded for every pair, because the tables are too long for registers.
    """
    block, head, image = block_of(count, HEADS, BQ)
    i = block * BQ + tl.arange(0, BQ)
    valid, token = i < count, tl.minimum(i, count - 1)
    start = image * image_step + head * head_step
    coordinates += image * place_step
    k += start
    v += start
    query, query1 = both_parts(q + start, token * token_step, D, D0, D1)
    y, x = place_of(coordinates, token, HEIGHT, WIDTH)

    far_h = far + (image * HEADS + head) * count * (HEIGHT + WIDTH) + token * (HEIGHT + WIDTH)
    far_w = far_h + HEIGHT
    products_with_table(query, query1, rel_h, y, valid, far_h, 1, HEIGHT, D, D0, D1, BR, PRECISION)
    products_with_table(query, query1, rel_w, x, valid, far_w, 1, WIDTH, D, D0, D1, BR, PRECISION)
    tl.debug_barrier()
    if BH > 0:
        high_h, low_h = halves(far_h, HEIGHT, BH)
        high_w, low_w = halves(far_w, WIDTH, BW)

    best, total = tl.full((BQ,), -float("inf"), tl.float32), tl.zeros((BQ,), tl.float32)
    acc, acc1 = tl.zeros((BQ, D0), tl.float32), tl.zeros((BQ, D1 if D1 > 0 else 16), tl.float32)
    for first in range(0, count, BN):
        n = first + tl.arange(0, BN)
        there, n = n < count, tl.minimum(n, count - 1)
        row, column = place_of(coordinates, n, HEIGHT, WIDTH)
        key, key1 = both_parts(k, n * token_step, D, D0, D1)
        s = product(query, query1, key, key1, D1, PRECISION) * (scale * LOG2E)
        if BH > 0:
            s = picked(high_w, low_w, column, picked(high_h, low_h, row, s, BH), BW)
        else:
            s += tl.load(far_h[:, None] + row[None, :]) + tl.load(far_w[:, None] + column[None, :])
        s = tl.where(there[None, :], s, -float("inf"))
        value, value1 = both_parts(v, n * token_step, D, D0, D1)
        best, total, acc, acc1 = softmax_step(s, value, value1, best, total, acc, acc1, D1, PRECISION)

    at = (token * HEADS + head) * D
    out += image * count * (HEADS * D)
    write_rows(out, at, valid, acc / total[:, None], acc1 / total[:, None], D, D0, D1)
    tl.store(log_weight + (image * HEADS + head) * count + token, (best + tl.log2(total)) / LOG2E, mask=valid)


# ---------------------------------------------------------------- launches


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rel_h: torch.Tensor, rel_w: torch.Tensor,
    coordinates: torch.Tensor | None, pad_key: torch.Tensor | None, pad_value: torch.Tensor | None,
    size: tuple[int, int], window: tuple[int, int], scale: float, arch: int, precision: str,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """(B, N, H, D) of q, k, v alike with equal strides, the last of them 1, and the logarithms of the weights' sums
    (B, H, N), float32. Tables, padding: contiguous, in any type; ``coordinates`` (B or 1, N, 2): int32."""
    batch, count, heads, width = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    log_weight = torch.empty(batch, heads, count, device=q.device)
    cell = window if window[0] else size
    far = torch.empty(batch, heads, count, sum(cell), device=q.device)
    kind = "list" if coordinates is not None else "window" if window[0] else "grid"
    tile, (first, second) = forward_tile(arch, q.element_size(), width, kind), parts_of(width)
    common = {"HEADS": heads, "HEIGHT": size[0], "WIDTH": size[1], "D": width, "D0": first, "D1": second}
    common |= {"BQ": tile.queries, "BR": 16 if q.element_size() == 4 else 32, "PRECISION": precision}
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    if coordinates is not None:
        one_hot = max(size) <= 64 and arch >= 80
        extents = [max(16, triton.next_power_of_2(n)) if one_hot else 0 for n in size]
        list_kernel[(triton.cdiv(count, tile.queries) * heads * batch,)](
            q, k, v, rel_h, rel_w, coordinates, far, out, log_weight, *q.stride()[:3],
            0 if len(coordinates) == 1 else 2 * count, scale, count,
            BN=tile.keys, BH=extents[0], BW=extents[1], **common, **options,
        )  # fmt: skip
        return out, log_weight
    rows, columns = cut(cell, tile.keys)
    windows = math.prod(triton.cdiv(n, m) for n, m in zip(size, cell, strict=True))
    padded = pad_key is not None and any(n % m for n, m in zip(size, cell, strict=True))
    grid_kernel[(triton.cdiv(math.prod(cell), tile.queries) * heads * windows * batch,)](
        q, k, v, rel_h, rel_w, pad_key if padded else q, pad_value if padded else q, far, out, log_weight,
        *q.stride()[:3], scale, CELL_H=cell[0], CELL_W=cell[1], ROWS=rows, COLS=columns, PADDED=padded,
        **common, **options,
    )  # fmt: skip
    return out, log_weight
