"""COCO's run-length encoding of masks."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array, integers

__all__ = ["mask_to_rle", "rle_to_mask"]

MOST_PIXELS = 2**31  # 2 GiB: a few bytes of a file must not ask for all memory


def mask_to_rle(mask: Any) -> Any:
    """COCO's uncompressed run-length encoding: lengths of runs down the columns, starting with background.

    Args:
        mask: ``(..., H, W)``, NumPy or torch, non-zero = mask. Leading axes become nested lists.

    Returns:
        ``{"size": [H, W], "counts": [...]}`` for every mask; a mask whose first pixel is set starts with a run of 0.

    Raises:
        ValueError, TypeError: no two axes; no numbers.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> fp.mask_to_rle(np.array([[0, 1], [0, 1]]))
        {'size': [2, 2], 'counts': [2, 2]}
    """
    mask = as_array("mask", mask)
    if mask.ndim < 2:
        raise ValueError(f"mask must be (..., H, W), got shape {tuple(mask.shape)}")
    inside = mask != 0
    return encoded(inside.cpu().numpy() if is_tensor(inside) else inside)


def encoded(plain: Any) -> Any:
    if plain.ndim > 2:
        return [encoded(one) for one in plain]
    column = plain.T.reshape(-1)
    ends = np.flatnonzero(column[1:] != column[:-1]) + 1
    counts = np.diff(ends, prepend=0, append=column.size).tolist() if column.size else []
    return {"size": list(plain.shape), "counts": [0, *counts] if column.size and column[0] else counts}


def rle_to_mask(rle: Any) -> Any:
    """The bool mask (H, W) of one encoding of :func:`mask_to_rle`.

    Raises:
        ValueError, TypeError: naming what it was and what is expected. COCO's compressed counts, a string, are for
            pycocotools.

    Example:
        >>> import fastprompt as fp
        >>> fp.rle_to_mask({"size": [2, 2], "counts": [2, 2]})
        array([[False,  True],
               [False,  True]])
    """
    if not isinstance(rle, Mapping):
        raise TypeError(f'rle must be {{"size": [H, W], "counts": [...]}}, got {type(rle).__name__}')
    if not {"size", "counts"} <= set(rle):
        raise ValueError(f"rle must have size and counts, got {sorted(map(str, rle))}")
    size, counts = (whole(name, rle[name]) for name in ("size", "counts"))
    if len(size) != 2 or (size < 0).any() or math.prod(size.tolist()) > MOST_PIXELS:
        raise ValueError(f"size must be [H, W] of at most 2**31 pixels, got {rle['size']!r}")
    height, width = size.tolist()
    if (counts < 0).any() or (counts > MOST_PIXELS).any() or sum(counts.tolist()) != height * width:
        total = sum(counts.tolist())
        raise ValueError(f"counts must be positive and add up to {height} x {width}, got a sum of {total}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T


def whole(name: str, x: Any) -> Any:
    """A row of integers."""
    if isinstance(x, (str, bytes)):
        raise TypeError(f"{name} must be a list of integers, got {type(x).__name__}")
    row = integers(name, as_array(name, x), 0)
    if row.ndim != 1:
        raise ValueError(f"{name} must be a list of integers, got {x!r}")
    return row
