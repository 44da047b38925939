"""What the metrics count, in plain NumPy, as the formulas read."""

from typing import Any

import numpy as np


def overlap(pred: Any, target: Any, threshold: float, ignore: int) -> Any:
    """(N, 4) int64, intersection, prediction, target, pixels that count, of masks (N, pixels)."""
    inside = pred > np.float32(threshold) if pred.dtype.kind == "f" else pred != 0
    counts = target != ignore
    parts = (inside & (target != 0) & counts, inside & counts, (target != 0) & counts, counts)
    return np.stack([part.sum(1) for part in parts], 1).astype(np.int64)


def classes(pred: Any, target: Any, number: int, ignore: int) -> Any:
    """(number, 3) int64: pixels with label c in both, in the prediction, in the target, of label maps (pixels)."""
    valid = (target >= 0) & (target < number) & (target != ignore)
    labels = np.arange(number)[:, None]
    in_pred, in_target = (pred == labels) & valid, (target == labels) & valid
    return np.stack([(in_pred & in_target).sum(1), in_pred.sum(1), in_target.sum(1)], 1).astype(np.int64)


def pairs(first: Any, second: Any) -> Any:
    """(M, K) int64: bits in common of masks (M, words) and (K, words), uint64."""
    masks, others = (np.unpackbits(x.view(np.uint8), axis=1).astype(bool) for x in (first, second))
    found = [[int((a & b).sum()) for b in others] for a in masks]
    return np.array(found, np.int64).reshape(len(first), len(second))
