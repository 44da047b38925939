"""COCO's run-length encoding of masks."""

from typing import Any

import numpy as np

from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array

__all__ = ["mask_to_rle", "rle_to_mask"]


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
    if mask.ndim > 2:
        return [mask_to_rle(one) for one in mask]
    plain = np.asarray(mask.detach().cpu() if is_tensor(mask) else mask) != 0
    column = plain.T.reshape(-1)
    ends = np.flatnonzero(column[1:] != column[:-1]) + 1
    counts = np.diff(ends, prepend=0, append=column.size).tolist() if column.size else []
    return {"size": list(plain.shape), "counts": [0, *counts] if column.size and column[0] else counts}


def rle_to_mask(rle: Any) -> Any:
    """The bool mask (H, W) of one encoding of :func:`mask_to_rle`.

    Raises:
        ValueError: counts that do not add up to the size.

    Example:
        >>> import fastprompt as fp
        >>> fp.rle_to_mask({"size": [2, 2], "counts": [2, 2]})
        array([[False,  True],
               [False,  True]])
    """
    height, width = rle["size"]
    counts = np.asarray(rle["counts"], np.int64)
    if (counts < 0).any() or counts.sum() != height * width:
        raise ValueError(f"counts must be positive and add up to {height} x {width}, got a sum of {counts.sum()}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T
