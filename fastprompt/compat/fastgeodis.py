"""FastGeodis 1.0.5, drop-in: ``import fastprompt.compat.fastgeodis as FastGeodis``.

Names, argument order, defaults, shapes and exception types are the original's; docs/compat.md lists what differs.
In every function:

* ``image`` is float32 ``(1, C, H, W)``, or ``(1, C, D, H, W)`` in the ``3d`` forms, of any strides; on
  the CPU, or for raster scans and the pixel queue on a CUDA device.
* ``softmask`` / ``seed`` is ``(1, 1, [D,] H, W)``: 0 = seed, 1 = background; of more channels only the first counts.
* ``spacing`` holds the three pixel sizes of ``(D, H, W)``.
* ``lamb`` in [0, 1]: 0 = Euclidean steps only, 1 = image gradient only. ``v``: start value of the background.
* The result is float32 in the shape of the mask, contiguous.

Raises ValueError for shapes, batch size, spacing, ``lamb`` and ``v``; RuntimeError for a dtype, and for a tensor that
requires a gradient, which the original drops in silence; TypeError for what is no tensor or number.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastprompt.compat._eikonal import eikonal_distance
from fastprompt.ops._checks import check_number
from fastprompt.ops.geodesic.distances import solve
from fastprompt.ops.geodesic.grid import MOST_ITERATIONS, Method, Options, check_spacing

__version__ = "1.0.5"  # of the FastGeodis that this module follows
__all__ = [
    *(f"{sign}generalised_geodesic{d}d{m}" for sign in ("", "signed_") for d in (2, 3) for m in ("", "_toivanen")),
    *(f"{sign}geodesic{d}d_{m}" for sign in ("", "signed_") for d in (2, 3) for m in ("pixelqueue", "fastmarch")),
    *(f"GSF{d}d{m}" for d in (2, 3) for m in ("", "_toivanen", "_pixelqueue", "_fastmarch")),
]

PLANE = (1.0, 1.0)  # the spacing of the 2-D forms, which have no such argument
UNREACHED = 1e10  # of the pixel queue


@dataclass(frozen=True)
class Transform:
    """One method on one image, for any number of masks."""

    solve: Callable[[Any, bool], Any]  # (first channel of the mask as an array, signed) -> distances
    others: Callable[[Tensor], Tensor]  # what the original leaves in further channels of the mask

    def distance(self, mask: Tensor) -> Tensor:
        return self._channels(mask, False, self.others)

    def signed(self, mask: Tensor) -> Tensor:
        """D(mask) - D(1 - mask)."""
        return self._channels(mask, True, lambda x: self.others(x) - self.others(1 - x))

    def symmetric(self, mask: Tensor, theta: float) -> Tensor:
        """GeoS: the signed distances to the dilated and to the eroded region, added."""
        limit = float(np.float32(theta))
        signed = self.signed(mask)
        dilated, eroded = (signed > limit).float(), (signed > -limit).float()
        return -self.signed(1 - dilated) + self.signed(eroded)

    def _channels(self, mask: Tensor, signed: bool, others: Callable[[Tensor], Tensor]) -> Tensor:
        mask = mask.float()
        first = torch.as_tensor(self.solve(plain(mask[:, :1]), signed))
        return first if mask.shape[1] == 1 else torch.cat([first, others(mask[:, 1:].detach())], 1)


def plain(x: Tensor) -> Any:
    """``x`` without its gradient; on the CPU as a NumPy array, whose way to the kernel is shorter."""
    x = x.detach().resolve_neg()
    return x.numpy() if x.device.type == "cpu" else x


def raster(
    method: Method, image: Tensor, mask: Tensor, spacing: Sequence[float], v: float, lamb: float, iterations: int
) -> Transform:
    """``method`` "raster" (FastGeodis' own order) or "toivanen": bit-equal to the original."""
    # v * mask makes a float32 of an integer mask, so the original takes these too
    if method == "raster":
        check_tensors(image, mask, spacing, ("cpu", "cuda"), INTEGERS, elsewhere=RuntimeError)
    else:
        check_tensors(image, mask, spacing, mask_dtypes=INTEGERS)
    options = make_options(method, spacing, v, lamb, max(0, operator.index(iterations)))
    pixels = plain(image)
    return Transform(
        lambda start, signed: solve(pixels, start, None, "signed_cost" if signed else "cost", options),
        lambda start: options.v * start,
    )


def pixelqueue(image: Tensor, mask: Tensor, spacing: Sequence[float], lamb: float) -> Transform:
    """The shortest path; the original adds up in another order and differs in rounding."""
    check_tensors(image, mask, spacing, ("cpu", "cuda"))
    options = make_options("exact", spacing, UNREACHED, lamb, 0)
    pixels = plain(image)

    def distances(mask: Any, signed: bool) -> Any:
        join: Any = torch.cat if isinstance(mask, Tensor) else np.concatenate
        masks = join([mask, 1 - mask], 1) if signed else mask
        out = solve(pixels, ~(masks > 0), None, "nonzero", options)
        return out[:, :1] - out[:, 1:] if signed else out

    return Transform(distances, torch.clone)


def fastmarch(image: Tensor, mask: Tensor, spacing: Sequence[float], lamb: float) -> Transform:
    """The eikonal equation, see :func:`fastprompt.compat._eikonal.eikonal_distance`."""
    check_tensors(image, mask, spacing)
    options = make_options("exact", spacing, UNREACHED, lamb, 0)
    pixels = plain(image)[0]

    def time(mask: Any) -> Any:
        seeds = mask[0, 0] == 0
        if seeds.all() or not seeds.any():
            raise ValueError("fast marching needs a pixel with mask == 0 and one with another value, for either sign")
        return eikonal_distance(pixels, seeds, lam=options.lam, spacing=options.spacing)[None, None]

    return Transform(lambda mask, signed: time(mask) - time(1 - mask) if signed else time(mask), torch.clone)


INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_tensors(
    image: Any,
    mask: Any,
    spacing: Any,
    devices: tuple[str, ...] = ("cpu",),
    mask_dtypes: tuple[torch.dtype, ...] = (),
    elsewhere: type[Exception] = ValueError,
) -> None:
    axes = 4 if spacing is PLANE else 5
    for name, x in (("image", image), ("mask", mask)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a torch tensor, got {type(x).__name__}")
        if x.ndim != axes:
            raise ValueError(f"{name} must have {axes} axes (1, C{', D' * (axes == 5)}, H, W), got {tuple(x.shape)}")
        if x.shape[0] != 1 or x.shape[1] == 0:
            raise ValueError(f"{name} must have batch size 1 and a channel, got shape {tuple(x.shape)}")
    if image.shape[2:] != mask.shape[2:]:
        raise ValueError(f"mask must have the image's size {tuple(image.shape[2:])}, got {tuple(mask.shape[2:])}")
    for name, x, dtypes, error in (("image", image, (), elsewhere), ("mask", mask, mask_dtypes, ValueError)):
        if x.device.type not in devices:
            where = "on the CPU" if devices == ("cpu",) else "on the CPU or a CUDA device"
            raise error(f"{name} must be {where}, got {x.device}: this function has no kernel for that device")
        if x.dtype not in (torch.float32, *dtypes):
            raise RuntimeError(f"{name} must be float32, got {x.dtype}")
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(f"{name} requires a gradient, which these functions do not have: pass {name}.detach()")


def make_options(method: Method, spacing: Sequence[float], v: float, lamb: float, iterations: int) -> Options:
    """Check the numbers; 1 - lamb is rounded in the type of ``lamb``, as in the original."""
    if isinstance(spacing, (int, float)):
        raise TypeError(f"spacing must be a sequence of 3 numbers, got {spacing!r}")
    sizes = check_spacing(spacing, 2 if spacing is PLANE else 3, 0)
    lam, v = check_number("lamb", lamb, 0.0, 1.0), check_number("v", v, 0.0, np.inf)
    if iterations > MOST_ITERATIONS:
        raise ValueError(f"iter must be at most {MOST_ITERATIONS}, got {iterations}")
    return Options("fastgeodis", method, iterations, lam, float(1 - lamb), sizes, v, np.inf)


def single(lamb: float) -> Any:
    """The symmetric filters round ``lamb`` to float32 before they subtract it from 1."""
    return np.float32(check_number("lamb", lamb, 0.0, 1.0))


# The public functions. -----------------------------------------------------------------------------------------------


def generalised_geodesic2d(image: Tensor, softmask: Tensor, v: float, lamb: float, iter: int = 2) -> Tensor:
    """Generalised geodesic distance by ``iter`` raster scans."""
    return raster("raster", image, softmask, PLANE, v, lamb, iter).distance(softmask)


def generalised_geodesic3d(
    image: Tensor, softmask: Tensor, spacing: Sequence[float], v: float, lamb: float, iter: int = 4
) -> Tensor:
    """Generalised geodesic distance by ``iter`` raster scans."""
    return raster("raster", image, softmask, spacing, v, lamb, iter).distance(softmask)


def signed_generalised_geodesic2d(image: Tensor, softmask: Tensor, v: float, lamb: float, iter: int = 2) -> Tensor:
    """Distance to the mask minus distance to its complement, by ``iter`` raster scans."""
    return raster("raster", image, softmask, PLANE, v, lamb, iter).signed(softmask)


def signed_generalised_geodesic3d(
    image: Tensor, softmask: Tensor, spacing: Sequence[float], v: float, lamb: float, iter: int = 4
) -> Tensor:
    """Distance to the mask minus distance to its complement, by ``iter`` raster scans."""
    return raster("raster", image, softmask, spacing, v, lamb, iter).signed(softmask)


def generalised_geodesic2d_toivanen(image: Tensor, softmask: Tensor, v: float, lamb: float, iter: int = 2) -> Tensor:
    """Generalised geodesic distance by ``iter`` of Toivanen's scans."""
    return raster("toivanen", image, softmask, PLANE, v, lamb, iter).distance(softmask)


def generalised_geodesic3d_toivanen(
    image: Tensor, softmask: Tensor, spacing: Sequence[float], v: float, lamb: float, iter: int = 4
) -> Tensor:
    """Generalised geodesic distance by ``iter`` of Toivanen's scans."""
    return raster("toivanen", image, softmask, spacing, v, lamb, iter).distance(softmask)


def signed_generalised_geodesic2d_toivanen(
    image: Tensor, softmask: Tensor, v: float, lamb: float, iter: int = 2
) -> Tensor:
    """Distance to the mask minus distance to its complement, by ``iter`` of Toivanen's scans."""
    return raster("toivanen", image, softmask, PLANE, v, lamb, iter).signed(softmask)


def signed_generalised_geodesic3d_toivanen(
    image: Tensor, softmask: Tensor, spacing: Sequence[float], v: float, lamb: float, iter: int = 4
) -> Tensor:
    """Distance to the mask minus distance to its complement, by ``iter`` of Toivanen's scans."""
    return raster("toivanen", image, softmask, spacing, v, lamb, iter).signed(softmask)


def geodesic2d_pixelqueue(image: Tensor, seed: Tensor, lamb: float) -> Tensor:
    """Exact geodesic distance to the pixels with seed <= 0; 1e10 where there is none."""
    return pixelqueue(image, seed, PLANE, lamb).distance(seed)


def geodesic3d_pixelqueue(image: Tensor, seed: Tensor, spacing: Sequence[float], lamb: float) -> Tensor:
    """Exact geodesic distance to the voxels with seed <= 0; 1e10 where there is none."""
    return pixelqueue(image, seed, spacing, lamb).distance(seed)


def signed_geodesic2d_pixelqueue(image: Tensor, seed: Tensor, lamb: float) -> Tensor:
    """Exact geodesic distance to seed <= 0 minus that to 1 - seed <= 0."""
    return pixelqueue(image, seed, PLANE, lamb).signed(seed)


def signed_geodesic3d_pixelqueue(image: Tensor, seed: Tensor, spacing: Sequence[float], lamb: float) -> Tensor:
    """Exact geodesic distance to seed <= 0 minus that to 1 - seed <= 0."""
    return pixelqueue(image, seed, spacing, lamb).signed(seed)


def geodesic2d_fastmarch(image: Tensor, seed: Tensor, lamb: float) -> Tensor:
    """First arrival from the pixels with seed == 0, by fast marching."""
    return fastmarch(image, seed, PLANE, lamb).distance(seed)


def geodesic3d_fastmarch(image: Tensor, seed: Tensor, spacing: Sequence[float], lamb: float) -> Tensor:
    """First arrival from the voxels with seed == 0, by fast marching."""
    return fastmarch(image, seed, spacing, lamb).distance(seed)


def signed_geodesic2d_fastmarch(image: Tensor, seed: Tensor, lamb: float) -> Tensor:
    """First arrival from seed == 0 minus that from 1 - seed == 0."""
    return fastmarch(image, seed, PLANE, lamb).signed(seed)


def signed_geodesic3d_fastmarch(image: Tensor, seed: Tensor, spacing: Sequence[float], lamb: float) -> Tensor:
    """First arrival from seed == 0 minus that from 1 - seed == 0."""
    return fastmarch(image, seed, spacing, lamb).signed(seed)


def GSF2d(image: Tensor, softmask: Tensor, theta: float, v: float, lamb: float, iter: int) -> Tensor:
    """Geodesic symmetric filter (GeoS) of width ``theta``, by raster scans."""
    return raster("raster", image, softmask, PLANE, v, single(lamb), iter).symmetric(softmask, theta)


def GSF3d(
    image: Tensor, softmask: Tensor, theta: float, spacing: Sequence[float], v: float, lamb: float, iter: int
) -> Tensor:
    """Geodesic symmetric filter (GeoS) of width ``theta``, by raster scans."""
    return raster("raster", image, softmask, spacing, v, single(lamb), iter).symmetric(softmask, theta)


def GSF2d_toivanen(image: Tensor, softmask: Tensor, theta: float, v: float, lamb: float, iter: int) -> Tensor:
    """Geodesic symmetric filter (GeoS) of width ``theta``, by Toivanen's scans."""
    return raster("toivanen", image, softmask, PLANE, v, single(lamb), iter).symmetric(softmask, theta)


def GSF3d_toivanen(
    image: Tensor, softmask: Tensor, theta: float, spacing: Sequence[float], v: float, lamb: float, iter: int
) -> Tensor:
    """Geodesic symmetric filter (GeoS) of width ``theta``, by Toivanen's scans."""
    return raster("toivanen", image, softmask, spacing, v, single(lamb), iter).symmetric(softmask, theta)


def GSF2d_pixelqueue(image: Tensor, seed: Tensor, theta: float, lamb: float) -> Tensor:
    """Geodesic symmetric filter (GeoS) of width ``theta``, by shortest paths."""
    return pixelqueue(image, seed, PLANE, single(lamb)).symmetric(seed, theta)


def GSF3d_pixelqueue(image: Tensor, seed: Tensor, theta: float, spacing: Sequence[float], lamb: float) -> Tensor:
    """Geodesic symmetric filter (GeoS) of width ``theta``, by shortest paths."""
    return pixelqueue(image, seed, spacing, single(lamb)).symmetric(seed, theta)


def GSF2d_fastmarch(image: Tensor, seed: Tensor, theta: float, lamb: float) -> Tensor:
    """Geodesic symmetric filter (GeoS) of width ``theta``, by fast marching."""
    return fastmarch(image, seed, PLANE, single(lamb)).symmetric(seed, theta)


def GSF3d_fastmarch(image: Tensor, seed: Tensor, theta: float, spacing: Sequence[float], lamb: float) -> Tensor:
    """Geodesic symmetric filter (GeoS) of width ``theta``, by fast marching."""
    return fastmarch(image, seed, spacing, single(lamb)).symmetric(seed, theta)
