"""Cosines on a GPU: maps of a few vectors in one launch, and PFENet's prior mask in three.

similarity_kernel   lengths and products in one read of the features; cosines, their softmax, or the most similar row
pack_kernel         the support's pixels that the mask leaves, as rows of channels, with their lengths
product_kernel      their products with the query, tile by tile, and of every tile no more than the largest cosine
unit_kernel         the largest of all tiles, from 0 to 1

Lengths and sums in float32; products of float16 and bfloat16 as they are, of float32 as ``precision`` says.
"""

import torch
import triton
import triton.language as tl
from fastprompt.kernels.jit import jit

LIMIT = 1 << 31  # offsets within an image are 32-bit integers
MOST_ROWS = 256  # of a softmax: one program holds all of a pixel
MOST_PIXELS = 16384  # of a support: every program counts its mask, in registers
SPLITS = 16  # of the support's pixels: 57 tiles of a query of 60 x 60 are too few programs


@jit
def similarity_kernel(
    features, rows, out, pixels, row_count, row_stride, scale, eps, temperature,
    C: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr,
    FEW: tl.constexpr, KIND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Cosines of BN pixels to all rows: KIND 0 scaled, 1 their softmax, 2 the best. Grid (tiles of pixels, images)."""
    image = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    features += image * C * pixels
    rows += image * row_stride
    best, place = tl.full((BN,), -float("inf"), tl.float32), tl.zeros((BN,), tl.int64)
    for first in range(0, row_count, BP):
        p = first + tl.arange(0, BP)
        square, row_square = tl.zeros((BC, BN), tl.float32), tl.zeros((BP, BC), tl.float32)
        # A product of matrices wants 16 rows.
        product = tl.zeros((BP, BC, BN), tl.float32) if FEW else tl.zeros((BP, BN), tl.float32)
        for start in range(0, C, BC):
            c = start + tl.arange(0, BC)
            inside = (c < C)[:, None] & (n < pixels)[None, :]
            x = tl.load(features + c[:, None] * pixels + n[None, :], mask=inside, other=0.0)
            y = tl.load(rows + p[:, None] * C + c[None, :], mask=(p < row_count)[:, None] & (c < C)[None, :], other=0.0)
            wide, wide_row = x.to(tl.float32), y.to(tl.float32)
            square += wide * wide
            row_square += wide_row * wide_row
            if FEW:
                product += wide_row[:, :, None] * wide[None, :, :]
            elif x.dtype == y.dtype:
                product = tl.dot(y, x, product, input_precision=PRECISION)
            else:
                product = tl.dot(wide_row, wide, product, input_precision=PRECISION)
        dot = tl.sum(product, 1) if FEW else product
        length = tl.maximum(tl.sqrt(tl.sum(square, 0)), eps)
        row_length = tl.maximum(tl.sqrt(tl.sum(row_square, 1)), eps)
        cosine = dot / (row_length[:, None] * length[None, :])
        there = (p < row_count)[:, None]
        if KIND == 2:
            known = tl.where(there & (cosine == cosine), cosine, -float("inf"))
            top, where = tl.max(known, 0, return_indices=True, return_indices_tie_break_left=True)
            place = tl.where(top > best, first + where, place)
            best = tl.maximum(best, top)
        else:
            if KIND == 1:
                z = tl.where(there, temperature * cosine, -float("inf"))
                share = tl.exp(z - tl.max(z, 0)[None, :])
                value = share / tl.sum(share, 0)[None, :]
            else:
                value = scale * cosine
            at = out + (image * row_count + p[:, None]) * pixels + n[None, :]
            tl.store(at, value, mask=there & (n < pixels)[None, :])
    if KIND == 2:
        tl.store(out + image * pixels + n, place, mask=n < pixels)


@jit
def pack_kernel(
    support, mask, packed, lengths, counts, pixels,
    C: tl.constexpr, ALL: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Rows of channels of BM pixels, times their mask, those without any left out. Grid (tiles of pixels, pairs)."""
    pair = tl.program_id(1).to(tl.int64)
    mask += pair * pixels
    everyone, n = tl.arange(0, ALL), tl.program_id(0) * BM + tl.arange(0, BM)
    marked = tl.load(mask + everyone, mask=everyone < pixels, other=0.0) != 0
    before = tl.sum((marked & (everyone < tl.program_id(0) * BM)).to(tl.int32))
    weight = tl.load(mask + n, mask=n < pixels, other=0.0)
    live = (weight != 0).to(tl.int32)
    own = tl.sum(live)
    place = pair * pixels + before + tl.cumsum(live, 0) - 1
    square = tl.zeros((BM, BC), tl.float32)
    for start in range(0, tl.where(own > 0, C, 0), BC):
        c = start + tl.arange(0, BC)
        here = (live != 0)[:, None] & (c < C)[None, :]
        x = tl.load(support + (pair * C + c[None, :]) * pixels + n[:, None], mask=here, other=0.0)
        x = (x.to(tl.float32) * weight[:, None]).to(x.dtype)
        square += x.to(tl.float32) * x.to(tl.float32)
        tl.store(packed + place[:, None] * C + c[None, :], x, mask=here)
    tl.store(lengths + place, tl.sqrt(tl.sum(square, 1)), mask=live != 0)
    tl.store(counts + pair, before + own, mask=tl.program_id(0) == tl.num_programs(0) - 1)


@jit
def product_kernel(
    query, packed, lengths, counts, partial, pixels, support_pixels, shots, eps,
    C: tl.constexpr, BN: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Largest cosine of BN query pixels to some of the support's. Grid (tiles of pixels, splits, pairs)."""
    split, splits, pair = tl.program_id(1), tl.num_programs(1), tl.program_id(2).to(tl.int64)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    count = tl.load(counts + pair)
    query += pair // shots * C * pixels
    packed += pair * support_pixels * C
    # What the mask leaves out has the similarity 0.
    most = tl.zeros((BN,), tl.float32) + tl.where(count < support_pixels, 0.0, -float("inf"))
    unknown = tl.zeros((BN,), tl.int32)
    end = tl.where(split == 0, tl.maximum(count, 1), count)  # some program must see a query that is not finite
    for first in range(split * BP, end, splits * BP):
        p = first + tl.arange(0, BP)
        there = (p < count)[:, None]
        dot, square = tl.zeros((BP, BN), tl.float32), tl.zeros((BC, BN), tl.float32)
        for start in range(0, C, BC):
            c = start + tl.arange(0, BC)
            y = tl.load(packed + p[:, None] * C + c[None, :], mask=there & (c < C)[None, :], other=0.0)
            inside = (c < C)[:, None] & (n < pixels)[None, :]
            x = tl.load(query + c[:, None] * pixels + n[None, :], mask=inside, other=0.0)
            dot = tl.dot(y, x, dot, input_precision=PRECISION)
            square += x.to(tl.float32) * x.to(tl.float32)
        length = tl.sqrt(tl.sum(square, 0))
        own = tl.load(lengths + pair * support_pixels + p, mask=p < count, other=0.0)
        cosine = dot / (own[:, None] * length[None, :] + eps)
        unknown |= tl.max(((cosine != cosine) & there).to(tl.int32), 0) | (1 - (length < float("inf")).to(tl.int32))
        most = tl.maximum(most, tl.max(tl.where(there, cosine, -float("inf")), 0))
    most = tl.where(unknown != 0, float("nan"), most)
    tl.store(partial + (pair * splits + split) * pixels + n, most, mask=n < pixels)


@jit
def unit_kernel(partial, out, pixels, eps, S: tl.constexpr, ALL: tl.constexpr):
    """Largest of the S splits, then from 0 to 1 over the image; NaN if one is. Grid (pairs)."""
    pair = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, ALL)
    inside = n < pixels
    most, unknown = tl.full((ALL,), -float("inf"), tl.float32), tl.zeros((ALL,), tl.int32)
    for split in tl.static_range(S):
        found = tl.load(partial + (pair * S + split) * pixels + n, mask=inside, other=0.0)
        unknown |= (found != found).to(tl.int32)
        most = tl.maximum(most, found)
    low = tl.min(tl.where(inside, most, float("inf")), 0)
    high = tl.max(tl.where(inside, most, -float("inf")), 0)
    value = tl.where(tl.max(unknown, 0) != 0, float("nan"), (most - low) / (high - low + eps))
    tl.store(out + pair * pixels + n, value, mask=inside)


def similarity(
    features: torch.Tensor, rows: torch.Tensor, scale: float, eps: float, temperature: float, kind: int, precision: str
) -> torch.Tensor | None:
    """(B, P, N) float32, or (B, N) int64 of kind 2, of features (B, C, N) and rows (B or 1, P, C), contiguous.
    None: too large."""
    batch, channels, pixels = features.shape
    count = rows.shape[1]
    if max(channels * pixels, count * channels) >= LIMIT or batch >= 65536 or (kind == 1 and count > MOST_ROWS):
        return None
    shape, dtype = ((batch, pixels), torch.int64) if kind == 2 else ((batch, count, pixels), torch.float32)
    if 0 in (batch, count, pixels):
        return torch.zeros(shape, dtype=dtype, device=features.device)
    out = torch.empty(shape, dtype=dtype, device=features.device)
    few, wide = count <= 4, triton.next_power_of_2(count)
    tile = wide if few else max(16, wide if kind == 1 else min(wide, 64))
    if few:
        depth = 128 // tile  # 32 partial sums of a product a thread, and 16 KiB of features under way
    elif tile > 64:
        depth = 16  # more channels of 256 rows spill, in float32
    else:
        depth = 32 if features.dtype == torch.float32 else 64  # of bfloat16, 32 spill on sm_100
    similarity_kernel[(triton.cdiv(pixels, 32), batch)](
        features, rows, out, pixels, count, count * channels if len(rows) > 1 else 0, scale, eps, temperature,
        C=channels, BP=tile, BC=depth, BN=32, FEW=few, KIND=kind, PRECISION=precision,
        num_warps=8 if tile > 64 else 4, num_stages=2,
    )  # fmt: skip
    return out


def prior(
    query: torch.Tensor, support: torch.Tensor, mask: torch.Tensor, eps: float, level_eps: float, precision: str
) -> torch.Tensor | None:
    """(B K, N) float32, from 0 to 1, of a query (B, C, N), a support (B K, C, M) of its dtype, and masks (B K, M),
    float32; contiguous. None: too large."""
    pairs, channels, others = support.shape
    pixels = query.shape[2]
    if max(others, pixels) > MOST_PIXELS or max(others, pixels) * channels >= LIMIT or pairs >= 65536:
        return None
    out = torch.empty(pairs, pixels, dtype=torch.float32, device=query.device)
    if out.numel() == 0:
        return out
    packed, lengths = support.new_empty(pairs, others, channels), out.new_empty(pairs, others)
    counts = torch.empty(pairs, dtype=torch.int32, device=query.device)
    partial = out.new_empty(pairs, SPLITS, pixels)
    pack_kernel[(triton.cdiv(others, 32), pairs)](
        support, mask, packed, lengths, counts, others,
        C=channels, ALL=triton.next_power_of_2(max(others, 32)), BM=32, BC=64, num_warps=4,
    )  # fmt: skip
    product_kernel[(triton.cdiv(pixels, 64), SPLITS, pairs)](
        query, packed, lengths, counts, partial, pixels, others, pairs // len(query), eps,
        C=channels, BN=64, BP=64, BC=32, PRECISION=precision,
        num_warps=8 if query.dtype == torch.float32 else 4, num_stages=3,  # three products of TF32 spill in four warps
    )  # fmt: skip
    unit_kernel[(pairs,)](
        partial, out, pixels, level_eps, S=SPLITS, ALL=triton.next_power_of_2(max(pixels, 128)), num_warps=8
    )
    return out
