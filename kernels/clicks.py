"""The click simulator on a GPU, in two launches: where a person would click to correct a prediction.

The answer of csrc/clicks: squared distances are integers here, a tie goes to the false pixels and then to the first
pixel in the order of the rows. Programs meet in one atomic maximum of integers, so their order does not matter.
"""

import torch
import triton
import triton.language as tl
from fastprompt.kernels.jit import jit

PLACES = 30  # bits of a pixel's number
LARGEST_SIDE = 32766  # of an image; csrc/clicks/next.h


@triton.jit
def error_kind(pred, target, p, inside, threshold, ignore, FLOATS: tl.constexpr):
    """1 of a missed pixel, -1 of a false one, 0 of any other and of what is outside the image."""
    found, wanted = tl.load(pred + p, mask=inside, other=0), tl.load(target + p, mask=inside, other=0).to(tl.int32)
    if FLOATS:
        error = (wanted != 0).to(tl.int32) - (found > threshold).to(tl.int32)
    else:
        error = (wanted != 0).to(tl.int32) - (found != 0).to(tl.int32)
    return tl.where(inside & (wanted != ignore), error, 0)


@triton.jit
def larger(a, b):
    return tl.maximum(a, b)


@triton.jit
def smaller(a, b):
    return tl.minimum(a, b)


@jit
def click_columns_kernel(
    pred, target, rows, state, height, width, tiles, threshold, ignore,
    FLOATS: tl.constexpr, BY: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """rows (B, H, W) int32: rows from an error to the nearest pixel above or below that is none of its kind, negative
    of false pixels, 0 without an error. A run of errors begins, or ends, where the row before, or behind, differs:
    scans of BY rows at a time, down and up again. Grid (tiles of BX columns x images)."""
    b, x = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles * BX + tl.arange(0, BX)
    first = b * height * width
    pred, target, rows = pred + first, target + first, rows + first
    blocks, r = tl.cdiv(height, BY), tl.arange(0, BY)
    begin = tl.zeros((BX,), tl.int32)
    for block in range(blocks):
        y = block * BY + r
        p = y[:, None] * width + x[None, :]
        there = (x < width)[None, :] & (y < height)[:, None]
        kind = error_kind(pred, target, p, there, threshold, ignore, FLOATS)
        before = error_kind(pred, target, p - width, there & (y > 0)[:, None], threshold, ignore, FLOATS)
        run = tl.associative_scan(tl.where(kind != before, y[:, None], 0), 0, larger)
        run = tl.maximum(run, begin[None, :])
        begin = tl.max(run, 0)
        tl.store(rows + p, (y[:, None] - run + 1) * kind, mask=there)
    tl.debug_barrier()  # other threads may read what these wrote
    end = tl.zeros((BX,), tl.int32) + (height - 1)
    for k in range(blocks):
        y = (blocks - 1 - k) * BY + r
        p = y[:, None] * width + x[None, :]
        there = (x < width)[None, :] & (y < height)[:, None]
        kind = error_kind(pred, target, p, there, threshold, ignore, FLOATS)
        behind = error_kind(pred, target, p + width, there & (y + 1 < height)[:, None], threshold, ignore, FLOATS)
        run = tl.where((kind != behind) & there, y[:, None], height - 1)
        run = tl.minimum(tl.associative_scan(run, 0, smaller, reverse=True), end[None, :])
        end = tl.min(run, 0)
        down = run - y[:, None] + 1
        up = tl.load(rows + p, mask=there, other=0)
        tl.store(rows + p, tl.minimum(tl.abs(up), down) * kind, mask=there)
    if tl.program_id(0) % tiles == 0:  # what the programs of the next launch meet in
        tl.store(state + 2 * b, tl.zeros((), tl.int64))
        tl.store(state + 2 * b + 1, tl.zeros((), tl.int64))


@jit
def best_click_kernel(
    rows, clicked, state, out, clicks, height, width, tiles, programs, BX: tl.constexpr, STEPS: tl.constexpr,
    PLACES: tl.constexpr,
):  # fmt: skip
    """The largest distance of BX pixels of a row, by candidates farther and farther away in the row, until none can be
    nearer, or no pixel can be farther than the best that any program has found. The last program of an image writes the
    answer. Grid (tiles of a row x rows x images)."""
    tile, b = tl.program_id(0) % programs, (tl.program_id(0) // programs).to(tl.int64)
    y, x = tile // tiles, tile % tiles * BX + tl.arange(0, BX)
    row = rows + (b * height + y) * width
    own = tl.load(row + x, mask=x < width, other=0)
    taken = x < 0
    if tl.max(tl.abs(own)) > 0:
        for k in range(clicks):
            at = clicked + (b * clicks + k) * 2
            taken |= (tl.load(at) == x) & (tl.load(at + 1) == y)
    best = tl.atomic_max(state + 2 * b, tl.zeros((), tl.int64), sem="relaxed")
    least = tl.maximum((best >> (PLACES + 1)).to(tl.int32), 1)  # no pixel that is nearer matters
    edge = tl.minimum(tl.minimum(x + 1, tl.maximum(width - x, 0)), tl.abs(own))
    square = tl.where(taken, 0, edge * edge)
    step = 1
    open_ = tl.max(tl.where(square >= least, square, 0))
    while step * step < open_:
        for k in tl.static_range(STEPS):
            far = step + k
            left = tl.load(row + x - far, mask=(x >= far) & (x < width), other=0)
            right = tl.load(row + x + far, mask=x < width - far, other=0)
            left = tl.where((left ^ own) >= 0, left, 0)  # of the other kind: no error of this one
            right = tl.where((right ^ own) >= 0, right, 0)
            nearer = tl.minimum(tl.abs(left), tl.abs(right))
            square = tl.minimum(square, nearer * nearer + far * far)
        step += STEPS
        open_ = tl.max(tl.where(square >= least, square, 0))
    place = y * width + x
    false = (own < 0).to(tl.int64) << PLACES
    key = (square.to(tl.int64) << (PLACES + 1)) + false + ((1 << PLACES) - 1 - place)
    tl.atomic_max(state + 2 * b, tl.max(tl.where(square >= least, key, 0)), sem="relaxed")
    done = tl.atomic_add(state + 2 * b + 1, 1, sem="acq_rel")
    if done == programs - 1:
        answer = tl.atomic_max(state + 2 * b, tl.zeros((), tl.int64), sem="acquire")
        found = answer > 0
        chosen = tl.where(found, (1 << PLACES) - 1 - (answer & ((1 << PLACES) - 1)), 0)
        tl.store(out + 4 * b, chosen % width)
        tl.store(out + 4 * b + 1, chosen // width)
        tl.store(out + 4 * b + 2, tl.where(found, 1 - ((answer >> PLACES) & 1), 0))
        tl.store(out + 4 * b + 3, answer >> (PLACES + 1))


def check(pred: torch.Tensor, target: torch.Tensor, clicked: torch.Tensor) -> None:
    """What a graph gives may have any sizes and dtypes."""
    if target.shape != pred.shape or clicked.dim() != 3 or clicked.shape[::2] != (pred.shape[0], 2):
        shapes = f"{tuple(pred.shape)}, {tuple(target.shape)} and {tuple(clicked.shape)}"
        raise ValueError(f"pred and target must have shape (B, H, W), and clicked (B, K, 2), got {shapes}")
    if max(pred.shape[1:]) > LARGEST_SIDE:
        raise ValueError(f"pred must have at most {LARGEST_SIDE} pixels on a side, got {tuple(pred.shape)}")
    known = pred.itemsize == 1 or pred.dtype == torch.float32
    if not known or target.itemsize != 1 or clicked.dtype != torch.int32:
        dtypes = f"{pred.dtype}, {target.dtype} and {clicked.dtype}"
        raise TypeError(f"pred must hold bytes or float32, target bytes and clicked int32, got {dtypes}")


def in_bytes(mask: torch.Tensor) -> torch.Tensor:
    return mask.view(torch.uint8) if mask.dtype == torch.bool else mask


def next_click(
    pred: torch.Tensor, target: torch.Tensor, clicked: torch.Tensor, threshold: float, ignore: int
) -> torch.Tensor:
    """(B, 4) int64, x, y, 1 of a missed and 0 of a false pixel, squared distance (0: no error left), of predictions
    (B, H, W), bool, uint8 or float32, targets (B, H, W), bool or uint8, and taken pixels (B, K, 2), int32."""
    check(pred, target, clicked)
    pred, target, clicked = in_bytes(pred.contiguous()), in_bytes(target.contiguous()), clicked.contiguous()
    batch, height, width = pred.shape
    out = torch.empty((batch, 4), dtype=torch.int64, device=pred.device)
    if pred.numel() == 0:
        return out.zero_()
    rows = torch.empty((batch, height, width), dtype=torch.int32, device=pred.device)
    state = torch.empty((batch, 2), dtype=torch.int64, device=pred.device)
    across = triton.cdiv(width, 16)
    click_columns_kernel[(across * batch,)](
        pred, target, rows, state, height, width, across, float(threshold), ignore,
        FLOATS=pred.dtype == torch.float32, BY=64, BX=16, num_warps=4,
    )  # fmt: skip
    tiles = triton.cdiv(width, 128)
    best_click_kernel[(tiles * height * batch,)](
        rows, clicked, state, out, clicked.shape[1], height, width, tiles, tiles * height,
        BX=128, STEPS=4, PLACES=PLACES, num_warps=1,
    )  # fmt: skip
    return out
