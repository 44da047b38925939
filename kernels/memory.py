"""Reads of a memory with many keys on a GPU: softmax(s q k^T) v, without the weights in memory.

turn_kernel     rotary positions: queries and keys turned once, in the type that their products take them in anyway;
read_kernel     a block of queries reads a split of the keys, softmax online;
combine_kernel  merges the splits, where the queries alone would leave multiprocessors without work.

Softmax with powers of two; sums in float32; products in the type of the queries, float32 ones by PRECISION.
"""

import torch
import triton
import triton.language as tl
from fastprompt.kernels.attention import multiprocessors
from fastprompt.kernels.encoder_relative import softmax_step
from fastprompt.kernels.encoder_relative_parts import LOG2E, block_of, both_parts, product, write_rows
from fastprompt.kernels.encoder_relative_tiles import Tile, parts_of
from fastprompt.kernels.jit import jit


@triton.jit
def turn_rows(
    x, cos, sin, out, block, turned, count, rows, image_step, token_step, head_step, positions,
    HEADS: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """BR of ``rows`` rows (images, count, HEADS) of D numbers; the first ``turned`` tokens of an image are turned."""
    r = block.to(tl.int64) * BR + tl.arange(0, BR)
    d = tl.arange(0, BD)
    inside = (r < rows)[:, None] & (d < D)[None, :]
    token = r // HEADS % count
    at = r // (HEADS * count) * image_step + token * token_step + r % HEADS * head_step
    value = tl.load(x + at[:, None] + d[None, :], mask=inside, other=0.0)
    place = (token % positions)[:, None] * D + d[None, :]
    c = tl.load(cos + place, mask=inside & (token < turned)[:, None], other=1.0)
    s = tl.load(sin + place, mask=inside & (token < turned)[:, None], other=0.0)
    even, odd = tl.split(tl.reshape(value.to(tl.float32), (BR, BD // 2, 2)))
    even_c, odd_c = tl.split(tl.reshape(c.to(tl.float32), (BR, BD // 2, 2)))
    even_s, odd_s = tl.split(tl.reshape(s.to(tl.float32), (BR, BD // 2, 2)))
    both = tl.join(even * even_c - odd * even_s, odd * odd_c + even * odd_s)
    tl.store(out + r[:, None] * D + d[None, :], tl.reshape(both, (BR, BD)).to(out.dtype.element_ty), mask=inside)


@jit
def turn_kernel(
    q, k, cos, sin, key_cos, key_sin, q_out, k_out, queries, keys, turned, query_rows, key_rows, positions,
    q_image, q_token, q_head, k_image, k_token, k_head,
    HEADS: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of the queries' rows, then of the keys')."""
    block = tl.program_id(0)
    blocks = tl.cdiv(query_rows, BR)
    if block < blocks:
        turn_rows(
            q, cos, sin, q_out, block, queries, queries, query_rows, q_image, q_token, q_head, queries,
            HEADS, D, BD, BR,
        )  # fmt: skip
    else:
        turn_rows(
            k, key_cos, key_sin, k_out, block - blocks, turned, keys, key_rows, k_image, k_token, k_head, positions,
            HEADS, D, BD, BR,
        )  # fmt: skip


@triton.jit
def product_in_steps(q, q_at, k, k_at, D: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr):
    """<q, k> of all pairs of rows, BK columns at a time."""
    s = tl.zeros((q_at.shape[0], k_at.shape[0]), tl.float32)
    for first in range(0, D, BK):
        d = first + tl.arange(0, BK)
        a = tl.load(q + q_at[:, None] + d[None, :], mask=(d < D)[None, :], other=0.0)
        b = tl.load(k + k_at[:, None] + d[None, :], mask=(d < D)[None, :], other=0.0)
        s = tl.dot(a, tl.trans(b), s, input_precision=PRECISION)
    return s


@jit
def read_kernel(
    q, k, v, out, log_weight, queries, keys, per_split, scale,
    q_image, q_token, q_head, k_image, k_token, k_head, v_image, v_token, v_head,
    HEADS: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, V: tl.constexpr, V0: tl.constexpr,
    V1: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BQ queries of one head read a split of the keys. Grid (blocks x heads x images, splits): out (splits, images,
    queries, heads, V), the logarithms of the sums of the weights (splits, images, heads, queries). BK: columns of a
    step where whole rows of queries would fill the registers; 0: they do not."""
    block, head, image = block_of(queries, HEADS, BQ)
    images = tl.num_programs(0) // (tl.cdiv(queries, BQ) * HEADS)
    i = block * BQ + tl.arange(0, BQ)
    valid, i = i < queries, tl.minimum(i, queries - 1)
    k += image * k_image + head * k_head
    v += image * v_image + head * v_head
    q += image * q_image + head * q_head
    if BK == 0:
        query, query1 = both_parts(q, i * q_token, D, D0, D1)

    best, total = tl.full((BQ,), -float("inf"), tl.float32), tl.zeros((BQ,), tl.float32)
    acc, acc1 = tl.zeros((BQ, V0), tl.float32), tl.zeros((BQ, V1 if V1 > 0 else 16), tl.float32)
    split = tl.program_id(1)
    for first in range(split * per_split, tl.minimum((split + 1) * per_split, keys), BN):
        n = first + tl.arange(0, BN)
        there, n = n < keys, tl.minimum(n, keys - 1)
        if BK > 0:
            s = product_in_steps(q, i * q_token, k, n * k_token, D, BK, PRECISION)
        else:
            key, key1 = both_parts(k, n * k_token, D, D0, D1)
            s = product(query, query1, key, key1, D1, PRECISION)
        s = tl.where(there[None, :], s * (scale * LOG2E), -float("inf"))
        value, value1 = both_parts(v, n * v_token, V, V0, V1)
        best, total, acc, acc1 = softmax_step(s, value, value1, best, total, acc, acc1, V1, PRECISION)

    part = split * images + image
    out += part * queries * (HEADS * V)
    write_rows(out, (i * HEADS + head) * V, valid, acc / total[:, None], acc1 / total[:, None], V, V0, V1)
    tl.store(log_weight + (part * HEADS + head) * queries + i, (best + tl.log2(total)) / LOG2E, mask=valid)


@jit
def combine_kernel(
    parts, logs, out, log_weight, rows, queries, splits,
    HEADS: tl.constexpr, V: tl.constexpr, BV: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """Merges the splits of BR of ``rows`` rows (images, queries, HEADS). Grid (blocks of them)."""
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    d = tl.arange(0, BV)
    valid, r = r < rows, tl.minimum(r, rows - 1)
    inside = valid[:, None] & (d < V)[None, :]
    log_at = (r // (HEADS * queries) * HEADS + r % HEADS) * queries + r // HEADS % queries
    best, total = tl.full((BR,), -float("inf"), tl.float32), tl.zeros((BR,), tl.float32)
    acc = tl.zeros((BR, BV), tl.float32)
    skipped = tl.zeros((BR,), tl.int64)
    for _ in range(splits):
        x = tl.load(logs + skipped + log_at) * LOG2E
        new = tl.maximum(best, x)
        share, shrink = tl.exp2(x - new), tl.exp2(best - new)
        row = tl.load(parts + (skipped + r)[:, None] * V + d[None, :], mask=inside, other=0.0)
        acc, total, best = acc * shrink[:, None] + row * share[:, None], total * shrink + share, new
        skipped += rows
    tl.store(out + r[:, None] * V + d[None, :], (acc / total[:, None]).to(out.dtype.element_ty), mask=inside)
    tl.store(log_weight + log_at, (best + tl.log2(total)) / LOG2E, mask=valid)


# ---------------------------------------------------------------- launches


def tile_of(arch: int, itemsize: int, width: int, depth: int) -> Tile:
    """For keys of ``width`` numbers and values of ``depth``: the largest of those tried that ptxas fits into registers
    and shared memory."""
    wide = max(width, depth) > 128
    if arch < 80:
        return Tile(16 if wide else 32, 16 if wide else 32, 4, 1)
    if itemsize == 4:
        return Tile(32, 32, 8 if wide else 4, 1)
    return Tile(64, 32, 8, 2) if wide else Tile(64, 64, 4, 2)


def splits_of(keys: int, programs: int, tile: int, device: torch.device) -> tuple[int, int]:
    """(number of splits, keys of each), none of them empty: two programs for every multiprocessor, of 16 tiles or
    more."""
    wanted = triton.cdiv(2 * multiprocessors(device), programs)
    tiles = triton.cdiv(keys, tile)
    each = triton.cdiv(tiles, max(1, min(wanted, tiles // 16))) * tile
    return triton.cdiv(keys, each), each


def read(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, arch: int, precision: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, N, H, D') of q (B, N, H, D), k (B, M, H, D), v (B, M, H, D') of one type, the last stride 1; the logarithms
    of the weights' sums (B, H, N), float32."""
    (batch, queries, heads, width), (_, keys, _, depth) = q.shape, v.shape
    tile, blocks = tile_of(arch, q.element_size(), width, depth), batch * heads
    blocks *= triton.cdiv(queries, tile.queries)
    splits, each = splits_of(keys, blocks, tile.keys, q.device)
    out, log_weight = q.new_empty(batch, queries, heads, depth), q.new_empty(batch, heads, queries, dtype=torch.float32)
    parts, logs = out, log_weight
    if splits > 1:
        parts, logs = (x.new_empty(splits, *x.shape, dtype=torch.float32) for x in (out, log_weight))
    (first, second), (first_v, second_v) = parts_of(width), parts_of(depth)
    read_kernel[(blocks, splits)](
        q, k, v, parts, logs, queries, keys, each, scale, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        HEADS=heads, D=width, D0=first, D1=second, V=depth, V0=first_v, V1=second_v, BQ=tile.queries, BN=tile.keys,
        BK=32 if q.element_size() == 4 and width > 64 else 0, PRECISION=precision,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    if splits > 1:
        rows, block = batch * queries * heads, 8
        combine_kernel[(triton.cdiv(rows, block),)](
            parts, logs, out, log_weight, rows, queries, splits, HEADS=heads, V=depth,
            BV=triton.next_power_of_2(depth), BR=block, num_warps=4,
        )  # fmt: skip
    return out, log_weight


def turned(
    q: torch.Tensor, k: torch.Tensor, tables: list[torch.Tensor], unturned: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys as the read takes them, of ``tables``: cosines and sines (N, D), those of the keys (R, D), all
    contiguous."""
    (batch, queries, heads, width), keys = q.shape, k.shape[1]
    found, columns = [q.new_empty(x.shape) for x in (q, k)], max(2, triton.next_power_of_2(width))
    block = max(1, 2048 // columns)
    rows = [batch * n * heads for n in (queries, keys)]
    turn_kernel[(sum(triton.cdiv(n, block) for n in rows),)](
        q, k, *tables, *found, queries, keys, keys - unturned, *rows, max(1, len(tables[2])), *q.stride()[:3],
        *k.stride()[:3], HEADS=heads, D=width, BD=columns, BR=block, num_warps=4,
    )  # fmt: skip
    return found[0], found[1]
