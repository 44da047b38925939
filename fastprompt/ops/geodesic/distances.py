"""Geodesic distance and what is made of it."""

import math
import sys
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fastprompt._choices import choice
from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array, dtype_name, kernel_dtype
from fastprompt.ops._checks import check_devices, check_number
from fastprompt.ops.geodesic.grid import Method, Metric, Options, check_options, check_shapes, five_axes, warn_of_volume
from fastprompt.ops.geodesic.operators import distance

__all__ = [
    "exponentiated_geodesic",
    "geodesic_distance",
    "geodesic_symmetric_filter",
    "signed_geodesic_distance",
]

MASKS = ("bool", "uint8")


def geodesic_distance(
    image: Any,  # ([B,] [C,] [D,] H, W)
    seeds: Any,  # ([B,] [K,] [D,] H, W)
    *,
    metric: Metric = "fastgeodis",
    lam: float = 1.0,
    method: Method = "exact",
    iterations: int | None = None,
    spacing: float | Sequence[float] = 1.0,
    v: float = math.inf,
    barriers: Any = None,  # ([B,] [D,] H, W)
    max_distance: float = math.inf,
    dims: int | None = None,
) -> Any:
    r"""Distance from every pixel to the nearest seed along the cheapest path over the 8- or 26-neighbour grid.

    .. math:: D(p) = \min_{q_0 = p, \dots, q_k} \; v\,(1 - s(q_k)) + \sum_i w(q_i, q_{i+1})

    with the step length :math:`\ell` (``spacing`` times 1, √2, √3) and one of three edge costs ``metric``:

    ===============  =========================================================================================
    ``fastgeodis``   :math:`(1 - \lambda)\,\ell + \lambda\,\|\Delta I\|_1` (FastGeodis; the default)
    ``geodistk``     :math:`\ell / ((1 - \lambda) + \lambda / (\|\Delta I\|_2 + 10^{-5}))` (GeodisTK raster scan)
    ``geodistk_fm``  :math:`\ell\,\|\Delta I\|_2`, no λ (GeodisTK "fast marching", as MIDeepSeg calls it)
    ===============  =========================================================================================

    Args:
        image: ``([B,] [C,] H, W)``, or ``([B,] [C,] D, H, W)`` with ``dims=3``; channels first. float32, float16,
            bfloat16 and uint8 are read as they are, in any memory layout; other real types become float32.
            A path through a NaN pixel does not exist.
        seeds: ``([B,] [K,] [D,] H, W)``: bool or integer, non-zero = seed; or float, the degree s in [0, 1] to which a
            pixel is a seed. The K seed sets of an image share its edge costs.
        metric, lam: edge cost, and the weight λ in [0, 1] of the image gradient.
        method: ``"exact"``: the shortest path. ``"raster"``: ``iterations`` sweeps in FastGeodis' order, bit-equal to
            FastGeodis 1.0.5, an upper bound of the exact distance. ``"toivanen"``: the same in Toivanen's order.
        iterations: of the two approximate methods; default 2 in 2-D, 4 in 3-D.
        spacing: pixel size, a number or one per spatial axis, in the order of the axes ``([D,] H, W)``.
        v: start value where s = 0. Default +inf: only seeds start paths.
        barriers: non-zero = a pixel that no path may enter; its distance is +inf.
        max_distance: larger distances become +inf, and the exact method does not compute them.
        dims: 2 or 3 spatial axes; default 3 where the image has five axes or spacing three numbers, else 2, with a
            warning where image and seeds have the same three last axes, of more than 3 slices, and could be volumes.

    Returns:
        float32, contiguous, in the shape of ``seeds`` (a batch axis of the image included); torch in, torch out. A
        pixel without any path has +inf. Differentiable by image and soft seeds with ``method="exact"``: the gradient
        of the shortest path, a subgradient where two paths tie.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> image = np.array([[0, 0, 9, 0]], np.float32)
        >>> seeds = np.array([[1, 0, 0, 0]], bool)
        >>> fp.geodesic_distance(image, seeds)
        array([[ 0.,  0.,  9., 18.]], dtype=float32)

    Source: Criminisi et al., GeoS, ECCV 2008; Asad et al., FastGeodis, JOSS 2022; Toivanen, PRL 17, 1996.
    """
    image, seeds = as_array("image", image), as_array("seeds", seeds)
    warn_of_volume(image, seeds, dims=dims, spacing=spacing)
    options = check_options(
        image,
        metric=metric,
        lam=lam,
        method=method,
        iterations=iterations,
        spacing=spacing,
        v=v,
        max_distance=max_distance,
        dims=dims,
    )
    return solve(image, seeds, barriers, start_kind(seeds), options)


def signed_geodesic_distance(image: Any, seeds: Any, **options: Any) -> Any:
    r"""Distance to the seeds minus distance to the rest: negative inside a region, positive outside.

    .. math:: D_s = D(s) - D(1 - s)

    Both maps come from one pass over the image. Arguments as in :func:`geodesic_distance`; where both distances are
    infinite (barriers) the result is +inf.

    >>> import numpy as np, fastprompt as fp
    >>> fp.signed_geodesic_distance(np.array([[0, 1, 3, 6]]), np.array([[1, 1, 0, 0]]))
    array([[-3., -2.,  2.,  5.]], dtype=float32)
    """
    image, seeds = as_array("image", image), as_array("seeds", seeds)
    warn_of_volume(image, seeds, **options)
    barriers = options.pop("barriers", None)
    return solve(image, seeds, barriers, "signed_" + start_kind(seeds), check_options(image, **options))


def geodesic_symmetric_filter(image: Any, seeds: Any, *, theta: float, v: float = 1e10, **options: Any) -> Any:
    r"""Edge-aware smoothing of a region: a dilation and an erosion by the geodesic radius ``theta``, combined.

    .. math:: D_s(\mathrm{dilated}) + D_s(\mathrm{eroded}), \quad
        \mathrm{dilated} = [D_s(s) \le \theta], \; \mathrm{eroded} = [D_s(s) \le -\theta]

    with the signed distance :math:`D_s`. The smoothed region is where the result is below 0: spots and holes thinner
    than ``theta`` are gone. ``theta`` is in the unit of the distance. Other arguments as in :func:`geodesic_distance`,
    except that ``v`` is finite by default, so that an erosion that leaves nothing has a value: about +v.

    >>> import numpy as np, fastprompt as fp
    >>> region = np.array([[1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0]])
    >>> smooth = fp.geodesic_symmetric_filter(np.zeros((1, 12)), region, theta=1, lam=0)
    >>> (smooth < 0).astype(int)
    array([[1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]])

    Source: Criminisi et al., GeoS, ECCV 2008, eq. 4-6; the sign is that of FastGeodis' ``GSF2d``.
    """
    theta = check_number("theta", theta, 0.0, math.inf)
    signed = signed_geodesic_distance(image, seeds, v=v, **options)
    dilated = signed_geodesic_distance(image, signed <= theta, v=v, **options)
    return dilated + signed_geodesic_distance(image, signed <= -theta, v=v, **options)


def exponentiated_geodesic(
    image: Any,
    seeds: Any,
    *,
    power: Literal[1, 2] = 1,
    threshold: float | None = None,
    normalize: Literal["minmax"] | None = None,
    metric: Metric = "geodistk_fm",
    **options: Any,
) -> Any:
    r"""Nearness in [0, 1]: :math:`e^{-D^{\mathrm{power}}}`, 1 at the seeds; MIDeepSeg's interaction maps.

    ``power=1, normalize="minmax"`` is its first stage, ``power=2`` its refinement. With ``threshold`` t the map is
    :math:`\min(D, t) / t` instead, 0 at the seeds. ``normalize="minmax"`` maps each map to [0, 1]:
    (x - min) / max(max - min, 1e-8).
    A map without a path to any pixel is 0. The result depends on the scale of the image; MIDeepSeg normalises its
    crops first. Other arguments as in :func:`geodesic_distance`. MIDeepSeg's README speaks of a patent on its method.

    >>> import numpy as np, fastprompt as fp
    >>> fp.exponentiated_geodesic(np.array([[0.0, 0.0, 1.0]]), np.array([[1, 0, 0]])).round(3)
    array([[1.   , 1.   , 0.368]], dtype=float32)

    Source: Luo et al., MIDeepSeg, Medical Image Analysis 72, 2021; formulas only.
    """
    choice("power", power, (1, 2))
    choice("normalize", normalize, ("minmax", None))
    if threshold is not None and check_number("threshold", threshold, 0.0, math.inf) in (0.0, math.inf):
        raise ValueError(f"threshold must be positive and finite, got {threshold!r}")
    image = as_array("image", image)
    dims = check_options(image, metric=metric, **{k: x for k, x in options.items() if k != "barriers"}).dims
    distance = geodesic_distance(image, seeds, metric=metric, **options)
    if 0 in distance.shape:
        return distance
    xp: Any = sys.modules["torch"] if is_tensor(distance) else np
    axes = tuple(range(-dims, 0))
    if threshold is None:
        near = xp.exp(-(distance**power))
    else:
        none = xp.isinf(xp.amin(distance, axes, keepdims=True))  # no path at all
        near = xp.where(none, xp.zeros_like(distance), distance.clip(max=threshold) / threshold)
    if normalize is None:
        return near
    low, high = xp.amin(near, axes, keepdims=True), xp.amax(near, axes, keepdims=True)
    return (near - low) / (high - low).clip(1e-8)


def start_kind(seeds: Any) -> str:
    """How the kernel reads the start map, see ``STARTS``: a float map is soft, any other is a mask."""
    return "seed" if "float" in dtype_name(seeds) else "nonzero"


def solve(image: Any, start: Any, barriers: Any, kind: str, options: Options) -> Any:
    """Check the shapes, bring everything to five axes, run the kernel, and give the result the shape of ``start``.

    Also the door of :mod:`fastprompt.compat`, whose start maps are of kind "cost".
    """
    dims = options.dims
    barriers = None if barriers is None else as_array("barriers", barriers)
    check_devices(image=image, seeds=start, barriers=barriers)
    image5, start5 = five_axes("image", image, dims), five_axes("seeds", start, dims)
    walls5 = None if barriers is None else five_axes("barriers", one_channel(barriers, dims), dims)
    batch = check_shapes(image5, start5, walls5, "seeds", dims)
    if walls5 is not None and dtype_name(walls5) not in MASKS:
        walls5 = walls5 != 0
    if "nonzero" in kind and dtype_name(start5) not in MASKS:
        start5 = start5 != 0
    image5, start5 = kernel_dtype(image5), kernel_dtype(start5)
    image5, start5 = with_batch(image5, batch), with_batch(start5, batch)
    walls5 = None if walls5 is None else with_batch(walls5, batch)
    if is_tensor(image5):
        check_differentiable(image5, start5, options)
    out = distance(image5, start5, walls5, kind, *options)
    if image.ndim == dims + 2:  # a batch of images gives a batch of maps
        return out[:, :, 0] if dims == 2 else out
    return out.reshape(start.shape)


def check_differentiable(image: Any, start: Any, o: Options) -> None:
    if not sys.modules["torch"].is_grad_enabled() or not (image.requires_grad or start.requires_grad):
        return
    if o.method != "exact":
        raise ValueError(f"method {o.method!r} has no gradient: use method='exact', or detach image and seeds")
    if start.requires_grad and math.isinf(o.v):
        raise ValueError("v must be finite where seeds require a gradient, got inf: D is not continuous in the seeds")


def one_channel(barriers: Any, dims: int) -> Any:
    """Barriers have no channel axis: ([B,] [D,] H, W)."""
    return barriers[:, None] if barriers.ndim == dims + 1 else barriers


def with_batch(x: Any, batch: int) -> Any:
    if x.shape[0] == batch:
        return x
    return x.expand(batch, *x.shape[1:]) if is_tensor(x) else np.broadcast_to(x, (batch, *x.shape[1:]))
