"""Maps of clicks on regions: superpixels and object proposals."""

from typing import Any

from fastprompt.ops._arrays import as_array, contiguous, dtype_name, integers
from fastprompt.ops._checks import check_devices, check_number
from fastprompt.ops.guidance import operators
from fastprompt.ops.guidance.click_sets import Clicks, check_clicks, whole

__all__ = ["proposal_vote_map", "superpixel_map"]


def superpixel_map(
    superpixels: Any,  # ([B,] H, W)
    points: Any,  # ([B,] N, 2), or a list of B arrays (N_b, 2)
    labels: Any = None,  # ([B,] N)
    *,
    clip: float = 255.0,
    channels: Any = None,
) -> Any:
    r"""The distance from a pixel's superpixel to the nearest clicked one, between centroids.

    .. math:: Y(p) = \min\Bigl(\mathrm{clip}, \min_{n} |c(s_p) - c(s_{q_n})|\Bigr)

    s_p is the superpixel of pixel p, c its centroid, q_n the pixel that click n is nearest to.

    Args:
        superpixels: integers from 0, below the number of pixels of an image, in any real dtype; some may be missing.
        points, labels, channels: as of :func:`click_map`. Clicks must lie in the image.
        clip: the largest value, which a channel without a click has everywhere.

    Returns:
        ``([B,] channels, H, W)`` float32; torch in, torch out. Not differentiable. On a GPU nothing waits for the host
        and nothing is raised of numbers: a click outside the image makes its channel NaN, a bad superpixel its pixels.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> fp.superpixel_map(np.array([[0, 0, 1, 1], [0, 0, 1, 1]]), [[0, 1]])
        array([[[0., 0., 2., 2.],
                [0., 0., 2., 2.]]], dtype=float32)

    Source: CAMLG-IIS (Majumder and Yao, 2019), formula only.
    """
    superpixels = as_array("superpixels", superpixels)
    superpixels = integers("superpixels", superpixels, -1)
    clip = check_number("clip", clip, 0.0, 1e30)
    clicks = check_clicks(points, labels, channels)
    regions = check_images("superpixels", superpixels, 2, clicks)
    out = operators.superpixel_map(whole(regions), clicks.points, clicks.labels, list(clicks.channels), clip)
    return out if clicks.batched else out[0]


def proposal_vote_map(
    proposals: Any,  # ([B,] P, H, W)
    points: Any,  # ([B,] N, 2), or a list of B arrays (N_b, 2)
    labels: Any = None,  # ([B,] N)
    *,
    channels: Any = None,
) -> Any:
    r"""How often the clicks vote for a pixel: every proposal has as many votes as clicks, and gives them to its pixels.

    .. math:: Y(p) = \sum_{n} \sum_{L \ni q_n} [p \in L]

    Args:
        proposals: masks L of possible objects, not 0 = in the object. bool and uint8 are read as they are.
        points, labels, channels: as of :func:`click_map`. Clicks must lie in the image.

    Returns:
        ``([B,] channels, H, W)`` float32; torch in, torch out. 0 without a click. Not differentiable. On a GPU nothing
        is raised of numbers: a click outside the image makes its channel NaN.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> fp.proposal_vote_map(np.array([[[1, 1, 0]], [[0, 1, 1]]]), [[0, 0], [1, 0]])
        array([[[2., 3., 1.]]], dtype=float32)

    Source: CAMLG-IIS (Majumder and Yao, 2019), formula only.
    """
    proposals = as_array("proposals", proposals)
    clicks = check_clicks(points, labels, channels)
    member: Any = check_images("proposals", proposals, 3, clicks)
    if dtype_name(member) not in ("bool", "uint8"):
        member = member != 0
    out = operators.proposal_vote_map(contiguous(member), clicks.points, clicks.labels, list(clicks.channels))
    return out if clicks.batched else out[0]


def check_images(name: str, x: Any, axes: int, clicks: Clicks) -> Any:
    """``x`` with a batch axis, as long as that of the clicks."""
    check_devices(**{name: x, "points": clicks.points})
    want = axes + clicks.batched
    if x.ndim != want:
        shape = "B, " * clicks.batched + ("P, " if axes == 3 else "") + "H, W"
        raise ValueError(f"{name} must be ({shape}) with these points, got shape {tuple(x.shape)}")
    x = x if clicks.batched else x[None]
    if len(x) != len(clicks.points):
        raise ValueError(f"{name} must have the batch size of points, {len(clicks.points)}, got {len(x)}")
    return x
