"""Masks of an image's size in plain NumPy, as the formulas read."""

from typing import Any

import numpy as np


def bilinear(inputs: int, outputs: int, single: bool) -> Any:
    """(outputs, inputs): output n looks at (n + 1/2) inputs / outputs - 1/2, clamped to the first and last input.
    ``single``: the ratio and the place are rounded to float32."""
    middle, ratio = np.arange(outputs) + 0.5, inputs / outputs
    at = (middle * np.float64(np.float32(ratio)) - 0.5).astype(np.float32) if single else middle * ratio - 0.5
    at = np.clip(at.astype(np.float64), 0, inputs - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(inputs)))


def axis(inputs: int, frame: int | None, crop: int | None, outputs: int, single: bool) -> Any:
    """One axis of :func:`resize`: to the frame, without its padding, to the size."""
    if frame is None:
        return bilinear(inputs, outputs, single)
    crop = frame if crop is None else crop
    return bilinear(crop, outputs, single) @ bilinear(inputs, frame, single)[:crop]


def resize(logits: Any, size: Any, frame: Any, crop: Any, single: bool = False) -> Any:
    rows, columns = (axis(logits.shape[1 + k], frame and frame[k], crop and crop[k], size[k], single) for k in (0, 1))
    return np.einsum("yh,mhw,xw->myx", rows, logits, columns)


def facts(logits: Any, threshold: float, offset: float, output: str) -> tuple[Any, Any]:
    """The output, and area, pixels over threshold + offset, over threshold - offset, x0, y0, x1, y1 of every mask."""
    masks = logits > threshold
    numbers = np.zeros((len(logits), 7), np.int64)
    for m, mask in enumerate(masks):
        counts = mask.sum(), (logits[m] > threshold + offset).sum(), (logits[m] > threshold - offset).sum()
        y, x = np.nonzero(mask)
        numbers[m] = (*counts, *((x.min(), y.min(), x.max(), y.max()) if len(x) else (0, 0, 0, 0)))
    if output == "packed":
        return np.packbits(masks, axis=-1, bitorder="little"), numbers
    return (logits if output == "float32" else masks), numbers


def resize_masks(
    logits: Any, size: Any, frame: Any, crop: Any, threshold: float, output: str, offset: float
) -> tuple[Any, Any, Any, Any]:
    """Masks, area, box and stability of logits (M, h, w)."""
    full = resize(logits.astype(np.float64), size, frame or None, crop or None).astype(np.float32)
    masks, numbers = facts(full, threshold, offset, output)
    with np.errstate(invalid="ignore"):
        stability = numbers[:, 1] / numbers[:, 2].astype(np.float64)
    return masks, numbers[:, 0], numbers[:, 3:], stability


def resize_logits(logits: Any, size: Any, frame: Any, crop: Any) -> Any:
    """Logits (M, h, w) at the places that torch rounds to."""
    return resize(logits.astype(np.float64), size, frame or None, crop or None, single=True)
