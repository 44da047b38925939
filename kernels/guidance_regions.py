"""Maps of clicks on regions on a GPU: superpixels and object proposals, in two launches each.

Nothing waits for the host, so nothing can be raised: a click outside the image, or a superpixel that is negative or not
below the number of pixels, makes the maps that it would touch NaN.
"""

import torch
import triton
import triton.language as tl
from fastprompt.kernels.guidance import check_clicks, is_click
from fastprompt.kernels.jit import jit


@triton.jit
def pixels_of(points, labels, n, count, wanted, height, width):
    """Where clicks of this label lie, y * width + x; -1: no such click; -2: one outside the image."""
    mine = (n < count) & (tl.load(labels + n, mask=n < count, other=0) == wanted)
    x, y = tl.load(points + 2 * n, mask=mine, other=0.0), tl.load(points + 2 * n + 1, mask=mine, other=0.0)
    column, row = tl.floor(x + 0.5), tl.floor(y + 0.5)
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    at = tl.where(inside, row, 0.0).to(tl.int32) * width + tl.where(inside, column, 0.0).to(tl.int32)
    return tl.where(mine & is_click(x, y), tl.where(inside, at, -2), -1)


@jit
def superpixel_sums_kernel(region, sums, width, pixels, blocks, BLOCK: tl.constexpr):
    """Adds up x, y and 1 of every superpixel, in integers: any order gives the same. Grid (blocks x images)."""
    block, b = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    p = block * BLOCK + tl.arange(0, BLOCK)
    own = tl.load(region + b * pixels + p, mask=p < pixels, other=-1)
    known = (own >= 0) & (own < pixels)
    at = sums + (b * pixels + own) * 3
    tl.atomic_add(at, (p % width).to(tl.int64), mask=known, sem="relaxed")
    tl.atomic_add(at + 1, (p // width).to(tl.int64), mask=known, sem="relaxed")
    tl.atomic_add(at + 2, tl.full((BLOCK,), 1, tl.int64), mask=known, sem="relaxed")


@triton.jit
def centroid(sums, known):
    """(x, y) in float64, as on the CPU."""
    size = tl.load(sums + 2, mask=known, other=1).to(tl.float64)
    x, y = tl.load(sums, mask=known, other=0).to(tl.float64), tl.load(sums + 1, mask=known, other=0).to(tl.float64)
    return x / size, y / size


@jit(do_not_specialize=["label0", "label1", "label2", "label3"])
def superpixel_map_kernel(
    region, sums, points, labels, out, count, height, width, pixels, blocks, channels, first_channel, clip,
    label0, label1, label2, label3, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Distances from the centroids of BLOCK pixels to the nearest of the clicked ones. Grid (blocks x some channels x
    images)."""
    block, group = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    b, channel = (group // CHANNELS).to(tl.int64), group % CHANNELS
    wanted = tl.where(channel < 2, tl.where(channel == 0, label0, label1), tl.where(channel == 2, label2, label3))
    p = block * BLOCK + tl.arange(0, BLOCK)
    region, sums = region + b * pixels, sums + b * pixels * 3
    points, labels = points + b * count * 2, labels + b * count
    own = tl.load(region + p, mask=p < pixels, other=0)
    known = (own >= 0) & (own < pixels)
    x, y = centroid(sums + own * 3, known)
    square, bad = tl.full((BLOCK,), float("inf"), tl.float64), known == 0
    for n in range(count):
        at = pixels_of(points, labels, n, count, wanted, height, width)
        clicked = tl.load(region + at, mask=at >= 0, other=0)
        good = (at >= 0) & (clicked >= 0) & (clicked < pixels)
        cx, cy = centroid(sums + clicked * 3, good)
        dx, dy = x - cx, y - cy
        square = tl.where(good, tl.minimum(square, dx * dx + dy * dy), square)
        bad |= (at == -2) | ((at >= 0) & (good == 0))
    value = tl.minimum(tl.sqrt(square).to(tl.float32), clip)
    place = out + (b * channels + first_channel + channel) * pixels + p
    tl.store(place, tl.where(bad, float("nan"), value), mask=p < pixels)


@jit(do_not_specialize=["label0", "label1", "label2", "label3"])
def proposal_votes_kernel(
    member, points, labels, votes, count, proposals, height, width, pixels, channels, first_channel,
    label0, label1, label2, label3, CHANNELS: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """How many clicks of a channel lie in a proposal; -1: one of them lies outside. Grid (proposals x some channels x
    images)."""
    proposal, group = tl.program_id(0) % proposals, tl.program_id(0) // proposals
    b, channel = (group // CHANNELS).to(tl.int64), group % CHANNELS
    wanted = tl.where(channel < 2, tl.where(channel == 0, label0, label1), tl.where(channel == 2, label2, label3))
    mask = member + (b * proposals + proposal) * pixels
    number, outside = tl.zeros((BN,), tl.int32), tl.zeros((BN,), tl.int32)
    for begin in range(0, count, BN):
        n = begin + tl.arange(0, BN)
        at = pixels_of(points + b * count * 2, labels + b * count, n, count, wanted, height, width)
        number += (tl.load(mask + at, mask=at >= 0, other=0) != 0).to(tl.int32)
        outside += (at == -2).to(tl.int32)
    value = tl.where(tl.sum(outside) > 0, -1, tl.sum(number))
    tl.store(votes + (b * channels + first_channel + channel) * proposals + proposal, value)


@jit
def proposal_map_kernel(member, votes, out, proposals, pixels, blocks, channels, BLOCK: tl.constexpr):
    """Votes of the proposals that BLOCK pixels are in. Grid (blocks x channels x images)."""
    block, m = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    p = block * BLOCK + tl.arange(0, BLOCK)
    member = member + m // channels * proposals * pixels
    total = tl.zeros((BLOCK,), tl.float32)
    for k in range(proposals):
        weight = tl.load(votes + m * proposals + k)
        if weight != 0:
            inside = tl.load(member + k.to(tl.int64) * pixels + p, mask=p < pixels, other=0) != 0
            value = tl.where(weight < 0, float("nan"), weight.to(tl.float32))
            total += tl.where(inside | (weight < 0), value, 0.0)
    tl.store(out + m * pixels + p, total, mask=p < pixels)


def by_four(channels: list[int]) -> list[tuple[int, list[int], int]]:
    """(first, four labels, how many of them count) of each launch."""
    parts = [(c, channels[c : c + 4]) for c in range(0, len(channels), 4)]
    return [(c, some + [0] * (4 - len(some)), len(some)) for c, some in parts]


def superpixel_map(
    region: torch.Tensor, points: torch.Tensor, labels: torch.Tensor, channels: list[int], clip: float
) -> torch.Tensor:
    """(B, channels, H, W) of superpixels (B, H, W), clicks (B, N, 2) and labels (B, N)."""
    points, labels = check_clicks(points, labels, region.shape[0]), labels.long().contiguous()
    region = region.long().contiguous()
    batch, height, width = region.shape
    out = region.new_empty((batch, len(channels), height, width), dtype=torch.float32)
    pixels = height * width
    if out.numel() == 0:
        return out
    sums = region.new_zeros(batch * pixels * 3)
    blocks = triton.cdiv(pixels, 1024)
    superpixel_sums_kernel[(blocks * batch,)](region, sums, width, pixels, blocks, BLOCK=1024, num_warps=4)
    blocks = triton.cdiv(pixels, 512)
    for first, four, number in by_four(channels):
        superpixel_map_kernel[(blocks * number * batch,)](
            region, sums, points, labels, out, points.shape[1], height, width, pixels, blocks, len(channels), first,
            clip, *four, CHANNELS=number, BLOCK=512, num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
    return out


def proposal_vote_map(
    member: torch.Tensor, points: torch.Tensor, labels: torch.Tensor, channels: list[int]
) -> torch.Tensor:
    """(B, channels, H, W) of proposals (B, P, H, W), bool or uint8, and clicks as above."""
    member = member.contiguous().view(torch.uint8)
    points, labels = check_clicks(points, labels, member.shape[0]), labels.long().contiguous()
    batch, proposals, height, width = member.shape
    out = member.new_empty((batch, len(channels), height, width), dtype=torch.float32)
    pixels = height * width
    if out.numel() == 0:
        return out
    if proposals == 0:
        return out.zero_()
    votes = torch.empty(batch * len(channels) * proposals, dtype=torch.int32, device=member.device)
    for first, four, number in by_four(channels):
        proposal_votes_kernel[(proposals * number * batch,)](
            member, points, labels, votes, points.shape[1], proposals, height, width, pixels, len(channels), first,
            *four, CHANNELS=number, BN=32, num_warps=1,
        )  # fmt: skip
    blocks = triton.cdiv(pixels, 1024)
    proposal_map_kernel[(blocks * len(channels) * batch,)](
        member, votes, out, proposals, pixels, blocks, len(channels), BLOCK=1024, num_warps=4
    )
    return out
