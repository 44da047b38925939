"""Maps of clicks and boxes on a GPU: the prompts go in, every map is written once, in one launch.

The arithmetic is that of csrc/guidance: float32, no fused multiply-add, so that disks, distances and boxes have the
bits of the CPU; tanh and Gaussian go through ``ex2.approx`` and stay within 1e-6. A stretch by "minmax" needs the range
of the whole map and is a second launch. Nothing waits for the host.
"""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from fastprompt.kernels.jit import jit

DISK, EUCLIDEAN, TANH, GAUSSIAN = range(4)
AT_ONCE = 4  # channels, and scales, of a launch: they are arguments, so that another radius compiles nothing
# Tiles are as square as wide stores allow: what is culled is culled for a whole tile.
TILE = {"BY": 16, "BX": 64, "num_warps": 4, "enable_fp_fusion": False}


@triton.jit
def is_click(x, y):
    """Not of an empty slot, which is not finite or has both coordinates negative."""
    return (tl.abs(x) < float("inf")) & (tl.abs(y) < float("inf")) & ((x >= 0) | (y >= 0))


@triton.jit
def squared_gap(x, y, left, right, top, bottom):
    """Squared distance from a click to the nearest pixel of the tile."""
    dx, dy = tl.maximum(tl.maximum(left - x, x - right), 0.0), tl.maximum(tl.maximum(top - y, y - bottom), 0.0)
    return dy * dy + dx * dx


@triton.jit
def encoded(square, scale, clip, divisor, E: tl.constexpr):
    """The map's value at a squared distance, as csrc/guidance/click.simd.cpp has it."""
    if E == 0:
        return tl.where(square <= scale, 1.0, 0.0)
    if E == 1:
        return tl.div_rn(tl.minimum(tl.sqrt_rn(square), clip), divisor)
    if E == 2:
        u = tl.sqrt_rn(square) * scale
        return 1.0 - 2.0 / (tl.exp(tl.minimum(u + u, 88.0)) + 1.0)
    t = square * scale
    return tl.where(t <= 87.0, tl.exp(-tl.minimum(t, 87.0)), 0.0)


@jit(do_not_specialize=["label0", "label1", "label2", "label3"])
def click_map_kernel(
    points, labels, out, ranges, count, height, width, pixels, tiles_x, tiles, label_stride, image_stride,
    label0, label1, label2, label3, scale0, scale1, scale2, scale3, reach, clip, divisor, missing,
    CHANNELS: tl.constexpr, SCALES: tl.constexpr, E: tl.constexpr, STRETCH: tl.constexpr,
    BN: tl.constexpr, BY: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """A tile of all maps of one channel. A click whose nearest pixel of the tile is farther than some other click's
    farthest, or than ``reach``, changes nothing there. Grid (tiles x channels x images)."""
    tile, group = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    b, channel = (group // CHANNELS).to(tl.int64), group % CHANNELS
    wanted = tl.where(channel < 2, tl.where(channel == 0, label0, label1), tl.where(channel == 2, label2, label3))
    first_y, first_x = tile // tiles_x * BY, tile % tiles_x * BX
    y, x = first_y + tl.arange(0, BY), first_x + tl.arange(0, BX)
    top, left = first_y.to(tl.float32), first_x.to(tl.float32)
    bottom = tl.minimum(first_y + BY, height).to(tl.float32) - 1
    right = tl.minimum(first_x + BX, width).to(tl.float32) - 1
    points, labels = points + b * count * 2, labels + b * label_stride

    start, nearest, clicks = float("inf"), float("inf"), 0
    for begin in range(0, count, BN):
        n = begin + tl.arange(0, BN)
        mine = (n < count) & (tl.load(labels + n, mask=n < count, other=0) == wanted)
        px, py = tl.load(points + 2 * n, mask=mine, other=0.0), tl.load(points + 2 * n + 1, mask=mine, other=0.0)
        there = mine & is_click(px, py)
        far_x, far_y = tl.maximum(px - left, right - px), tl.maximum(py - top, bottom - py)
        nearest = tl.minimum(nearest, tl.min(tl.where(there, far_y * far_y + far_x * far_x, float("inf"))))
        start = tl.minimum(start, tl.min(tl.where(mine & (there == 0), missing, float("inf"))))
        clicks += tl.sum(there.to(tl.int32))
    bound = tl.minimum(tl.minimum(nearest, start), reach)

    best = tl.zeros((BY, BX), tl.float32) + start
    row, column = y.to(tl.float32), x.to(tl.float32)
    for n in range(count):
        px, py = tl.load(points + 2 * n), tl.load(points + 2 * n + 1)
        near = squared_gap(px, py, left, right, top, bottom)
        if (tl.load(labels + n) == wanted) & is_click(px, py) & (near <= bound):
            dy, dx = row - py, column - px
            best = tl.minimum(best, (dy * dy)[:, None] + (dx * dx)[None, :])

    inside = (y < height)[:, None] & (x < width)[None, :]
    place = y[:, None].to(tl.int64) * width + x[None, :]
    for k in tl.static_range(SCALES):
        scale = scale0 if k == 0 else scale1 if k == 1 else scale2 if k == 2 else scale3
        value = encoded(best, scale, clip, divisor, E)
        tl.store(out + b * image_stride + (channel * SCALES + k).to(tl.int64) * pixels + place, value, mask=inside)
        if STRETCH:  # a map without a click: least inf, largest -inf
            known = inside & (clicks > 0)
            at = ranges + 2 * ((group.to(tl.int64) * SCALES + k) * tiles + tile)
            tl.store(at, tl.min(tl.where(known, value, float("inf"))))
            tl.store(at + 1, tl.max(tl.where(known, value, -float("inf"))))


@jit
def stretch_kernel(out, ranges, tiles, pixels, blocks, maps, image_stride, EMPTY: tl.constexpr, BN: tl.constexpr,
                   BLOCK: tl.constexpr):  # fmt: skip
    """BLOCK pixels of one map from its least and largest value to [0, 1]. Grid (blocks x maps x images)."""
    block, m = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    least, largest = tl.full((BN,), float("inf"), tl.float32), tl.full((BN,), -float("inf"), tl.float32)
    for begin in range(0, tiles, BN):
        n = begin + tl.arange(0, BN)
        at = ranges + 2 * (m * tiles + n)
        least = tl.minimum(least, tl.load(at, mask=n < tiles, other=float("inf")))
        largest = tl.maximum(largest, tl.load(at + 1, mask=n < tiles, other=-float("inf")))
    low, high = tl.min(least), tl.max(largest)
    p = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    at = out + m // maps * image_stride + m % maps * pixels + p
    value = tl.load(at, mask=p < pixels, other=0.0) - low
    value = tl.div_rn(value, tl.maximum(high - low, 1e-8))
    tl.store(at, tl.where(low <= high, value, EMPTY), mask=p < pixels)


@jit
def box_map_kernel(
    corners, out, count, height, width, tiles_x, tiles, image_stride, offset, low, high,
    DISTANCE: tl.constexpr, BY: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """A tile of the least signed distance to the boxes of image b, or of their union. Grid (tiles x images)."""
    tile, b = tl.program_id(0) % tiles, (tl.program_id(0) // tiles).to(tl.int64)
    y, x = tile // tiles_x * BY + tl.arange(0, BY), tile % tiles_x * BX + tl.arange(0, BX)
    row, column = y.to(tl.float32), x.to(tl.float32)
    best = tl.full((BY, BX), float("inf"), tl.float32)
    for n in range(count):
        box = corners + (b * count + n) * 4
        x0, y0, x1, y1 = tl.load(box), tl.load(box + 1), tl.load(box + 2), tl.load(box + 3)
        if (x0 == x0) & (y0 == y0) & (x1 == x1) & (y1 == y1):
            across = tl.maximum(tl.minimum(x0, x1) - column, column - tl.maximum(x0, x1))[None, :]
            down = tl.maximum(tl.minimum(y0, y1) - row, row - tl.maximum(y0, y1))[:, None]
            dx, dy = tl.maximum(across, 0.0), tl.maximum(down, 0.0)
            distance = tl.sqrt_rn(dx * dx + dy * dy) + tl.minimum(tl.maximum(across, down), 0.0)
            best = tl.minimum(best, distance)
    value = tl.minimum(tl.maximum(offset + best, low), high) if DISTANCE else tl.where(best <= 0.0, 1.0, 0.0)
    inside = (y < height)[:, None] & (x < width)[None, :]
    tl.store(out + b * image_stride + y[:, None].to(tl.int64) * width + x[None, :], value, mask=inside)


def reach(code: int, scales: Sequence[float], clip: float) -> float:
    """The squared distance beyond which no map changes any more, in float32: tanh(9.1) is 1, e^-87 as good as 0."""
    if code == EUCLIDEAN:
        return clip * clip * 1.0001
    far = {DISK: lambda s: s, TANH: lambda s: (9.1 / s) ** 2, GAUSSIAN: lambda s: 87 / s}[code]
    return max(map(far, scales)) * 1.0001  # rounding to float32 must not take a click away


def tiling(height: int, width: int) -> tuple[int, int]:
    """Tiles in a row, and in all."""
    across = triton.cdiv(width, TILE["BX"])
    return across, across * triton.cdiv(height, TILE["BY"])


def click_map(
    points: torch.Tensor, labels: torch.Tensor, channels: Sequence[int], size: Sequence[int], code: int,
    scales: Sequence[float], clip: float = math.inf, divisor: float = 1.0, stretch: bool = False,
    missing: float = math.inf, out: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """(B, channels x scales, H, W), or ``out`` of this shape, whose images are contiguous, from clicks (B, N, 2) and
    their labels (B, N), integers. The options: csrc/guidance/click.h."""
    if out is None:
        shape = (points.shape[0], len(channels) * len(scales), *size)
        out = points.new_empty(shape, dtype=torch.float32)
    if out.numel() == 0:
        return out
    points, labels = check_clicks(points, labels, points.shape[0]), rows(labels)
    together = 1 if len(scales) > AT_ONCE else AT_ONCE  # channels: the maps of one lie side by side
    for c in range(0, len(channels), together):
        some = channels[c : c + together]
        for s in range(0, len(scales), AT_ONCE):
            sizes, first = scales[s : s + AT_ONCE], c * len(scales) + s
            part = out[:, first : first + len(some) * len(sizes)]
            _some_maps(points, labels, some, part, code, sizes, clip, divisor, stretch, missing)
    return out


def check_clicks(points: torch.Tensor, labels: torch.Tensor, batch: int) -> torch.Tensor:
    """Clicks as kernels read them, float32 and contiguous; what a graph gives may have any sizes."""
    if points.dim() != 3 or points.shape[0] != batch or points.shape[2] != 2 or labels.shape != points.shape[:2]:
        shapes = f"{tuple(points.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"points must have shape ({batch}, N, 2) and labels ({batch}, N), got {shapes}")
    return points.float().contiguous()


def rows(labels: torch.Tensor) -> torch.Tensor:
    """Labels whose last axis is contiguous: a kernel takes one row for all images."""
    return labels if labels.stride(1) == 1 or labels.shape[1] <= 1 else labels.contiguous()


def _some_maps(
    points: torch.Tensor, labels: torch.Tensor, channels: Sequence[int], out: torch.Tensor, code: int,
    scales: Sequence[float], clip: float, divisor: float, stretch: bool, missing: float,
) -> None:  # fmt: skip
    (batch, maps, height, width), count = out.shape, points.shape[1]
    across, tiles = tiling(height, width)
    ranges = out.new_empty(batch * maps * tiles * 2) if stretch else out
    wanted = (*channels, 0, 0, 0)[:AT_ONCE]
    sizes = (*map(float, scales), 0.0, 0.0, 0.0)[:AT_ONCE]
    click_map_kernel[(tiles * len(channels) * batch,)](
        points, labels, out, ranges, count, height, width, height * width, across, tiles,
        labels.stride(0) if batch > 1 else 0, out.stride(0) if batch > 1 else 0,
        *wanted, *sizes, reach(code, scales, clip), clip, divisor, missing,
        CHANNELS=len(channels), SCALES=len(scales), E=code, STRETCH=stretch, BN=32, **TILE,
    )  # fmt: skip
    if stretch:
        pixels, block = height * width, 1024
        blocks = triton.cdiv(pixels, block)
        stretch_kernel[(blocks * maps * batch,)](
            out, ranges, tiles, pixels, blocks, maps, out.stride(0) if batch > 1 else 0,
            EMPTY=0.0 if code == GAUSSIAN else 1.0, BN=128, BLOCK=block, num_warps=4,
        )  # fmt: skip


def box_map(
    corners: torch.Tensor, size: Sequence[int], distance: bool, offset: float, low: float, high: float,
    out: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """(B, 1, H, W), or ``out`` of this shape, whose images are contiguous, from boxes (B, N, 4)."""
    if out is None:
        out = corners.new_empty((corners.shape[0], 1, *size), dtype=torch.float32)
    if out.numel() == 0:
        return out
    if corners.dim() != 3 or corners.shape[2] != 4:
        raise ValueError(f"corners must have shape (B, N, 4), got {tuple(corners.shape)}")
    corners = corners.float().contiguous()
    (batch, _, height, width), count = out.shape, corners.shape[1]
    across, tiles = tiling(height, width)
    box_map_kernel[(tiles * batch,)](
        corners, out, count, height, width, across, tiles, out.stride(0) if batch > 1 else 0, offset, low, high,
        DISTANCE=distance, **TILE,
    )  # fmt: skip
    return out
