"""VPUFormer's vectors: from prompts to the Gaussians along the axes that the kernel and the reference draw."""

from typing import Any

import numpy as np


def vector_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Of the image that the vectors are of."""
    return int(size[0] * scale), int(size[1] * scale)


def vector_fields(
    points: Any, labels: Any, extents: Any, size: Any, sigma: float, heighten: bool, scale: float, compat: bool
) -> dict[str, Any]:
    """Of the C++ struct ``PromptVectors``, for B x N prompts in NumPy."""
    for name, number in (("sigma", sigma), ("scale", scale)):
        if not 0 < number <= 1e6:
            raise ValueError(f"{name} must be positive and at most 1e6, got {number}")
    height, width = vector_size(size, scale)
    points, labels = points.reshape(-1, 2).astype(np.float32, copy=False), labels.reshape(-1)
    empty = ~np.isfinite(points).all(1) | (points < 0).all(1) | ((labels != 0) & (labels != 1))
    bit = np.where(empty, 2, 1 - labels)
    centre = np.trunc(np.where(empty[:, None], 0, points) * np.float32(scale)).astype(np.float64)
    radius = np.full(points.shape, int(3 * sigma), np.int64)
    widths, peak = np.full(points.shape, sigma), np.full(len(points), heighten, np.float32)
    if extents is not None:
        extents = extents.reshape(-1, 2)
        box = ~np.isnan(extents).any(1)
        radius[box] = np.clip(extents[box], 0, 1e9) // 2 - 1
        widths[box], peak[box] = radius[box] // 3, 0
        nothing = box & (widths <= 0).any(1)
        radius[nothing], widths[nothing] = -1, 1
    if compat:
        radius[corners_outside(centre, radius, (width, height))] = -1
    radius[empty] = -1
    given = {"centre": centre, "radius": radius, "sigma": widths, "bit": bit.astype(np.int64), "peak": peak}
    return given | {"size": (height, width)}


def corners_outside(centre: Any, radius: Any, sizes: tuple[int, int]) -> Any:
    """Both the upper left and the lower right one."""
    low, high = centre - radius, centre + radius + 1
    return ((low < 0) | (low > sizes)).any(1) & ((high < 0) | (high > sizes)).any(1)
