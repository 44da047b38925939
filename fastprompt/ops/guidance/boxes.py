"""Maps of boxes."""

import math
from typing import Any

from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array
from fastprompt.ops._checks import check_devices, check_number
from fastprompt.ops.guidance import operators
from fastprompt.ops.guidance.click_sets import check_size, single

__all__ = ["box_distance_map", "box_map"]


def box_map(
    boxes: Any,  # ([[B,] N,] 4)
    *,
    size: tuple[int, int],
) -> Any:
    """1 in a box, 0 outside.

    Args:
        boxes: (x0, y0, x1, y1) in pixels, corners **inclusive** and in either order; fractions count. A pixel is in a
            box where x0 ≤ x ≤ x1 and y0 ≤ y ≤ y1. One with a NaN is passed over: that pads images with fewer boxes.
        size: (height, width) of the map.

    Returns:
        ``([B,] 1, H, W)`` float32: the union of an image's boxes; torch in, torch out. Not differentiable.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import fastprompt as fp
        >>> fp.box_map([1, 0, 2, 0], size=(2, 4))
        array([[[0., 1., 1., 0.],
                [0., 0., 0., 0.]]], dtype=float32)
    """
    return mapped(boxes, size, False, 0.0, -math.inf, math.inf)


def box_distance_map(
    boxes: Any,  # ([[B,] N,] 4)
    *,
    size: tuple[int, int],
    offset: float = 128.0,
    clip: tuple[float, float] | None = (0.0, 255.0),
) -> Any:
    r"""The signed distance to the outline of a box, below ``offset`` inside and above it outside.

    .. math:: Y = \mathrm{offset} + \begin{cases}
        -\min(x - x_0, x_1 - x, y - y_0, y_1 - y) & \text{inside}\\
        \sqrt{\max(x_0 - x, 0, x - x_1)^2 + \max(y_0 - y, 0, y - y_1)^2} & \text{outside} \end{cases}

    Args:
        boxes: as of :func:`box_map`. Of several boxes the least value counts: the distance to their union outside it.
        size: (height, width) of the map.
        offset: the value on the outline. clip: least and largest value, or None.

    Returns:
        ``([B,] 1, H, W)`` float32; torch in, torch out. An image without a box has the largest value, or inf. Not
        differentiable.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import fastprompt as fp
        >>> fp.box_distance_map([1, 0, 3, 2], size=(3, 5))
        array([[[129., 128., 128., 128., 129.],
                [129., 128., 127., 128., 129.],
                [129., 128., 128., 128., 129.]]], dtype=float32)

    Source: Deep GrabCut (Xu et al., 2017), formula only.
    """
    offset = check_number("offset", offset, -1e9, 1e9)
    low, high = -math.inf, math.inf
    if clip is not None:
        if not isinstance(clip, (tuple, list)) or len(clip) != 2:
            raise ValueError(f"clip must be (least, largest) or None, got {clip!r}")
        low = check_number("clip[0]", clip[0], -1e9, 1e9)
        high = check_number("clip[1]", clip[1], low, 1e9)
    return mapped(boxes, size, True, offset, low, high)


def mapped(boxes: Any, size: Any, distance: bool, offset: float, low: float, high: float) -> Any:
    size = check_size(size)
    corners, batched = check_boxes(boxes)
    out = operators.box_map(corners, size, distance, offset, low, high)
    return out if batched else out[0]


def check_boxes(boxes: Any) -> tuple[Any, bool]:
    """(B, N, 4) float32, contiguous, and whether there was a batch axis."""
    boxes = as_array("boxes", boxes)
    check_devices(boxes=boxes)
    if boxes.ndim not in (1, 2, 3) or boxes.shape[-1] != 4:
        raise ValueError(f"boxes must be ([[B,] N,] 4) of x0, y0, x1, y1, got shape {tuple(boxes.shape)}")
    if is_tensor(boxes) and boxes.requires_grad:
        raise ValueError("boxes must not require a gradient, which the maps have not: call boxes.detach()")
    batched = boxes.ndim == 3
    shape = tuple(boxes.shape) if batched else (1, *((1, 4) if boxes.ndim == 1 else boxes.shape))
    return single(boxes).reshape(shape), batched
