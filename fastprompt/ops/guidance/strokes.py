"""Scribbles and polygons as pixels."""

import sys
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from fastprompt._choices import choice
from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array, integers
from fastprompt.ops._checks import check_devices
from fastprompt.ops.geodesic.euclidean import euclidean_distance_transform
from fastprompt.ops.guidance import operators
from fastprompt.ops.guidance.call import check_finite
from fastprompt.ops.guidance.click_sets import (
    BOTH,
    NO_LABEL,
    axes,
    check_channels,
    check_positive,
    check_size,
    double,
    whole,
)

__all__ = ["polygon_mask", "scribble_map"]

Rule = Literal["even_odd", "non_zero"]
RING = 2.0  # pixels that MIDeepSeg spreads a seed by


def scribble_map(
    strokes: Sequence[Any],  # S arrays (N_s, 2)
    labels: Any = None,  # (S)
    *,
    size: tuple[int, int],
    thickness: float = 1.0,
    channels: Any = None,
    compat: Literal["mideepseg"] | None = None,
) -> Any:
    """1 on the strokes of a pen, 0 elsewhere, in a channel for each label.

    A pixel belongs to a stroke where its centre is within ``thickness`` / 2 of the polyline: a thickness of 1 draws
    lines whose pixels touch at sides or corners, 5 draws points as disks of 21 pixels. Where strokes of two labels
    cross, the later one has the pixel.

    Args:
        strokes: points (x, y) in pixels, stroke by stroke; one point is a dot. Parts outside the image are not drawn.
        labels: an integer for each stroke, in any real dtype. None: one channel for all.
        size: (height, width) of the map.
        thickness: of the pen in pixels.
        channels: which label each channel shows, default ``(1, 0)``: positive, negative. Other strokes are not drawn.
        compat: "mideepseg" spreads the strokes by two pixels as ``extends_points`` there does, which leaves out the
            strokes themselves: a ring. ``thickness=5`` is the dilation without that hole.

    Returns:
        ``(channels, H, W)`` float32; torch in, torch out (of the strokes). Not differentiable.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import fastprompt as fp
        >>> fp.scribble_map([[(0, 0), (3, 2)], [(4, 0)]], [1, 0], size=(3, 5)).astype(int)
        array([[[1, 0, 0, 0, 0],
                [0, 1, 1, 0, 0],
                [0, 0, 0, 1, 0]],
        <BLANKLINE>
               [[0, 0, 0, 0, 1],
                [0, 0, 0, 0, 0],
                [0, 0, 0, 0, 0]]])
    """
    size = check_size(size)
    radius = check_positive("thickness", thickness)[0] / 2
    choice("compat", compat, ("mideepseg", None))
    points, first, labels, channels = check_strokes(strokes, labels, channels)
    out = operators.scribble_map(points, first, labels, list(channels), size, radius)
    if compat is None:
        return out
    distance = euclidean_distance_transform(out)
    ring = (distance > 0) & (distance <= RING)
    return ring.float() if is_tensor(ring) else ring.astype(np.float32)


def polygon_mask(
    vertices: Any,  # ([B,] N, 2), or a list of rings (N_r, 2)
    *,
    size: tuple[int, int],
    rule: Rule = "even_odd",
    boundary: bool = False,
) -> Any:
    """The pixels of a polygon.

    A pixel is inside where its centre is; on an edge it belongs to the polygon right of a left edge and below an upper
    one. So polygons that share edges share no pixel and leave none out, and the square from 2 to 10 has 8 x 8 pixels.

    Args:
        vertices: (x, y) in pixels, in order; the last one is joined to the first. A list of arrays is one polygon of
            several rings, whose inner ones are holes. Fewer than three vertices, or no area: no pixel.
        size: (height, width) of the mask. Parts outside it are cut off.
        rule: "even_odd": inside where a ray crosses an odd number of edges; "non_zero": where the polygon winds around.
        boundary: True draws as ``cv2.fillPoly``: vertices are rounded to whole pixels, and the outline belongs to the
            polygon (the square from 2 to 10 has 9 x 9 pixels; two vertices are a line). The same pixels as OpenCV with
            "even_odd" and all vertices in the image; OpenCV shifts edges that leave it.

    Returns:
        bool ``([B,] H, W)``; torch in, torch out. Not differentiable.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import fastprompt as fp
        >>> fp.polygon_mask([(0, 0), (4, 0), (0, 4)], size=(4, 5)).astype(int)
        array([[1, 1, 1, 1, 0],
               [1, 1, 1, 0, 0],
               [1, 1, 0, 0, 0],
               [1, 0, 0, 0, 0]])
    """
    size = check_size(size)
    choice("rule", rule, get_args(Rule))
    points, first = check_rings(vertices)
    batched, options = points.ndim == 3, (rule == "non_zero", bool(boundary))
    points = points if batched else points[None]
    out = operators.polygon_mask(points, first, size, *options)
    return out if batched else out[0]


def check_rings(vertices: Any) -> tuple[Any, list[int]]:
    """([B,] V, 2) float64, contiguous, and where each ring begins and the last one ends."""
    if isinstance(vertices, (list, tuple)) and any(axes(v) == 2 for v in vertices):
        return joined("vertices", vertices)
    points = as_array("vertices", vertices)
    check_devices(vertices=points)
    if not is_tensor(points) and points.size == 0 and points.ndim < 3:
        points = points.reshape(0, 2)
    if points.ndim not in (2, 3) or points.shape[-1] != 2:
        raise ValueError(f"vertices must be ([B,] N, 2) of x, y, got shape {tuple(points.shape)}")
    return check_coordinates("vertices", points), [0, int(points.shape[-2])]


def check_strokes(strokes: Any, labels: Any, channels: Any) -> tuple[Any, list[int], Any, tuple[int, ...]]:
    if not isinstance(strokes, (list, tuple)):
        raise TypeError(f"strokes must be a list of arrays (N, 2), got {type(strokes).__name__}")
    points, first = joined("strokes", strokes)
    count = len(strokes)
    if labels is None:
        if channels is not None:
            raise ValueError("channels needs labels: without labels all strokes go to one channel")
        return points, first, points.new_zeros(count).long() if is_tensor(points) else np.zeros(count, np.int64), (0,)
    if is_tensor(points) and isinstance(labels, (list, tuple)):
        labels = sys.modules["torch"].as_tensor(labels, device=points.device)
    labels = as_array("labels", labels)
    if tuple(labels.shape) != (count,):
        raise ValueError(f"labels must have one label a stroke, shape {(count,)}, got {tuple(labels.shape)}")
    labels = whole(integers("labels", labels, NO_LABEL))
    if is_tensor(points) and not is_tensor(labels):
        labels = sys.modules["torch"].from_numpy(labels)
    return points, first, labels, check_channels(BOTH if channels is None else channels)


def joined(name: str, parts: Sequence[Any]) -> tuple[Any, list[int]]:
    """Arrays (N_k, 2) behind each other, and where each begins and the last one ends."""
    arrays = [as_array(f"{name}[{k}]", p) for k, p in enumerate(parts)]
    arrays = [p.reshape(0, 2) if not is_tensor(p) and p.size == 0 else p for p in arrays]
    first = [0]
    for k, p in enumerate(arrays):
        if p.ndim != 2 or p.shape[1] != 2:
            raise ValueError(f"{name}[{k}] must be (N, 2) of x, y, got shape {tuple(p.shape)}")
        first.append(first[-1] + len(p))
    if not arrays:
        return np.zeros((0, 2)), first
    check_devices(**{f"{name}[{k}]": p for k, p in enumerate(arrays)})
    if is_tensor(arrays[0]):
        import torch

        return check_coordinates(name, torch.cat([p.double() for p in arrays])), first
    return check_coordinates(name, np.concatenate([p.astype(np.float64) for p in arrays])), first


def check_coordinates(name: str, points: Any) -> Any:
    if is_tensor(points):
        if points.requires_grad:
            raise ValueError(f"{name} must not require a gradient, which pixels have not: call detach()")
        return double(points)
    points = double(points)
    check_finite(name, points)
    return points
