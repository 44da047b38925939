"""Token pruning on a GPU: scores in one launch, selection and compaction in another, restoring in a third.

The arithmetic of ``fastprompt.reference.pruning``: scores are compared in float32, equal ones go by the lowest index, a
NaN counts as -inf, rows are copied bit by bit. Nothing waits for the host, so a CUDA graph can hold all of it.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def scores_kernel(
    tokens, prompts, scores, count, prompt_count, prompt_stride,
    C: tl.constexpr, BN: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Largest cosine of BN tokens to the prompts of image b; one read of the tokens. Grid (tiles of tokens, images)."""
    b = tl.program_id(1).to(tl.int64)
    n, p = tl.program_id(0) * BN + tl.arange(0, BN), tl.arange(0, BP)
    rows, others = tokens + b * count * C + n[:, None] * C, prompts + b * prompt_stride + p[:, None] * C
    best, unknown = tl.full((BN,), -float("inf"), tl.float32), tl.zeros((BN,), tl.int32)
    for first in range(0, prompt_count, BP):
        there = first + p < prompt_count
        dot, square, prompt_square = (
            tl.zeros((BN, BP), tl.float32),
            tl.zeros((BN,), tl.float32),
            tl.zeros((BP,), tl.float32),
        )
        for start in range(0, C, BC):
            c = start + tl.arange(0, BC)
            x = tl.load(rows + c[None, :], mask=(n < count)[:, None] & (c < C)[None, :], other=0.0).to(tl.float32)
            y = tl.load(others + first * C + c[None, :], mask=there[:, None] & (c < C)[None, :], other=0.0).to(
                tl.float32
            )
            dot = tl.dot(x, tl.trans(y), dot, input_precision="ieee")
            square += tl.sum(x * x, 1)
            prompt_square += tl.sum(y * y, 1)
        norm, prompt_norm = tl.maximum(tl.sqrt(square), 1e-12), tl.maximum(tl.sqrt(prompt_square), 1e-12)
        cosine = dot / (norm[:, None] * prompt_norm[None, :])
        unknown |= tl.max(((cosine != cosine) & there[None, :]).to(tl.int32), 1)
        best = tl.maximum(best, tl.max(tl.where(there[None, :], cosine, -float("inf")), 1))
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
def prune_kernel(
    tokens, scores, always, out, indices, places, count, kept, always_stride,
    C: tl.constexpr, ALL: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, HAS_ALWAYS: tl.constexpr,
):  # fmt: skip
    """Selects among all tokens of image b, and copies those of BN tokens that stay. Grid (tiles of tokens, images).

    Every program finds the threshold for itself: that is 34 counts of numbers in registers, and saves a launch.
    """
    b = tl.program_id(1).to(tl.int64)
    scores, always = scores + b * count, always + b * always_stride
    everyone, n = tl.arange(0, ALL), tl.program_id(0) * BN + tl.arange(0, BN)
    keys = keys_of(scores, always, everyone, count, HAS_ALWAYS)
    threshold = tl.zeros((), tl.int64)  # the largest key that `kept` tokens reach
    for k in tl.static_range(34):
        higher = threshold + (1 << (33 - k))
        threshold = tl.where(tl.sum((keys >= higher).to(tl.int32)) >= kept, higher, threshold)
    ties = kept - tl.sum((keys > threshold).to(tl.int32))  # how many of those at the threshold stay, the first ones

    earlier = everyone < tl.program_id(0) * BN
    above = tl.sum(((keys > threshold) & earlier).to(tl.int32))
    equal = tl.sum(((keys == threshold) & earlier).to(tl.int32))
    mine = keys_of(scores, always, n, count, HAS_ALWAYS)
    is_equal = (mine == threshold).to(tl.int32)
    rank = equal + tl.cumsum(is_equal, 0) - is_equal
    stays = (mine > threshold) | ((is_equal != 0) & (rank < ties))
    before = above + tl.minimum(equal, ties)
    place = before + tl.cumsum(stays.to(tl.int32), 0) - 1
    tl.store(indices + b * kept + place, n.to(tl.int64), mask=stays)
    tl.store(places + b * count + n, tl.where(stays, place, -1), mask=n < count)
    source, target = tokens + (b * count + n)[:, None] * C, out + (b * kept + place)[:, None] * C
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        here = stays[:, None] & (c < C)[None, :]
        tl.store(target + c[None, :], tl.load(source + c[None, :], mask=here), mask=here)


@triton.jit
def restore_kernel(
    rows, base, places, out, count, kept,
    C: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, HAS_BASE: tl.constexpr,
):  # fmt: skip
    """All tokens: the rows where a token was kept, else the base, or zeros. Grid (tiles of tokens, images)."""
    b = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    place = tl.load(places + b * count + n, mask=n < count, other=-1)
    source, target = (b * kept + place)[:, None] * C, (b * count + n)[:, None] * C
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        inside = (n < count)[:, None] & (c < C)[None, :]
        from_rows = inside & (place >= 0)[:, None]
        value = tl.load(rows + source + c[None, :], mask=from_rows, other=0.0)
        if HAS_BASE:
            old = tl.load(base + target + c[None, :], mask=inside & (place < 0)[:, None], other=0.0)
            value = tl.where((place >= 0)[:, None], value, old)
        tl.store(target + out + c[None, :], value, mask=inside)


def cosine_scores(tokens: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
    """(B, N) float32: the largest cosine of each token (B, N, C) to a prompt (B or 1, P >= 1, C)."""
    batch, count, channels = tokens.shape
    scores = torch.empty(batch, count, dtype=torch.float32, device=tokens.device)
    stride = prompts.shape[1] * channels if len(prompts) > 1 else 0
    # Two stages: with three, ptxas spills on sm_90.
    scores_kernel[(triton.cdiv(count, 32), batch)](
        tokens,
        prompts,
        scores,
        count,
        prompts.shape[1],
        stride,
        C=channels,
        BN=32,
        BP=16,
        BC=32,
        num_warps=4,
        num_stages=2,
    )
    return scores


def prune(
    tokens: torch.Tensor, scores: torch.Tensor, kept: int, always: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The ``kept`` tokens (B, K, C) with the highest scores (B, N), in their order; which they are (B, K), int64; and
    where each token is among them (B, N), int32, -1 if it was left out. ``always`` (B or 1, N) uint8: not 0 = stays."""
    batch, count, channels = tokens.shape
    out = tokens.new_empty(batch, kept, channels)
    indices = torch.empty(batch, kept, dtype=torch.int64, device=tokens.device)
    places = torch.empty(batch, count, dtype=torch.int32, device=tokens.device)
    everyone = triton.next_power_of_2(max(count, 32))
    warps = 4 if everyone <= 2048 else 8 if everyone <= 8192 else 16  # no spills up to 16384 tokens
    prune_kernel[(triton.cdiv(count, 32), batch)](
        tokens, scores, scores if always is None else always, out, indices, places, count, kept,
        0 if always is None or len(always) == 1 else count,
        C=channels, ALL=everyone, BN=32, BC=64, HAS_ALWAYS=always is not None, num_warps=warps,
    )  # fmt: skip
    return out, indices, places


def restore(rows: torch.Tensor, places: torch.Tensor, base: torch.Tensor | None) -> torch.Tensor:
    """(B, N, C): ``rows`` (B, K, C) where a token was kept, else ``base`` (B, N, C), or zeros."""
    batch, kept, channels = rows.shape
    count = places.shape[1]
    out = rows.new_empty(batch, count, channels)
    restore_kernel[(triton.cdiv(count, 32), batch)](
        rows, rows if base is None else base, places, out, count, kept,
        C=channels, BN=32, BC=64, HAS_BASE=base is not None, num_warps=4,
    )  # fmt: skip
    return out
