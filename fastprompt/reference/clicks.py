"""The click simulator in plain NumPy, as the rule reads: from each error to every other pixel. Small images only."""

from typing import Any

import numpy as np


def next_click(pred: Any, target: Any, clicked: Any, threshold: float, ignore: int) -> Any:
    """(B, 4) int64, x, y, 1 for a missed and 0 for a false pixel, squared distance, of masks (B, H, W)."""
    inside = pred > np.float32(threshold) if pred.dtype.kind == "f" else pred != 0
    counts = target != ignore
    out = np.zeros((len(pred), 4), np.int64)
    for b, chosen in enumerate(clicked if pred.size else ()):
        wanted, got = target[b] != 0, inside[b]
        squares = [free(depth(error & counts[b]), chosen) for error in (wanted & ~got, got & ~wanted)]
        missed = squares[0].max() > squares[1].max()  # a tie is a false pixel
        best = squares[0 if missed else 1]
        y, x = np.unravel_index(best.argmax(), best.shape)  # the first in the order of the rows
        out[b] = x, y, missed, best[y, x]
    return out


def depth(error: Any) -> Any:
    """Squared distance of every pixel to the nearest that is no error; those around the image are none."""
    padded = np.pad(error, 1)
    pixels, others = np.argwhere(padded), np.argwhere(~padded)
    squares = np.zeros(padded.shape, np.int64)
    for p in pixels:
        squares[tuple(p)] = ((others - p) ** 2).sum(1).min()
    return squares[1:-1, 1:-1]


def free(squares: Any, clicked: Any) -> Any:
    """0 at pixels that were clicked before."""
    height, width = squares.shape
    for x, y in clicked:
        if 0 <= x < width and 0 <= y < height:
            squares[y, x] = 0
    return squares
