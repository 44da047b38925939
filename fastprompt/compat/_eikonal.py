"""Fast marching for the ``*_fastmarch`` functions of FastGeodis. Not public."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastprompt import _C
from fastprompt.ops._checks import check_number
from fastprompt.ops.geodesic.grid import check_spacing


def eikonal_distance(image: Any, seeds: Any, *, lam: float, spacing: float | Sequence[float] = 1.0) -> Any:
    r"""Time at which a front that starts at the seeds first arrives at each pixel.

    .. math:: |\nabla T| = \lambda G + (1 - \lambda) + \sqrt{\epsilon}

    G is the mean over the spatial axes of :math:`|I(p + 1) - I(p)|`, summed over channels, with I = 0 behind the last
    pixel (FastGeodis' definition: the last row and column see their own brightness), ε that of float32.

    Args:
        image: ``(C, [D,] H, W)``, read as float32. A NaN pixel is never entered and starts nothing: +inf.
        seeds: ``([D,] H, W)``, non-zero = seed.
        lam: weight λ in [0, 1] of the gradient.
        spacing: pixel size, a number or one per spatial axis.

    Returns:
        float32 ``([D,] H, W)``, never negative; +inf where no front arrives, so everywhere without a seed.

    Raises:
        ValueError: shapes that do not match, λ or a spacing out of range.
    """
    image, seeds = np.require(image, np.float32, "A"), np.asarray(seeds) != 0
    dims = seeds.ndim
    if dims not in (2, 3) or image.shape[1:] != seeds.shape:
        raise ValueError(f"image must be (C, *{seeds.shape}) for 2-D or 3-D seeds {seeds.shape}, got {image.shape}")
    lam, sizes = check_number("lam", lam, 0.0, 1.0), check_spacing(spacing, dims, dims)
    if dims == 2:
        image, seeds, sizes = image[:, None], seeds[None], (1.0, *sizes)
    image, seeds = image[None], seeds[None, None]
    out = np.empty(seeds.shape, np.float32)
    _C.geodesic_eikonal(image=image, seeds=seeds, volume=dims == 3, lam=lam, spacing=sizes, out=out)
    return out[0, 0] if dims == 3 else out[0, 0, 0]
