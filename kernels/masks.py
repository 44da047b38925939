"""Masks of an image's size from low-resolution logits on a GPU: resizing, threshold, area, box and stability score.

Two launches: the masks with the counts of every tile, then the sum of these counts. The logits are never written at
full size unless they are asked for; every output pixel is the sum of the few inputs that its row and its column look at
(``ops.masks.taps``), columns first, as on the CPU. No atomics: the counts are the same in every run.
"""

import torch
import triton
import triton.language as tl
from fastprompt.kernels.jit import jit

COUNTS = 7  # over threshold, over threshold + offset, over threshold - offset, x0, y0, x1, y1
FAR = tl.constexpr(1 << 30)

Taps = tuple[torch.Tensor, torch.Tensor]  # indices and weights of an axis


@jit
def resize_kernel(
    logits, row_index, row_weight, column_index, column_weight, out, counts, height, width, rows, columns, threshold,
    offset, ROW_TAPS: tl.constexpr, COLUMN_TAPS: tl.constexpr, KIND: tl.constexpr, BY: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """BY rows of BX pixels of one mask. KIND 0: logits, 1: bytes, 2: bits. Grid (tiles x masks)."""
    across, down = tl.cdiv(columns, BX), tl.cdiv(rows, BY)
    tile = tl.program_id(0).to(tl.int64)
    mask = tile // (across * down)
    top, left = tl.program_id(0) // across % down * BY, tl.program_id(0) % across * BX
    y, x = top + tl.arange(0, BY), left + tl.arange(0, BX)
    logits += mask * height * width
    total = tl.zeros((BY, BX), tl.float32)
    for j in tl.static_range(ROW_TAPS):
        row = tl.load(row_index + j * rows + y, mask=y < rows, other=0)
        line = tl.zeros((BY, BX), tl.float32)
        for k in tl.static_range(COLUMN_TAPS):
            column = tl.load(column_index + k * columns + x, mask=x < columns, other=0)
            weight = tl.load(column_weight + k * columns + x, mask=x < columns, other=0.0)
            line += weight[None, :] * tl.load(logits + (row * width)[:, None] + column[None, :]).to(tl.float32)
        weight = tl.load(row_weight + j * rows + y, mask=y < rows, other=0.0)
        total += tl.where((weight != 0)[:, None], weight[:, None] * line, 0.0)  # not NaN for an input that is not meant
    inside = (y < rows)[:, None] & (x < columns)[None, :]
    over = inside & (total > threshold)
    if KIND == 0:
        tl.store(out + (mask * rows + y)[:, None] * columns + x[None, :], total, mask=inside)
    elif KIND == 1:
        tl.store(out + (mask * rows + y)[:, None] * columns + x[None, :], over.to(tl.uint8), mask=inside)
    else:
        bytes_ = (columns + 7) // 8
        bits = tl.reshape(over.to(tl.int32) << (x % 8)[None, :], (BY, BX // 8, 8))
        at = left // 8 + tl.arange(0, BX // 8)
        tl.store(out + (mask * rows + y)[:, None] * bytes_ + at[None, :], tl.sum(bits, 2).to(tl.uint8),
                 mask=(y < rows)[:, None] & (at < bytes_)[None, :])  # fmt: skip
    counts += tile * 7
    x, y = tl.broadcast_to(x[None, :], (BY, BX)), tl.broadcast_to(y[:, None], (BY, BX))
    tl.store(counts, tl.sum(over.to(tl.int32)))
    tl.store(counts + 1, tl.sum((inside & (total > threshold + offset)).to(tl.int32)))
    tl.store(counts + 2, tl.sum((inside & (total > threshold - offset)).to(tl.int32)))
    tl.store(counts + 3, tl.min(tl.where(over, x, FAR)))
    tl.store(counts + 4, tl.min(tl.where(over, y, FAR)))
    tl.store(counts + 5, tl.max(tl.where(over, x, 0)))
    tl.store(counts + 6, tl.max(tl.where(over, y, 0)))


@jit
def facts_kernel(counts, area, box, stability, tiles, BT: tl.constexpr):
    """What the tiles of one mask counted, in one place. Grid (masks)."""
    mask = tl.program_id(0).to(tl.int64)
    counts += mask * tiles * 7
    here, above, below = tl.zeros((BT,), tl.int64), tl.zeros((BT,), tl.int64), tl.zeros((BT,), tl.int64)
    x0, y0 = tl.full((BT,), FAR, tl.int32), tl.full((BT,), FAR, tl.int32)
    x1, y1 = tl.zeros((BT,), tl.int32), tl.zeros((BT,), tl.int32)
    for first in range(0, tiles, BT):
        t = first + tl.arange(0, BT)
        at, there = counts + t * 7, t < tiles
        here += tl.load(at, mask=there, other=0)
        above += tl.load(at + 1, mask=there, other=0)
        below += tl.load(at + 2, mask=there, other=0)
        x0 = tl.minimum(x0, tl.load(at + 3, mask=there, other=FAR))
        y0 = tl.minimum(y0, tl.load(at + 4, mask=there, other=FAR))
        x1 = tl.maximum(x1, tl.load(at + 5, mask=there, other=0))
        y1 = tl.maximum(y1, tl.load(at + 6, mask=there, other=0))
    total = tl.sum(here)
    tl.store(area + mask, total)
    tl.store(box + mask * 4, tl.where(total > 0, tl.min(x0), 0).to(tl.int64))
    tl.store(box + mask * 4 + 1, tl.where(total > 0, tl.min(y0), 0).to(tl.int64))
    tl.store(box + mask * 4 + 2, tl.max(x1).to(tl.int64))
    tl.store(box + mask * 4 + 3, tl.max(y1).to(tl.int64))
    tl.store(stability + mask, (tl.sum(above).to(tl.float64) / tl.sum(below).to(tl.float64)).to(tl.float32))


def resize_masks(
    logits: torch.Tensor, row_taps: Taps, column_taps: Taps, threshold: float, output: str, offset: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of logits (M, h, w) and the taps of either axis, (taps, size): masks, area (M), box (M, 4), stability (M), as
    ``fastprompt.resize_masks`` has them."""
    logits = logits.contiguous()
    count, height, width = logits.shape
    (row_reads, rows), (column_reads, columns) = row_taps[0].shape, column_taps[0].shape
    kind = {"float32": 0, "packed": 2}.get(output, 1)
    dtype = {"float32": torch.float32, "bool": torch.bool}.get(output, torch.uint8)
    out = logits.new_empty(count, rows, (columns + 7) // 8 if kind == 2 else columns, dtype=dtype)
    area, box = logits.new_empty(count, dtype=torch.int64), logits.new_empty(count, 4, dtype=torch.int64)
    stability = logits.new_empty(count, dtype=torch.float32)
    if count == 0:
        return out, area, box, stability
    block = 8, 128
    tiles = triton.cdiv(rows, block[0]) * triton.cdiv(columns, block[1])
    counts = logits.new_empty(count, tiles, COUNTS, dtype=torch.int32)
    resize_kernel[(tiles * count,)](
        logits, *row_taps, *column_taps, out.view(torch.uint8) if dtype == torch.bool else out, counts,
        height, width, rows, columns, threshold, offset,
        ROW_TAPS=row_reads, COLUMN_TAPS=column_reads, KIND=kind, BY=block[0], BX=block[1], num_warps=4,
    )  # fmt: skip
    facts_kernel[(count,)](counts, area, box, stability, tiles, BT=128, num_warps=4)
    return out, area, box, stability
