"""Cosines on a GPU: maps of a few vectors in one launch, and PFENet's prior mask in four.

similarity_kernel   lengths and products in one read of the features; cosines, their softmax, or the most similar row
pack_kernel         the query's pixels as rows of channels, and the support's that the mask leaves, with their squares
product_kernel      their products, tile by tile, and of every tile no more than the largest cosine
unit_kernel         the largest of all tiles, from 0 to 1

Lengths and sums in float32; products of float16 and bfloat16 as they are, of float32 as ``precision`` says.
"""

import torch
import triton
import triton.language as tl
from fastprompt.kernels.jit import jit
from fastprompt.kernels.pooling import architecture

LIMIT = 1 << 31  # offsets within an image are 32-bit integers
MOST_ROWS = 256  # of a softmax: one program holds all of a pixel
MOST_PIXELS = 16384  # of a support: every program counts its mask, in registers
SPLITS = 16  # of the support's pixels: 29 tiles of a query of 60 x 60 are too few programs
CHANNELS = 128  # of a program of pack_kernel


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
    features, mask, packed, rest, squares, counts, pixels,
    C: tl.constexpr, ALL: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
    HAS_MASK: tl.constexpr, HAS_REST: tl.constexpr,
):  # fmt: skip
    """Rows of BC channels of BM pixels, times their mask, those without any left out; the sums of their squares.
    HAS_REST: in two parts of TF32. Grid (tiles of pixels, tiles of channels, images)."""
    tile, part, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    n, c = tile * BM + tl.arange(0, BM), part * BC + tl.arange(0, BC)
    live, place = n < pixels, n
    weight = tl.full((BM,), 1.0, tl.float32)
    if HAS_MASK:
        mask += image * pixels
        weight = tl.load(mask + n, mask=n < pixels, other=0.0)
        live = weight != 0
        own = live.to(tl.int32)
        last = (tile == tl.num_programs(0) - 1) & (part == 0)
        before = tl.zeros((), tl.int32)
        if last | (tl.sum(own) > 0):
            everyone = tl.arange(0, ALL)
            marked = tl.load(mask + everyone, mask=everyone < pixels, other=0.0) != 0
            before = tl.sum((marked & (everyone < tile * BM)).to(tl.int32))
        place = before + tl.cumsum(own, 0) - own
        tl.store(counts + image, before + tl.sum(own), mask=last)
    here = live[:, None] & (c < C)[None, :]
    x = tl.load(features + (image * C + c[None, :]) * pixels + n[:, None], mask=here, other=0.0)
    if HAS_MASK:
        x = (x.to(tl.float32) * weight[:, None]).to(x.dtype)
    at = (image * pixels + place[:, None]) * C + c[None, :]
    if HAS_REST:
        first = (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)  # TF32 has 13 bits less
        tl.store(packed + at, first, mask=here)
        tl.store(rest + at, x - first, mask=here)
    else:
        tl.store(packed + at, x, mask=here)
    wide = x.to(tl.float32)
    tl.store(squares + (image * tl.num_programs(1) + part) * pixels + place, tl.sum(wide * wide, 1), mask=live)


@triton.jit
def lengths_of(squares, n, count, pixels, PARTS: tl.constexpr, BT: tl.constexpr):
    part = tl.arange(0, BT)
    there = (part < PARTS)[:, None] & (n < count)[None, :]
    return tl.sqrt(tl.sum(tl.load(squares + part[:, None] * pixels + n[None, :], mask=there, other=0.0), 0))


@jit
def product_kernel(
    query, query_rest, query_squares, support, support_rest, support_squares, counts, partial,
    pixels, support_pixels, shots, eps,
    C: tl.constexpr, PARTS: tl.constexpr, BT: tl.constexpr, BM: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
    HAS_REST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Largest cosine of BM query pixels to some of the support's. Grid (tiles of pixels, splits, pairs).

    Both are rows of channels, as tensor cores want them: between shared memory and the products are no registers.
    """
    split, splits, pair = tl.program_id(1), tl.num_programs(1), tl.program_id(2).to(tl.int64)
    image = pair // shots
    n, lane = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, BC)
    count = tl.load(counts + pair)
    query, query_rest = query + image * pixels * C, query_rest + image * pixels * C
    support, support_rest = support + pair * support_pixels * C, support_rest + pair * support_pixels * C
    own = n[:, None] * C + lane[None, :]
    length = lengths_of(query_squares + image * PARTS * pixels, n, pixels, pixels, PARTS, BT)
    # What the mask leaves out has the similarity 0.
    most = tl.zeros((BM,), tl.float32) + tl.where(count < support_pixels, 0.0, -float("inf"))
    unknown = 1 - (length < float("inf")).to(tl.int32)
    support_squares += pair * PARTS * support_pixels
    for first in range(split * BP, count, splits * BP):
        p = first + tl.arange(0, BP)
        other = p[:, None] * C + lane[None, :]
        dot = tl.zeros((BM, BP), tl.float32)
        for start in range(0, C, BC):
            own_there = (n < pixels)[:, None] & (start + lane < C)[None, :]
            there = (p < count)[:, None] & (start + lane < C)[None, :]
            x = tl.load(query + start + own, mask=own_there, other=0.0)
            y = tl.load(support + start + other, mask=there, other=0.0)
            if HAS_REST:
                x_rest = tl.load(query_rest + start + own, mask=own_there, other=0.0)
                y_rest = tl.load(support_rest + start + other, mask=there, other=0.0)
                dot = tl.dot(x_rest, tl.trans(y), dot, input_precision=PRECISION)
                dot = tl.dot(x, tl.trans(y_rest), dot, input_precision=PRECISION)
            dot = tl.dot(x, tl.trans(y), dot, input_precision=PRECISION)
        support_length = lengths_of(support_squares, p, count, support_pixels, PARTS, BT)
        cosine = dot / (length[:, None] * support_length[None, :] + eps)
        there = (p < count)[None, :]
        unknown |= tl.max(((cosine != cosine) & there).to(tl.int32), 1)
        most = tl.maximum(most, tl.max(tl.where(there, cosine, -float("inf")), 1))
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


def product_tile(arch: int, size: int, two: bool, precision: str) -> tuple[int, int, int]:
    """Pixels and channels of a tile of product_kernel, and stages: no spills, and within each shared memory."""
    if arch == 75 or (precision == "ieee" and size == 4):
        return 64, 32, 3
    if arch in (90, 100):  # 144 KiB, and products that take their operands from there
        return 128, (128 if two else 256) // size, 3
    return 128, (64 if two else 128) // size, 4


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
    parts = triton.cdiv(channels, CHANNELS)
    two = query.dtype == torch.float32 and precision == "tf32x3"

    def packed(x: torch.Tensor, weights: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        images, _, size = x.shape
        rows, squares = x.new_empty(images, size, channels), out.new_empty(images, parts, size)
        rest = torch.empty_like(rows) if two else rows
        pack_kernel[(triton.cdiv(size, 32), parts, images)](
            x, squares if weights is None else weights, rows, rest, squares, counts, size,
            C=channels, ALL=triton.next_power_of_2(max(size, 32)), BM=32, BC=CHANNELS,
            HAS_MASK=weights is not None, HAS_REST=two, num_warps=4,
        )  # fmt: skip
        return rows, rest, squares

    counts = torch.empty(pairs, dtype=torch.int32, device=query.device)
    partial = out.new_empty(pairs, SPLITS, pixels)
    tile, depth, stages = product_tile(architecture(query), query.element_size(), two, precision)
    product_kernel[(triton.cdiv(pixels, tile), SPLITS, pairs)](
        *packed(query, None), *packed(support, mask), counts, partial, pixels, others, pairs // len(query), eps,
        C=channels, PARTS=parts, BT=triton.next_power_of_2(parts), BM=tile, BP=64, BC=depth,
        HAS_REST=two, PRECISION="tf32" if two else precision, num_warps=8, num_stages=stages,
    )  # fmt: skip
    unit_kernel[(pairs,)](
        partial, out, pixels, level_eps, S=SPLITS, ALL=triton.next_power_of_2(max(pixels, 128)), num_warps=8
    )
    return out
