"""SAM's mask head in plain NumPy, as the formulas read."""

import math
from typing import Any

import numpy as np

erf = np.vectorize(math.erf, otypes=[float])


def gelu(x: Any) -> Any:
    return x * 0.5 * (1 + erf(x / math.sqrt(2)))


def transposed_convolution(x: Any, weight: Any, bias: Any) -> Any:
    """(B, C, H, W) to (B, D, 2 H, 2 W), kernel 2 x 2 and stride 2: every pixel becomes four of its own."""
    b, _, h, w = x.shape
    pixels = np.einsum("bcyx,cdst->bdysxt", x, weight)
    return pixels.reshape(b, weight.shape[1], 2 * h, 2 * w) + bias[:, None, None]


def mask_head(image: Any, vectors: Any, w: Any, eps: float, detail: Any) -> Any:
    x = transposed_convolution(image, w.conv1_weight, w.conv1_bias)
    if detail is not None:
        x = x + np.repeat(detail[0], len(x) // len(detail[0]), 0)
    centred = x - x.mean(1, keepdims=True)
    x = centred / np.sqrt((centred**2).mean(1, keepdims=True) + eps)
    x = gelu(x * w.norm_weight[:, None, None] + w.norm_bias[:, None, None])
    x = transposed_convolution(x, w.conv2_weight, w.conv2_bias)
    if detail is not None:
        x = x + np.repeat(detail[1], len(x) // len(detail[1]), 0)
    return np.einsum("bmd,bdyx->bmyx", vectors, gelu(x))


def bilinear(inputs: int, outputs: int) -> Any:
    """(outputs, inputs): output n looks at (n + 1/2) inputs / outputs - 1/2, clamped to the first and last input."""
    at = np.clip((np.arange(outputs) + 0.5) * inputs / outputs - 0.5, 0, inputs - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(inputs)))


def axis(inputs: int, frame: int | None, crop: int | None, outputs: int) -> Any:
    """One axis of :func:`resize`: to the frame, without its padding, to the size."""
    if frame is None:
        return bilinear(inputs, outputs)
    crop = frame if crop is None else crop
    return bilinear(crop, outputs) @ bilinear(inputs, frame)[:crop]


def resize(logits: Any, size: Any, frame: Any, crop: Any) -> Any:
    rows, columns = (axis(logits.shape[1 + k], frame and frame[k], crop and crop[k], size[k]) for k in (0, 1))
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
