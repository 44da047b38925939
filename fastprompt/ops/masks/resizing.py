"""Masks of an image's size from low-resolution logits."""

import math
from typing import Any, Literal, NamedTuple

from fastprompt._choices import choice
from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array, device_floats
from fastprompt.ops._checks import check_devices, check_number, check_size
from fastprompt.ops.masks.operators import DTYPES
from fastprompt.ops.masks.operators import resize_masks as operator

__all__ = ["ResizedMasks", "resize_masks"]


class ResizedMasks(NamedTuple):
    """Masks and what SAM's tools ask of them; every field has the leading axes of the logits."""

    masks: Any  # (..., H, W), or (..., H, ceil(W / 8)) packed
    area: Any  # int64, pixels over the threshold
    box: Any  # int64, (..., 4): x0, y0, x1, y1 of these pixels, inclusive; zeros without any
    stability: Any  # float32: pixels over threshold + offset by pixels over threshold - offset; NaN for 0 / 0


def resize_masks(
    logits: Any,  # (..., h, w)
    size: tuple[int, int],
    *,
    frame: tuple[int, int] | None = None,
    crop: tuple[int, int] | None = None,
    threshold: float = 0.0,
    output: Literal["float32", "bool", "uint8", "packed"] = "bool",
    stability_offset: float = 1.0,
) -> ResizedMasks:
    r"""Masks of an image's size from low-resolution logits, with area, box and stability score, in one pass.

    Bilinear as ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``, then ``> threshold``. With
    ``frame``, SAM's post-processing: to the square that the network saw, without its padding, to the image: both
    steps become one, and the logits are never written at full size.

    Args:
        logits: float32, float16 or bfloat16, any number of leading axes.
        size: (H, W) of the result.
        frame: (height, width) of the padded network input, e.g. (1024, 1024).
        crop: (height, width) in it that the image takes, from the top left; default all of it.
        threshold: a pixel over it is in the mask.
        output: "bool", "uint8" (0 and 1), "packed" (8 pixels in a byte, lowest bit first) or "float32" (the logits).
        stability_offset: of the stability score; segment-anything's is 1.

    Returns:
        :class:`ResizedMasks`; torch in, torch out. No gradient.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> logits = np.array([[[-1.0, 1.0], [-1.0, 1.0]]])
        >>> masks, area, box, stability = fp.resize_masks(logits, (4, 4))
        >>> masks[0, 0], area, box
        (array([False, False,  True,  True]), array([8]), array([[2, 0, 3, 3]]))

    Source: segment-anything's ``Sam.postprocess_masks``, ``calculate_stability_score`` and ``batched_mask_to_box``.
    """
    logits = as_array("logits", logits)
    check_devices(logits=logits)
    if logits.ndim < 2 or 0 in tuple(logits.shape[-2:]):
        raise ValueError(f"logits must be (..., h, w) and not empty there, got shape {tuple(logits.shape)}")
    sizes = [check_size(n, x, k) for n, x, k in (("size", size, 0), ("frame", frame, 1), ("crop", crop, 1))]
    if crop is not None and (frame is None or any(c > f for c, f in zip(crop, frame, strict=True))):
        raise ValueError(f"crop must lie in frame {frame}, got {crop}")
    choice("output", output, DTYPES)
    threshold = check_number("threshold", threshold, -math.inf, math.inf)
    offset = check_number("stability_offset", stability_offset, 0.0, math.inf)
    if is_tensor(logits) and logits.requires_grad:
        import torch

        if torch.is_grad_enabled():
            raise ValueError("logits must not require a gradient, which masks have not: call logits.detach()")
    flat = device_floats(logits).reshape(-1, *logits.shape[-2:])
    found = operator(flat, *(list(s) for s in sizes), threshold, output, offset)
    lead = tuple(logits.shape[:-2])
    return ResizedMasks(*(x.reshape((*lead, *x.shape[1:])) for x in found))
