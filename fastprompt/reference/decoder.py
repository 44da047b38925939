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
