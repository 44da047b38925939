"""Token pruning on a GPU: scores in one launch, selection and compaction in another, restoring in a third.

The arithmetic of ``fastprompt.reference.pruning``: scores are compared in float32, equal ones go by the lowest index, a
NaN counts as -inf, rows are copied bit by bit. Nothing waits for the host, so a CUDA graph can hold all of it; and no
result depends on who comes first: every program finds what concerns it in all indices.
"""

import torch
import triton
import triton.language as tl
from fastprompt.kernels.jit import jit

MOST_TOKENS = 16384  # all of an image's are in the registers of a program: no spills up to here
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # rows are moved, whatever they are


@triton.jit
def larger(best, unknown, dot, norm, square, there):
    """The cosine to one more prompt taken into the largest ones, and into which of them are NaN."""
    cosine = tl.sum(dot, 1) / (norm * tl.maximum(tl.sqrt(tl.sum(square, 0)), 1e-12))
    unknown |= ((cosine != cosine) & there).to(tl.int32)
    return tl.maximum(best, tl.where(there, cosine, -float("inf"))), unknown


@jit
def scores_kernel(
    tokens, prompts, scores, count, prompt_count, prompt_stride, image_stride, row_stride,
    C: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    """Largest cosine of BN tokens to the prompts of image b. Grid (tiles of tokens, images).

    A program is one warp whose lanes share the channels: nothing waits for another warp, sums stay in their lanes until
    the last channel, and the loads of PIECES x BC channels depend on nothing. Four prompts for each read of the tokens.
    """
    b = tl.program_id(1).to(tl.int64)
    n, lane = tl.program_id(0) * BN + tl.arange(0, BN), tl.arange(0, BC)
    rows, prompts = tokens + b * image_stride + n[:, None] * row_stride, prompts + b * prompt_stride
    best, unknown = tl.full((BN,), -float("inf"), tl.float32), tl.zeros((BN,), tl.int32)
    for first in range(0, prompt_count, 4):
        row, left = prompts + first * C, prompt_count - first
        square = tl.zeros((BN, BC), tl.float32)
        dot0, dot1, dot2, dot3 = square, square, square, square
        square0 = tl.zeros((BC,), tl.float32)
        square1, square2, square3 = square0, square0, square0
        for start in range(0, C, BC * PIECES):
            for piece in tl.static_range(PIECES):
                c = start + piece * BC + lane
                x = tl.load(rows + c[None, :], mask=(n < count)[:, None] & (c < C)[None, :], other=0.0).to(tl.float32)
                y0 = tl.load(row + c, mask=c < C, other=0.0).to(tl.float32)
                y1 = tl.load(row + C + c, mask=(c < C) & (left > 1), other=0.0).to(tl.float32)
                y2 = tl.load(row + 2 * C + c, mask=(c < C) & (left > 2), other=0.0).to(tl.float32)
                y3 = tl.load(row + 3 * C + c, mask=(c < C) & (left > 3), other=0.0).to(tl.float32)
                square += x * x
                dot0, square0 = dot0 + x * y0[None, :], square0 + y0 * y0
                dot1, square1 = dot1 + x * y1[None, :], square1 + y1 * y1
                dot2, square2 = dot2 + x * y2[None, :], square2 + y2 * y2
                dot3, square3 = dot3 + x * y3[None, :], square3 + y3 * y3
        norm = tl.maximum(tl.sqrt(tl.sum(square, 1)), 1e-12)
        best, unknown = larger(best, unknown, dot0, norm, square0, left > 0)
        best, unknown = larger(best, unknown, dot1, norm, square1, left > 1)
        best, unknown = larger(best, unknown, dot2, norm, square2, left > 2)
        best, unknown = larger(best, unknown, dot3, norm, square3, left > 3)
    best = tl.where(unknown != 0, float("nan"), best)
    tl.store(scores + b * count + n, best, mask=n < count)


@triton.jit
def keys_of(scores, always, n, count, HAS_ALWAYS: tl.constexpr):
    """Integers in the order of selection, above 0; 0 behind the last token. Tokens that must stay come first."""
    value = tl.load(scores + n, mask=n < count, other=0.0)
    value = tl.where(value != value, -float("inf"), tl.where(value == 0, 0.0, value))  # -0 equals 0
    bits = value.to(tl.int32, bitcast=True)
    key = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64) + 2147483649
    if HAS_ALWAYS:
        key += (tl.load(always + n, mask=n < count, other=0) != 0).to(tl.int64) << 33
    return tl.where(n < count, key, 0)


@triton.jit
def samples_before(x, samples, left):
    """How many of ``samples`` even ones among ``left`` tokens are below x: floor((j + 1/2) left / samples) < x."""
    return (2 * samples.to(tl.int64) * x + left - 1) // (2 * left)


@jit
def prune_kernel(
    tokens, scores, always, limits, out, indices, count, rows, kept, samples, image_stride, row_stride, always_stride,
    C: tl.constexpr, ALL: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr,
    HAS_ALWAYS: tl.constexpr, HAS_LIMITS: tl.constexpr, MIXED: tl.constexpr,
):  # fmt: skip
    """Selects among all tokens of image b, and copies those of BN tokens that stay. Grid (tiles of tokens, images).

    Every program finds the threshold for itself: that is 34 counts of numbers in registers, and saves a launch.
    """
    b = tl.program_id(1).to(tl.int64)
    scores, always = scores + b * count, always + b * always_stride
    indices, out = indices + b * rows, out + b * rows * C
    everyone, n = tl.arange(0, ALL), tl.program_id(0) * BN + tl.arange(0, BN)
    if HAS_LIMITS:  # of each image
        kept = tl.maximum(tl.minimum(tl.load(limits + 2 * b), tl.minimum(count, rows)), 0).to(tl.int32)
        samples = tl.load(limits + 2 * b + 1).to(tl.int32)
    top = kept
    if MIXED:  # the best `top`, and samples of those that they leave
        if HAS_ALWAYS:
            marks = tl.load(always + everyone, mask=everyone < count, other=0)
            samples = tl.minimum(samples, kept - tl.sum((marks != 0).to(tl.int32)))
        samples = tl.maximum(samples, 0)
        top = kept - samples
    keys = keys_of(scores, always, everyone, count, HAS_ALWAYS)
    threshold = tl.zeros((), tl.int64)  # the largest key that `top` tokens reach
    for k in tl.static_range(34):
        higher = threshold + (1 << (33 - k))
        threshold = tl.where(tl.sum((keys >= higher).to(tl.int32)) >= top, higher, threshold)
    ties = top - tl.sum((keys > threshold).to(tl.int32))  # how many of those at the threshold stay, the first ones

    start = tl.program_id(0) * BN
    above = tl.sum(((keys > threshold) & (everyone < start)).to(tl.int32))
    equal = tl.sum(((keys == threshold) & (everyone < start)).to(tl.int32))
    mine = keys_of(scores, always, n, count, HAS_ALWAYS)
    is_equal = (mine == threshold).to(tl.int32)
    rank = equal + tl.cumsum(is_equal, 0) - is_equal
    stays = ((mine > threshold) | ((is_equal != 0) & (rank < ties))) & (n < count)
    before = above + tl.minimum(equal, ties)
    if MIXED:
        left = tl.maximum(count - top, 1)
        rest = ((n < count) & (stays == 0)).to(tl.int32)
        rank = start - before + tl.cumsum(rest, 0) - rest
        chosen = samples_before(rank + 1, samples, left) > samples_before(rank, samples, left)
        stays = stays | ((rest != 0) & chosen)
        before += samples_before(start - before, samples, left).to(tl.int32)
    place = before + tl.cumsum(stays.to(tl.int32), 0) - 1
    tl.store(indices + place, n.to(tl.int64), mask=stays)
    padding = (n >= kept) & (n < rows)
    if HAS_LIMITS:
        tl.store(indices + n, tl.full((BN,), -1, tl.int64), mask=padding)
    source, target = tokens + b * image_stride + n[:, None] * row_stride, out + place[:, None] * C
    for first in range(0, C, BC):
        c = first + tl.arange(0, BC)
        here = stays[:, None] & (c < C)[None, :]
        tl.store(target + c[None, :], tl.load(source + c[None, :], mask=here), mask=here)
        if HAS_LIMITS:
            nothing = tl.zeros((BN, BC), out.dtype.element_ty)
            tl.store(out + n[:, None] * C + c[None, :], nothing, mask=padding[:, None] & (c < C)[None, :])


@jit
def gather_kernel(
    rows, index, out, count, kept, image_stride, row_stride, C: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr
):
    """Rows by their index, zeros where it is none of a row. Grid (tiles of indices, images)."""
    b = tl.program_id(1).to(tl.int64)
    k = tl.program_id(0) * BN + tl.arange(0, BN)
    place = tl.load(index + b * kept + k, mask=k < kept, other=-1)
    there = (place >= 0) & (place < count)
    for first in range(0, C, BC):
        c = first + tl.arange(0, BC)
        inside = (k < kept)[:, None] & (c < C)[None, :]
        source = rows + b * image_stride + place[:, None] * row_stride + c[None, :]
        value = tl.load(source, mask=inside & there[:, None], other=0)
        tl.store(out + (b * kept + k)[:, None] * C + c[None, :], value, mask=inside)


@jit
def scatter_kernel(
    rows, base, index, out, count, kept, rows_image, rows_row, base_image, base_row, out_image, out_row,
    C: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BC: tl.constexpr, HAS_BASE: tl.constexpr,
    IN_PLACE: tl.constexpr,
):  # fmt: skip
    """All tokens: the rows where an index names them, else the base, or zeros. Grid (tiles of tokens, images).

    Every program looks through all indices for those of its tokens, so that one launch does, in any order of them.
    """
    b = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    place = tl.full((BN,), -1, tl.int32)  # of equal indices the last counts
    for first in range(0, kept, BK):
        k = first + tl.arange(0, BK)
        named = tl.load(index + b * kept + k, mask=k < kept, other=-1)
        named = tl.where((named >= 0) & (named < count), named, -1).to(tl.int32)
        place = tl.maximum(place, tl.max(tl.where(named[None, :] == n[:, None], k[None, :], -1), 1))
    found = (place >= 0)[:, None]
    source, target = b * rows_image + place[:, None].to(tl.int64) * rows_row, b * out_image + n[:, None] * out_row
    for first in range(0, C, BC):
        c = (first + tl.arange(0, BC))[None, :]
        inside = (n < count)[:, None] & (c < C)
        value = tl.load(rows + source + c, mask=inside & found, other=0)
        if HAS_BASE:
            old = tl.load(base + b * base_image + n[:, None] * base_row + c, mask=inside & (place < 0)[:, None])
            value = tl.where(found, value, old)
        if IN_PLACE:
            inside = inside & found
        tl.store(out + target + c, value, mask=inside)


@jit
def merge_kernel(tokens, size, target, out, count, kept, C: tl.constexpr, ALL: tl.constexpr, BC: tl.constexpr):
    """Means, weighted by size, of the tokens that come to place j, one by one in their order. Grid (places, images)."""
    j, b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    n, c = tl.arange(0, ALL), tl.arange(0, BC)
    here = tl.load(target + b * count + n, mask=n < count, other=-1) == j
    total, parts = 0.0, 0
    mean, value = tl.zeros((BC,), tl.float32), tl.zeros((BC,), tl.float32)
    token = tl.min(tl.where(here, n, ALL), 0)
    while token < ALL:
        value = tl.load(tokens + (b * count + token) * C + c, mask=c < C, other=0.0).to(tl.float32)
        weight = tl.load(size + b * count + token)
        mean, total, parts = mean + weight * value, total + weight, parts + 1
        token = tl.min(tl.where(here & (n > token), n, ALL), 0)
    mean = tl.where(parts == 1, value, mean / total)  # alone, it keeps its bits
    tl.store(out + (b * kept + j) * C + c, mean, mask=c < C)


def fits(x: torch.Tensor) -> bool:
    """Whether 32 bits hold every offset within an image of ``x`` (B, N, C)."""
    return len(x) < 65536 and sum(n * s for n, s in zip(x.shape[1:], x.stride()[1:], strict=True)) < 1 << 31


def fits_a_program(x: torch.Tensor) -> bool:
    return fits(x) and x.shape[1] <= MOST_TOKENS


def whole_rows(x: torch.Tensor) -> torch.Tensor:
    """``x`` (B, N, C) with the channels of a row side by side; a view like ``x[:, 1:]`` stays one."""
    return x if x.stride(2) == 1 or x.shape[2] == 1 else x.contiguous()


def bits(x: torch.Tensor) -> torch.Tensor:
    return whole_rows(x).view(BITS[x.element_size()])


def scores_tile(size: int) -> tuple[int, int]:
    """Tokens of a program of scores_kernel, and channels of a piece: 16 bytes a lane, 16 sums for each prompt."""
    piece = 512 // max(size, 2)
    return 512 // piece, piece


def cosine_scores(tokens: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
    """(B, N) float32: the largest cosine of each token (B, N, C) to a prompt (B or 1, P >= 1, C)."""
    batch, count, channels = tokens.shape
    tokens = whole_rows(tokens)
    scores = torch.empty(batch, count, dtype=torch.float32, device=tokens.device)
    if scores.numel() == 0:
        return scores
    stride = prompts.shape[1] * channels if len(prompts) > 1 else 0
    tile, piece = scores_tile(tokens.element_size())
    scores_kernel[(triton.cdiv(count, tile), batch)](
        tokens, prompts, scores, count, prompts.shape[1], stride, tokens.stride(0), tokens.stride(1),
        C=channels, BN=tile, BC=piece, PIECES=min(8, triton.cdiv(channels, piece)), num_warps=1, num_stages=1,
    )  # fmt: skip
    return scores


def prune(
    tokens: torch.Tensor, scores: torch.Tensor, kept: int, always: torch.Tensor | None = None,
    samples: int = 0, limits: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """The ``kept`` tokens (B, K, C) with the highest scores (B, N), in their order, and which they are (B, K), int64.

    ``always`` (B, N) uint8: not 0 = stays. ``samples`` of the K are taken evenly from what the others leave. ``limits``
    (B, 2) int64: K and samples of each image; it has rows of zeros behind them, with the index -1."""
    batch, count, channels = tokens.shape
    data = bits(tokens)
    out = data.new_empty(batch, kept, channels)
    indices = torch.empty(batch, kept, dtype=torch.int64, device=tokens.device)
    if out.numel() == 0:
        return out.view(tokens.dtype), indices
    everyone = triton.next_power_of_2(max(count, 32))
    warps = 4 if everyone <= 2048 else 8 if everyone <= 8192 else 16  # no spills up to 16384 tokens
    prune_kernel[(triton.cdiv(max(count, kept), 32), batch)](
        data, scores, scores if always is None else always, indices if limits is None else limits, out, indices,
        count, kept, kept, samples, data.stride(0), data.stride(1), count,
        C=channels, ALL=everyone, BN=32, BC=64, HAS_ALWAYS=always is not None, HAS_LIMITS=limits is not None,
        MIXED=samples > 0 or limits is not None, num_warps=warps,
    )  # fmt: skip
    return out.view(tokens.dtype), indices


def gather(rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(B, K, C): ``rows`` (B, N, C) by their index (B, K), int64; zeros where it is none of a row."""
    data, (batch, kept) = bits(rows), index.shape
    count, channels = data.shape[1:]
    out = data.new_empty(batch, kept, channels)
    if out.numel():
        gather_kernel[(triton.cdiv(kept, 32), batch)](
            data, index, out, count, kept, data.stride(0), data.stride(1), C=channels, BN=32, BC=64, num_warps=4
        )
    return out.view(rows.dtype)


def scatter(base: torch.Tensor | None, rows: torch.Tensor, index: torch.Tensor, out: torch.Tensor) -> None:
    """``out`` (B, N, C): ``rows`` (B, K, C) where the index (B, K) names a token, else ``base``, or zeros; ``base`` is
    ``out``: the others stay. ``out`` has whole rows."""
    batch, count, channels = out.shape
    if out.numel() == 0:
        return
    data, below, target = bits(rows), None if base is None else bits(base), out.view(BITS[out.element_size()])
    strides = below.stride()[:2] if below is not None else (0, 0)
    scatter_kernel[(triton.cdiv(count, 32), batch)](
        data, target if below is None else below, index, target, count, data.shape[1],
        *data.stride()[:2], *strides, *target.stride()[:2],
        C=channels, BN=32, BK=512, BC=64, HAS_BASE=base is not None and base is not out, IN_PLACE=base is out,
        num_warps=8,
    )  # fmt: skip


def merge(tokens: torch.Tensor, size: torch.Tensor, target: torch.Tensor, kept: int) -> torch.Tensor:
    """(B, K, C) float32: means of the tokens (B, N, C), weighted by size (B, N), that share a target (B, N), int64."""
    batch, count, channels = tokens.shape
    out = torch.empty(batch, kept, channels, dtype=torch.float32, device=tokens.device)
    if out.numel():
        merge_kernel[(kept, batch)](
            tokens, size, target, out, count, kept, C=channels, ALL=triton.next_power_of_2(max(count, 32)),
            BC=triton.next_power_of_2(channels), num_warps=4 if count <= 4096 else 8,
        )  # fmt: skip
    return out
