"""GeodisTK 0.1.7, drop-in: ``import fastprompt.compat.geodistk as GeodisTK``.

Names and argument order are the original's, positional only; docs/compat.md lists what differs. In every function:

* ``image`` is ``(H, W)`` or ``(H, W, C)``, a volume ``(D, H, W)`` or ``(D, H, W, C)``; read as float32.
* ``seeds`` is ``(H, W)`` or ``(D, H, W)``: above 0 = seed.
* ``spacing`` holds the three pixel sizes of ``(D, H, W)``.
* The result is float32 in the shape of ``seeds``; 1e10 everywhere if there is no seed.

Raises ValueError for shapes, spacing and λ, where the original reads past the end of its arrays.
"""

from typing import Any

import numpy as np

from fastprompt.ops._arrays import as_array
from fastprompt.ops._checks import check_number
from fastprompt.ops.geodesic.distances import solve
from fastprompt.ops.geodesic.grid import MOST_ITERATIONS, check_options

__all__ = ["geodesic2d_fast_marching", "geodesic2d_raster_scan", "geodesic3d_fast_marching", "geodesic3d_raster_scan"]

UNREACHED = 1e10


def geodesic2d_fast_marching(image: Any, seeds: Any, /) -> Any:
    """Shortest paths whose steps cost length * ||dI||_2. (The original's name for it; no eikonal equation.)"""
    return distance(image, seeds, 1.0, 2, metric="geodistk_fm", method="exact")


def geodesic2d_raster_scan(image: Any, seeds: Any, lamb: float, iteration: float, /) -> Any:
    """``iteration`` scans in Toivanen's order; a step costs length / ((1 - lamb) + lamb / (||dI||_2 + 1e-5))."""
    numbers = {"lam": lamb, "iterations": scans(iteration)}
    return distance(image, seeds, 1.0, 2, metric="geodistk", method="toivanen", **numbers)


def geodesic3d_fast_marching(image: Any, seeds: Any, spacing: Any, /) -> Any:
    """:func:`geodesic2d_fast_marching` on a volume."""
    return distance(image, seeds, three(spacing), 3, metric="geodistk_fm", method="exact")


def geodesic3d_raster_scan(image: Any, seeds: Any, spacing: Any, lamb: float, iteration: float, /) -> Any:
    """:func:`geodesic2d_raster_scan` on a volume."""
    numbers = {"lam": lamb, "iterations": scans(iteration)}
    return distance(image, seeds, three(spacing), 3, metric="geodistk", method="toivanen", **numbers)


def scans(iteration: Any) -> int:
    """The original takes a float, and cuts it off."""
    return max(0, int(check_number("iteration", iteration, -(2**31), MOST_ITERATIONS)))


def three(spacing: Any) -> list[float]:
    sizes = np.asarray(spacing, np.float32)
    if sizes.shape != (3,):
        raise ValueError(f"spacing must hold 3 numbers (D, H, W), got shape {sizes.shape}")
    return [float(size) for size in sizes]


def distance(image: Any, seeds: Any, spacing: Any, dims: int, **numbers: Any) -> Any:
    image, seeds = np.asarray(as_array("image", image), np.float32), np.asarray(as_array("seeds", seeds))
    axes = "(H, W)" if dims == 2 else "(D, H, W)"
    if image.ndim not in (dims, dims + 1):
        raise ValueError(f"image must be {axes}, channels may follow, got shape {image.shape}")
    if seeds.shape != image.shape[:dims]:
        raise ValueError(f"seeds must have the image's size {image.shape[:dims]}, got shape {seeds.shape}")
    image = image[None] if image.ndim == dims else np.moveaxis(image, -1, 0)  # a view: the kernel takes any strides
    options = check_options(image, v=UNREACHED, spacing=spacing, dims=dims, **numbers)
    return solve(image[None], (seeds > 0)[None, None], None, "nonzero", options)[0, 0]
