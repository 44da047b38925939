"""Interactive segmentation without a network: who is nearer, the positive prompts or the negative ones?"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastprompt.ops._arrays import as_array
from fastprompt.ops.geodesic.distances import geodesic_distance, geodesic_symmetric_filter

__all__ = ["clean", "divide", "prompt_seeds", "segment"]

# lam and theta suit intensities in [0, 1]. At lam = 0.99 a step of one pixel costs 0.01, as much as 2.6 of 255 grey
# levels summed over the channels: above the noise of a photograph, so that flat regions do not leak, and far below an
# edge. At 0.9 the border between the prompts is drawn half-way between them; at 1.0 noise alone decides.
LAM = 0.99
THETA = 0.1  # ten flat pixels, or an edge of 26 grey levels, whichever comes first

Point = tuple[float, float]
Box = tuple[float, float, float, float]


def segment(
    image: Any,  # ([C,] H, W)
    positive: Sequence[Point] = (),
    negative: Sequence[Point] = (),
    *,
    scribbles: Any = None,  # (2, H, W)
    box: Box | None = None,
    lam: float = LAM,
    theta: float = THETA,
    refine: bool = True,
) -> Any:
    """The object that the prompts point at.

    A pixel belongs to the object if its geodesic distance to the positive prompts is below that to the negative ones.
    The geodesic symmetric filter then removes specks and holes thinner than ``theta``. It knows edges, no objects:
    one or two clicks give poor masks of a photograph, strokes and many clicks good ones (docs/segment.md).

    Args:
        image: ``([C,] H, W)``; uint8 is divided by 255, other types are taken as they are, best within [0, 1].
        positive, negative: (x, y) in pixels, on the object and off it.
        scribbles: two masks, the positive strokes and the negative ones.
        box: (x0, y0, x1, y1), corners included; everything outside is negative.
        lam: weight of the image's edges against path length, see :func:`fastprompt.geodesic_distance`.
        theta: how far the filter may move the outline, a geodesic distance.
        refine: False leaves the filter out.

    Returns:
        bool ``(H, W)``. It holds every positive prompt, and none of the negative ones.

    Example:
        >>> import numpy as np
        >>> from fastprompt.segment import segment
        >>> image = np.array([[0, 0, 9, 9], [0, 0, 9, 9]], np.uint8) * 20
        >>> segment(image, positive=[(3, 0)], negative=[(0, 1)]).astype(int)
        array([[0, 0, 1, 1],
               [0, 0, 1, 1]])
    """
    image = normalised(image)
    seeds = checked_seeds(image.shape[-2:], positive, negative, scribbles=scribbles, box=box)
    mask = divide(image, seeds, lam=lam)
    return clean(image, mask, seeds, lam=lam, theta=theta) if refine else mask


def divide(image: Any, seeds: Any, *, lam: float = LAM) -> Any:
    """The mask (H, W) of pixels nearer to ``seeds[0]`` than to ``seeds[1]``; ties are not in it."""
    to_positive, to_negative = geodesic_distance(image, seeds, lam=lam)  # one call: the two share the edge costs
    return to_positive < to_negative


def clean(image: Any, mask: Any, seeds: Any, *, lam: float = LAM, theta: float = THETA) -> Any:
    """``mask`` through the geodesic symmetric filter; the prompts keep their side."""
    if mask.all() or not mask.any():
        return mask
    smooth = geodesic_symmetric_filter(image, mask, theta=theta, lam=lam) < 0
    return (smooth | seeds[0]) & ~seeds[1]


def normalised(image: Any) -> Any:
    image = np.asarray(as_array("image", image))
    if image.ndim not in (2, 3):
        raise ValueError(f"image must be ([C,] H, W), got shape {image.shape}")
    if image.dtype != np.uint8:
        return image
    scaled = np.array(image, np.float32, order="C")
    scaled /= 255  # in place: pictures are large
    return scaled


def checked_seeds(size: tuple[int, int], *points: Sequence[Point], **others: Any) -> Any:
    """:func:`prompt_seeds`, at least one on each side."""
    seeds = prompt_seeds(size, *points, **others)
    for name, where in zip(("positive", "negative"), seeds, strict=True):
        if not where.any():
            or_box = ", or a box" if name == "negative" else ""
            raise ValueError(f"no {name} prompt: give at least one {name} point or scribble{or_box}")
    return seeds


def prompt_seeds(
    size: tuple[int, int],
    positive: Sequence[Point] = (),
    negative: Sequence[Point] = (),
    *,
    scribbles: Any = None,  # (2, H, W)
    box: Box | None = None,
) -> Any:
    """Prompts as two masks (2, H, W): positive, negative. A pixel that is both is an error."""
    seeds = np.zeros((2, *size), bool)
    if scribbles is not None:
        if np.shape(scribbles) != seeds.shape:
            raise ValueError(f"scribbles must have shape {seeds.shape}, got {np.shape(scribbles)}")
        seeds |= np.asarray(as_array("scribbles", scribbles)) != 0
    for side, (name, points) in enumerate((("positive", positive), ("negative", negative))):
        for point in points:
            seeds[(side, *pixel(name, point, size))] = True
    if box is not None:
        seeds[1] |= outside(box, size)
    both = np.argwhere(seeds[0] & seeds[1])
    if len(both):
        y, x = (int(k) for k in both[0])
        beyond = box is not None and outside(box, size)[y, x]
        what = "positive, but outside the box" if beyond else "both positive and negative"
        raise ValueError(f"prompts contradict each other: pixel {x},{y} is {what}")
    return seeds


def pixel(name: str, point: Point, size: tuple[int, int]) -> tuple[int, int]:
    """(row, column) of the pixel that holds the point (x, y)."""
    (x, y), (height, width) = point, size
    if not (0 <= x < width and 0 <= y < height):  # NaN too
        raise ValueError(f"{name} point {x:g},{y:g} is outside the image of {width} x {height} pixels (x, y from 0)")
    return math.floor(y), math.floor(x)


def outside(box: Box, size: tuple[int, int]) -> Any:
    """The pixels beyond the box."""
    x0, y0, x1, y1 = box
    height, width = size
    if not (0 <= x0 <= x1 < width and 0 <= y0 <= y1 < height):
        raise ValueError(
            f"box {x0:g},{y0:g},{x1:g},{y1:g} must be X0,Y0,X1,Y1 with X0 <= X1 and Y0 <= Y1, "
            f"inside the image of {width} x {height} pixels"
        )
    mask = np.ones(size, bool)
    mask[math.floor(y0) : math.floor(y1) + 1, math.floor(x0) : math.floor(x1) + 1] = False
    return mask
