"""Means of a feature map over masks: the prototypes of few-shot segmentation."""

import math
from typing import Any, Literal, NamedTuple

import numpy as np

from fastprompt._choices import choice
from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array, contiguous, dtype_name, in_dtype_of, kernel_floats, plain_floats
from fastprompt.ops._checks import check_devices, check_number
from fastprompt.ops.pooling.call import RESIZES, Resize
from fastprompt.ops.pooling.operators import masked_pool

__all__ = ["masked_average_pool"]


Preset = Literal["panet", "sgone", "pfenet", "persam", "matcher"]
Empty = Literal["zero", "nan", "centre"]


class Pooling(NamedTuple):
    resize: Resize = "features"
    align_corners: bool = False
    threshold: float | None = None
    eps: float = 0.0
    empty: Empty = "zero"
    normalize: bool = False


PRESETS = {
    "panet": Pooling(eps=1e-5),
    "sgone": Pooling(empty="nan"),
    "pfenet": Pooling("mask", align_corners=True, eps=5e-4),
    "persam": Pooling("mask", threshold=0.0, empty="nan", normalize=True),
    "matcher": Pooling("average", threshold=0.0, empty="centre"),
}
EMPTY = {"zero": 0.0, "nan": math.nan, "centre": 0.0}


def masked_average_pool(
    features: Any,  # ([B, [K,]] C, h, w)
    mask: Any,  # ([B, [K,]] [M,] H, W)
    *,
    preset: Preset | None = None,
    resize: Resize | None = None,
    align_corners: bool | None = None,
    threshold: float | None = None,
    eps: float | None = None,
    empty: Empty | None = None,
    normalize: bool | None = None,
    background: bool = False,
) -> Any:
    r"""Means of a feature map over masks, which may be larger than it: the prototypes of few-shot segmentation.

    .. math:: f_m = \frac{\sum_{x} F_x \, M_{mx}}{\sum_{x} M_{mx} + \varepsilon}

    Two definitions are in use, and they differ by some hundredths of the features' standard deviation:

    =========== =====================================================================================================
    "features"  the features are enlarged to the mask, bilinearly. They are not: enlarging is linear, so the mask is
                splatted with the adjoint of it onto the features' grid, the same number with a 64th of the work
    "mask"      the mask is resized to the features, bilinearly, without antialiasing
    "average"   the mask is averaged over the patches of the features, whose size divides the mask's
    =========== =====================================================================================================

    ========= ========== ============= ========= ==== ======================== =========================
    preset    resize     align_corners threshold eps  empty mask               notes
    ========= ========== ============= ========= ==== ======================== =========================
    "panet"   "features" no                      1e-5 0
    "sgone"   "features" no                      0    NaN
    "pfenet"  "mask"     yes                     5e-4 0                        Weighted_GAP
    "persam"  "mask"     no            0         0    NaN                      then of length 1
    "matcher" "average"            0         0    the middle 14 x 14 pixels
    ========= ========== ============= ========= ==== ======================== =========================

    Args:
        features: K shots of B images, whose means are averaged. float32; float16 and bfloat16 are converted, on a GPU
            as they are read.
        mask: M masks on a map: bool, uint8 or any numbers from 0 to 1. Numbers are weights as they are: 255 weighs 255.
        preset: defaults of the others, from the table; without one: "features", no, no threshold, 0, "zero".
        resize, align_corners: see above; ``align_corners`` as in ``torch.nn.functional.interpolate``.
        threshold: weights on the features' grid over it become 1, the others 0.
        eps: added to the area.
        empty: the mean of a mask without any weight: "zero", "nan", or "centre": its middle 14 x 14 pixels count.
        normalize: divide every mean by its length.
        background: also the means over 1 - mask.

    Returns:
        ([B,] [M,] C) in the dtype of ``features``, or with ``background`` two of them, foreground and background; torch
        in, torch out. Differentiable by features and soft masks. Features where the mask has no weight are left out,
        even if they are not finite.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> features, mask = np.ones((8, 4, 4), np.float32), np.eye(32) > 0
        >>> fp.masked_average_pool(features, mask, preset="panet").shape
        (8,)

    Source: Wang et al., PANet, 2019; Zhang et al., SG-One, 2018; Tian et al., PFENet, 2020; Zhang et al., PerSAM, 2023;
    Liu et al., Matcher, 2023. Formulas only.
    """
    features, mask = as_array("features", features), as_array("mask", mask)
    check_devices(features=features, mask=mask)
    how = settings(preset, resize, align_corners, threshold, eps, empty, normalize)
    lead, single = check_shapes(features, mask, how.resize)
    images, masks = math.prod(lead), 1 if single else mask.shape[-3]
    mask = plain_mask(mask)
    x = contiguous(kernel_floats(features, mask)[0]).reshape(images, *features.shape[-3:])
    m = mask.reshape(images, masks, *mask.shape[-2:])
    if how.empty == "centre":
        m = with_centre(m)
    options = (RESIZES.index(how.resize), how.align_corners, bool(background), how.threshold, how.eps, EMPTY[how.empty])
    out = masked_pool(x, m, *options)
    if len(lead) == 2:  # shots
        out = out.reshape(*lead, *out.shape[1:]).mean(1)
    if how.normalize:
        out = out / (out * out).sum(-1)[..., None] ** 0.5
    out = in_dtype_of(out, features)
    pair = [out[:, :masks], out[:, masks:]] if background else [out]
    found = [(p if lead else p[0]) for p in pair]
    found = [p[0] if single else p for p in found]
    return tuple(found) if background else found[0]


def settings(
    preset: Any, resize: Any, align_corners: Any, threshold: Any, eps: Any, empty: Any, normalize: Any
) -> Pooling:
    choice("preset", preset, (*PRESETS, None))
    given = zip(Pooling._fields, (resize, align_corners, threshold, eps, empty, normalize), strict=True)
    how = (PRESETS[preset] if preset else Pooling())._replace(**{k: v for k, v in given if v is not None})
    choice("resize", how.resize, RESIZES)
    choice("empty", how.empty, EMPTY)
    level = None if how.threshold is None else check_number("threshold", how.threshold, -math.inf, math.inf)
    return how._replace(
        threshold=level, eps=check_number("eps", how.eps, 0.0, math.inf), align_corners=bool(how.align_corners)
    )


def check_shapes(features: Any, mask: Any, resize: str) -> tuple[tuple[int, ...], bool]:
    """The leading axes of the features, and whether there is one mask without an axis."""
    if features.ndim not in (3, 4, 5) or 0 in tuple(features.shape[-2:]):
        raise ValueError(f"features must be ([B, [K,]] C, h, w), got shape {tuple(features.shape)}")
    lead = tuple(features.shape[:-3])
    single = not lead and mask.ndim == 2
    if not single and (mask.ndim != len(lead) + 3 or tuple(mask.shape[: len(lead)]) != lead):
        axes = ", ".join([*map(str, lead), "M", "H", "W"]) if lead else "[M,] H, W"
        raise ValueError(f"mask must be ({axes}), got shape {tuple(mask.shape)}")
    if 0 in tuple(mask.shape[-2:]):
        raise ValueError(f"mask must have pixels, got shape {tuple(mask.shape)}")
    if len(lead) == 2 and lead[1] == 0:
        raise ValueError("features must have at least one shot")
    if resize == "average" and any(n % k for n, k in zip(mask.shape[-2:], features.shape[-2:], strict=True)):
        size = tuple(features.shape[-2:])
        raise ValueError(f"mask must have a multiple of the features' size {size}, got {tuple(mask.shape[-2:])}")
    return lead, single


def plain_mask(mask: Any) -> Any:
    """uint8 or float32, contiguous."""
    if dtype_name(mask) not in ("bool", "uint8"):
        return plain_floats(mask)
    if not is_tensor(mask):
        return contiguous(mask).view(np.uint8)
    import torch

    return mask.contiguous().view(torch.uint8)


def with_centre(mask: Any) -> Any:
    """Masks without a set pixel get the 14 x 14 in the middle."""
    nothing = ~(mask != 0).any(-1).any(-1)
    if not is_tensor(mask) and not nothing.any():
        return mask
    y, x = (n // 2 for n in mask.shape[-2:])
    square = mask.new_zeros(mask.shape[-2:]) if is_tensor(mask) else np.zeros(mask.shape[-2:], mask.dtype)
    square[max(0, y - 7) : y + 7, max(0, x - 7) : x + 7] = 1
    empty = nothing[..., None, None]
    return mask.where(~empty, square) if is_tensor(mask) else np.where(empty, square, mask)
