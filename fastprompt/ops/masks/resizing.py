"""Masks of an image's size from low-resolution logits."""

import math
from typing import Any, NamedTuple

import numpy as np

from fastprompt import _C
from fastprompt._runtime import current_backend, get_num_threads, is_tensor
from fastprompt.ops._arrays import address, as_array
from fastprompt.ops._checks import check_devices, check_number, check_size
from fastprompt.ops.decoder.head import floats
from fastprompt.ops.masks.taps import taps

__all__ = ["ResizedMasks", "resize_masks"]


class ResizedMasks(NamedTuple):
    """Masks and what SAM's tools ask of them; every field has the leading axes of the logits."""

    masks: Any  # (..., H, W), or (..., H, ceil(W / 8)) packed
    area: Any  # int64, pixels over the threshold
    box: Any  # int64, (..., 4): x0, y0, x1, y1 of these pixels, inclusive; zeros without any
    stability: Any  # float32: pixels over threshold + offset by pixels over threshold - offset; NaN for 0 / 0


OUTPUTS = {"float32": (0, "float32"), "bool": (1, "bool"), "uint8": (1, "uint8"), "packed": (2, "uint8")}


def resize_masks(
    logits: Any,  # (..., h, w)
    size: tuple[int, int],
    *,
    frame: tuple[int, int] | None = None,
    crop: tuple[int, int] | None = None,
    threshold: float = 0.0,
    output: str = "bool",
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
    if output not in OUTPUTS:
        raise ValueError(f"output must be one of {', '.join(OUTPUTS)}, got {output!r}")
    threshold = check_number("threshold", threshold, -math.inf, math.inf)
    offset = check_number("stability_offset", stability_offset, 0.0, math.inf)
    flat = floats(logits).reshape(-1, *logits.shape[-2:])
    arguments: tuple[Any, ...] = (*(list(s) for s in sizes), threshold, output, offset)
    if is_tensor(logits):
        from fastprompt.ops.masks import operators as _torch_masks

        found = _torch_masks.resize(flat, *arguments)
    else:
        found = resized(flat, *arguments)
    lead = tuple(logits.shape[:-2])
    return ResizedMasks(*(x.reshape((*lead, *x.shape[1:])) for x in found))


def resized(logits: Any, size: Any, frame: Any, crop: Any, threshold: float, output: str, offset: float) -> Any:
    """(masks, area, box, stability) of contiguous float32 logits (M, h, w), NumPy or torch."""
    host = logits.numpy() if is_tensor(logits) else logits
    kind, dtype = OUTPUTS[output]
    width = (size[1] + 7) // 8 if output == "packed" else size[1]
    out, facts = np.empty((len(host), size[0], width), dtype), np.zeros((len(host), 7), np.int64)
    if current_backend() == "reference":
        from fastprompt.reference import masks as reference

        full = reference.resize(host.astype(np.float64), size, frame or None, crop or None).astype(np.float32)
        out[:], facts[:] = reference.facts(full, threshold, offset, output)
    elif len(host):
        axes = []
        for k in (0, 1):
            index, weight = taps(host.shape[1 + k], frame[k] if frame else None, crop[k] if crop else None, size[k])
            axes.append((size[k], len(index), address(index), address(weight)))
        numbers = (threshold, offset, kind, address(out), address(facts), get_num_threads())
        _C.resize_masks(host.shape, address(host), *axes, *numbers)
    with np.errstate(invalid="ignore"):
        stability = (facts[:, 1] / facts[:, 2].astype(np.float64)).astype(np.float32)
    found = (out, facts[:, 0].copy(), facts[:, 3:].copy(), stability)
    if is_tensor(logits):
        import torch

        return tuple(torch.from_numpy(x) for x in found)
    return found
