"""Means of a feature map over masks on a GPU: the mask is splatted onto the features' grid, then one weighted sum.

weights_kernel   what every pixel of the features weighs, one program per 16 pixels of a line, mask and image
mean_kernel      the sums and their areas, all pixels in one program for some channels: no partial sums, no third launch

Enlarging the features to the mask and summing is summing with weights ``Ay^T m Ax``, so nothing is enlarged. Positions
are ratios of integers: no rounding decides which line of the mask a line of the features sees.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from fastprompt.kernels.jit import jit

FEATURES, MASK, AVERAGE = 0, 1, 2  # what is resized, in the order of fastprompt.ops.pooling.RESIZES
LIMIT = 1 << 31  # offsets and positions are 32-bit integers

# Channels of a program of mean_kernel. Two give 128 programs for 256 channels, which fills a large GPU; sm_75 and sm_87
# (Jetson: 16 multiprocessors) are filled by half as many, and then the weights are read half as often.
CHANNELS = {75: 4, 87: 4}


class Axis(NamedTuple):
    """A line x of what is resized lies at (x step + shift) / unit of the other, within 0 ... limit / unit."""

    step: int
    shift: int
    unit: int
    limit: int
    taps: int  # lines of the mask that a line of the features sees, at most


def axis_of(features: int, mask: int, resize: int, align_corners: bool) -> Axis:
    if resize == AVERAGE:
        return Axis(mask // features, 0, mask // features, 0, mask // features)
    inner, outer = (features, mask) if resize == FEATURES else (mask, features)
    if align_corners:  # a step of 0 would divide by 0; the limit holds place 0 as well
        step, shift, unit = max(inner - 1, 1), 0, max(outer - 1, 1)
    else:
        step, shift, unit = 2 * inner, inner - outer, 2 * outer
    taps = min(mask, -(-2 * unit // step)) if resize == FEATURES else min(mask, 2)
    return Axis(step, shift, unit, (inner - 1) * unit, mask if features == 1 and resize == FEATURES else taps)


@triton.jit
def first_tap(line, step, shift, unit, limit, RESIZE: tl.constexpr):
    """The first line of the mask that ``line`` of the features sees."""
    if RESIZE == 0:
        reach = (line - 1) * unit - shift
        return tl.where(reach < 0, 0, reach // step + 1)
    elif RESIZE == 1:
        return tl.minimum(tl.maximum(line * step + shift, 0), limit) // unit
    else:
        return line * step


@triton.jit
def tap_weight(line, tap, step, shift, unit, limit, RESIZE: tl.constexpr):
    """What line ``tap`` of the mask gives to ``line`` of the features."""
    if RESIZE == 2:
        return tl.where((tap >= line * step) & (tap < (line + 1) * step), 1.0 / unit.to(tl.float32), 0.0)
    else:
        moved, fixed = (tap, line) if RESIZE == 0 else (line, tap)
        place = tl.minimum(tl.maximum(moved * step + shift, 0), limit)
        near = unit - tl.abs(place - fixed * unit)
        return tl.maximum(near, 0).to(tl.float32) / unit.to(tl.float32)


PLACES = [f"{name}_{axis}" for axis in "yx" for name in Axis._fields]  # not worth a compilation each


@jit(do_not_specialize=["masks", *PLACES])
def weights_kernel(
    mask, weights, masks, height, width, mask_height, mask_width, step_y, shift_y, unit_y, limit_y, taps_y,
    step_x, shift_x, unit_x, limit_x, taps_x, threshold,
    RESIZE: tl.constexpr, BACKGROUND: tl.constexpr, HARD: tl.constexpr,
    BT: tl.constexpr, BX: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Weights of BW pixels of one line of the features. Grid (lines x tiles of columns, masks, images)."""
    tiles = tl.cdiv(width, BW)
    line, left = tl.program_id(0) // tiles, tl.program_id(0) % tiles * BW
    which, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    column = left + tl.arange(0, BW)
    mask += (image * masks + which) * mask_height * mask_width
    top = first_tap(line, step_y, shift_y, unit_y, limit_y, RESIZE)
    begin = first_tap(left, step_x, shift_x, unit_x, limit_x, RESIZE) // 16 * 16  # whole vectors
    right = tl.minimum(left + BW, width) - 1
    end = tl.minimum(first_tap(right, step_x, shift_x, unit_x, limit_x, RESIZE) + taps_x, mask_width)
    inner, outer = tl.zeros((BW,), tl.float32), tl.zeros((BW,), tl.float32)
    for start in range(begin, end, BX):
        x = start + tl.arange(0, BX)
        across = tap_weight(column[None, :], x[:, None], step_x, shift_x, unit_x, limit_x, RESIZE)
        across = tl.where((x < mask_width)[:, None], across, 0.0)
        inside, outside = tl.zeros((BX,), tl.float32), tl.zeros((BX,), tl.float32)
        for tap in range(0, taps_y, BT):
            y = top + tap + tl.arange(0, BT)
            there = (y < mask_height)[:, None] & (x < mask_width)[None, :]
            value = tl.load(mask + y[:, None] * mask_width + x[None, :], mask=there, other=0).to(tl.float32)
            down = tap_weight(line, y, step_y, shift_y, unit_y, limit_y, RESIZE)[:, None]
            inside += tl.sum(down * value, 0)
            if BACKGROUND:  # of 1 - mask, not of 1 less of the mask: exactly 0 where the mask is 1
                outside += tl.sum(tl.where(there, down * (1 - value), 0.0), 0)
        inner += tl.sum(inside[:, None] * across, 0)
        if BACKGROUND:
            outer += tl.sum(outside[:, None] * across, 0)
    rows = 2 * masks if BACKGROUND else masks
    at = weights + ((image * rows + which) * height + line) * width + column
    if HARD:
        inner = (inner > threshold).to(tl.float32)
        outer = (outer > threshold).to(tl.float32)
    tl.store(at, inner, mask=column < width)
    if BACKGROUND:
        tl.store(at + masks * height * width, outer, mask=column < width)


@jit
def mean_kernel(
    features, weights, out, rows, channels, pixels, eps, empty, BR: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr
):
    """Means of BC channels for BR rows of weights. Grid (tiles of channels, tiles of rows, images)."""
    image = tl.program_id(2).to(tl.int64)
    c, r = tl.program_id(0) * BC + tl.arange(0, BC), tl.program_id(1) * BR + tl.arange(0, BR)
    feature = features + (image * channels + c[None, :, None]) * pixels
    weight = weights + (image * rows + r[:, None, None]) * pixels
    total, area = tl.zeros((BR, BC, BN), tl.float32), tl.zeros((BR, 1, BN), tl.float32)
    for start in range(0, pixels, BN):
        n = (start + tl.arange(0, BN))[None, None, :]
        w = tl.load(weight + n, mask=(r < rows)[:, None, None] & (n < pixels), other=0.0)
        x = tl.load(feature + n, mask=(c < channels)[None, :, None] & (n < pixels), other=0.0).to(tl.float32)
        total += tl.where(w != 0, w * x, 0.0)  # without a weight, a NaN counts for nothing
        area += w
    sums, areas = tl.sum(total, 2), tl.sum(area, 2)
    mean = tl.where(areas == 0, empty, sums / tl.where(areas == 0, 1.0, areas + eps))
    at = out + (image * rows + r[:, None]) * channels + c[None, :]
    tl.store(at, mean, mask=(r < rows)[:, None] & (c < channels)[None, :])


def architecture(x: torch.Tensor) -> int:
    """80 for sm_80; 0 for the tensors that tests execute PTX on."""
    if not x.is_cuda:
        return 0
    major, minor = torch.cuda.get_device_capability(x.device)
    return 10 * major + minor


def fits(features: torch.Tensor, mask: torch.Tensor) -> bool:
    """Whether 32 bits hold every offset within an image and every position."""
    (height, width), (rows, columns) = features.shape[2:], mask.shape[2:]
    lines = max(2 * (height + 1) * (rows + 1), 2 * (width + 1) * (columns + 1))
    return max(lines, rows * columns, height * width) < LIMIT and max(mask.shape[:2]) < 65536


def masked_pool(
    features: torch.Tensor, mask: torch.Tensor, resize: int, align_corners: bool, background: bool,
    threshold: float | None, eps: float, empty: float,
) -> torch.Tensor:  # fmt: skip
    """(B, M, C) float32, or (B, 2 M, C) with the background, of features (B, C, h, w) and masks (B, M, H, W), uint8 or
    floating-point numbers; contiguous, and ``fits``."""
    batch, channels, height, width = features.shape
    masks, mask_height, mask_width = mask.shape[1:]
    rows = 2 * masks if background else masks
    weights = torch.empty(batch, rows, height * width, dtype=torch.float32, device=mask.device)
    out = torch.empty(batch, rows, channels, dtype=torch.float32, device=features.device)
    if out.numel() == 0:
        return out
    y = axis_of(height, mask_height, resize, align_corners)
    x = axis_of(width, mask_width, resize, align_corners)
    # All taps of a line in one load where they fit: 16 values a thread. Twice as many spill on sm_100 and sm_120.
    taps = min(64, max(2, triton.next_power_of_2(y.taps)))
    weights_kernel[(height * triton.cdiv(width, 16), masks, batch)](
        mask, weights, masks, height, width, mask_height, mask_width, *y, *x, threshold or 0.0,
        RESIZE=resize, BACKGROUND=background, HARD=threshold is not None, BT=taps, BX=64, BW=16,
        num_warps=8 if taps > 32 else 4,
    )  # fmt: skip
    own, some = min(8, triton.next_power_of_2(rows)), CHANNELS.get(architecture(features), 2)
    mean_kernel[(triton.cdiv(channels, some), triton.cdiv(rows, own), batch)](
        features, weights, out, rows, channels, height * width, eps, empty,
        BR=own, BC=some, BN=min(1024, 4096 // (own * some)), num_warps=4,
    )  # fmt: skip
    return out
