"""Scores of tokens by their place: patch centres against clicks, boxes and a mask. NumPy and torch by one code."""

import numbers
import sys
from typing import Any

import numpy as np

from fastprompt._runtime import is_tensor


def library(x: Any) -> Any:
    return sys.modules["torch"] if is_tensor(x) else np


class Grid:
    """Tokens in rows: ``size`` (height, width) of them, ``patch`` (height, width) pixels each."""

    def __init__(self, grid: Any, patch: Any, tokens: int) -> None:
        pair: tuple[Any, ...] = tuple(grid) if isinstance(grid, (tuple, list)) else ()
        if len(pair) != 2 or not all(isinstance(n, numbers.Integral) and int(n) > 0 for n in pair):
            raise ValueError(f"grid must be two positive integers (height, width), got {grid!r}")
        if pair[0] * pair[1] != tokens:
            raise ValueError(f"grid must hold the {tokens} tokens, got {pair[0]} x {pair[1]}")
        both = (patch, patch) if isinstance(patch, numbers.Real) else patch
        sizes: tuple[Any, ...] = tuple(both) if isinstance(both, (tuple, list)) else ()
        if len(sizes) != 2 or not all(isinstance(n, numbers.Real) and 0 < float(n) < float("inf") for n in sizes):
            raise ValueError(f"patch must be one or two positive numbers (height, width), got {patch!r}")
        self.size, self.patch = (int(pair[0]), int(pair[1])), sizes

    def centres(self, like: Any) -> tuple[Any, Any]:
        """x and y of every token's centre in pixels, (N) each."""
        (height, width), (high, wide) = self.size, self.patch
        lib, options = library(like), {"dtype": like.dtype} | ({"device": like.device} if is_tensor(like) else {})
        x, y = ((lib.arange(n, **options) + 0.5) * size for n, size in ((width, wide), (height, high)))
        shape = (height, width)
        return lib.broadcast_to(x, shape).reshape(-1), lib.broadcast_to(y[:, None], shape).reshape(-1)

    def clicks(self, points: Any) -> Any:
        """(B, N): minus the distance to the nearest of (B, P, 2) points (x, y)."""
        lib, missing = library(points), library(points).isnan(points).any(-1)
        points = lib.where(missing[..., None], 0, points)
        x, y = self.centres(points)
        return nearest(length(points[..., :1] - x, points[..., 1:] - y), missing)

    def boxes(self, boxes: Any) -> Any:
        """(B, N): minus the distance to the nearest of (B, P, 4) boxes (x0, y0, x1, y1), 0 inside."""
        lib, missing = library(boxes), library(boxes).isnan(boxes).any(-1)
        boxes = lib.where(missing[..., None], 0, boxes)
        x, y = self.centres(boxes)
        x0, y0, x1, y1 = (boxes[..., k : k + 1] for k in range(4))
        across, down = (lib.maximum(low - c, c - high).clip(0) for low, c, high in ((x0, x, x1), (y0, y, y1)))
        return nearest(length(across, down), missing)

    def mask(self, mask: Any) -> Any:
        """(B, N) of a mask (B, h, w), or the mean in every patch of (B, H, W) pixels."""
        (height, width), (high, wide) = self.size, self.patch
        if tuple(mask.shape[1:]) == self.size:
            return mask.reshape(len(mask), height * width)
        if tuple(mask.shape[1:]) != (height * high, width * wide) or high != int(high) or wide != int(wide):
            pixels = f"{height * high:g} x {width * wide:g}"
            raise ValueError(
                f"mask must have {height} x {width} tokens or {pixels} pixels, got shape {tuple(mask.shape)}"
            )
        patches = mask.reshape(len(mask), height, int(high), width, int(wide))
        return patches.mean((2, 4)).reshape(len(mask), height * width)


def length(x: Any, y: Any) -> Any:
    """Of (x, y); with the gradient 0 at 0, where that of a root is infinite."""
    if is_tensor(x):
        import torch

        return torch.linalg.vector_norm(torch.stack([x, y], -1), dim=-1)
    return np.sqrt(x * x + y * y)


def nearest(distance: Any, missing: Any) -> Any:
    """(B, P, N), (B, P) to (B, N): minus the smallest of those that are there, 0 where none is."""
    lib = library(distance)
    if distance.shape[1] == 0:  # which has no smallest
        return distance.sum(1)
    least = lib.amin(lib.where(missing[..., None], float("inf"), distance), 1)
    return -lib.where(missing.all(1)[:, None], 0, least)
