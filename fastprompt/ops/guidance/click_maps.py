"""Maps of clicks, in the encodings that interactive segmentation uses."""

from typing import Any

from fastprompt.ops.guidance import operators
from fastprompt.ops.guidance.click_sets import (
    ClickEncoding,
    Normalization,
    Rounding,
    SigmaUnit,
    arguments,
    check_clicks,
    check_encoding,
    check_size,
)

__all__ = ["click_map"]


def click_map(
    points: Any,  # ([B,] N, 2), or a list of B arrays (N_b, 2)
    labels: Any = None,  # ([B,] N), or a list of B arrays (N_b)
    *,
    size: tuple[int, int],
    encoding: ClickEncoding = "disk",
    radius: Any = None,
    sigma: Any = None,
    sigma_unit: SigmaUnit | None = None,
    clip: float | None = None,
    normalize: Normalization | None = None,
    channels: Any = None,
    rounding: Rounding | None = None,
) -> Any:
    r"""The distance of every pixel to the nearest click, encoded: one pass, and no memory but the output.

    .. math:: d(p) = \min_n \sqrt{(x_p - x_n)^2 + (y_p - y_n)^2}

    ============ =================================================== ========================= ==========
    encoding     value                                               options                   no click
    ============ =================================================== ========================= ==========
    "disk"       1 where d² ≤ radius², else 0                        radius=5                  0
    "tanh"       tanh(2 d / radius)                                  radius=260                1
    "euclidean"  d; min(d, clip); min(d, clip) / clip                clip, normalize="clip"    inf; clip; 1
    "gaussian"   exp(-d² / (2 σ²)); with "fwhm" exp(-4 ln 2 d² / σ²) sigma=10, sigma_unit      0
    ============ =================================================== ========================= ==========

    All are monotone in d, so that the Gaussian is the largest of the clicks' Gaussians. Not differentiable by the
    clicks.

    Args:
        points: clicks (x, y) in pixels, where whole numbers are the centres of pixels; fractions count. Computed in
            float32. One that is not finite, or has **both** coordinates negative, is an empty slot; every other one
            counts, also outside the image. Sets of different size: a list of arrays, or padded.
        labels: integers, in any real dtype. None: all clicks are of one kind, and there is one channel.
        size: (height, width) of the maps.
        encoding, radius, sigma, clip: see the table. ``radius`` or ``sigma`` may be several numbers: so many maps for
            each channel, of the same distances.
        sigma_unit: "std"; "fwhm": sigma is the full width at half maximum, as in DEXTR; "relative": sigma is a fraction
            of the shorter side.
        normalize: "clip" divides by ``clip``; "minmax" stretches each map from its least and largest value to [0, 1],
            as MIDeepSeg does (no click: 1, of Gaussians 0).
        channels: which label each channel shows, default ``(1, 0)``: positive, negative. Clicks with any other label
            (-1, as SAM pads) are passed over.
        rounding: "ritm_cython" treats clicks as RITM's ``cpu_mode``: coordinates are rounded, half to even, and a slot
            is empty where the rounded **row** is negative.

    Returns:
        ``([B,] channels x numbers, H, W)`` float32; torch in, torch out. Disks and thresholds are those of RITM's torch
        path, bit for bit; tanh and Gaussians have an error below 3e-7 (before a stretch by "minmax").

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> fp.click_map([[1, 0], [4, 1]], [1, 0], size=(2, 5), radius=1)
        array([[[1., 1., 1., 0., 0.],
                [0., 1., 0., 0., 0.]],
        <BLANKLINE>
               [[0., 0., 0., 0., 1.],
                [0., 0., 0., 1., 1.]]], dtype=float32)

    Source: formulas of RITM (Sofiiuk et al., 2021), DIOS (Xu et al., 2016), DEXTR (Maninis et al., 2018), MIDeepSeg
    (Luo et al., 2021).
    """
    size = check_size(size)
    clicks = check_clicks(points, labels, channels, rounding)
    encoding_of = check_encoding(encoding, size, radius, sigma, sigma_unit, clip, normalize)
    out = operators.click_map(*arguments(clicks, encoding_of, size))
    return out if clicks.batched else out[0]
