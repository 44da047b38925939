"""SAM's mask head and token MLPs in plain NumPy, as the formulas read."""

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


def mask_head(image: Any, vectors: Any, weights: Any, eps: float, detail: Any) -> Any:
    conv1, bias1, norm_weight, norm_bias, conv2, bias2 = weights
    x = transposed_convolution(image, conv1, bias1)
    if detail is not None:
        x = x + np.repeat(detail[0], len(x) // len(detail[0]), 0)
    centred = x - x.mean(1, keepdims=True)
    x = centred / np.sqrt((centred**2).mean(1, keepdims=True) + eps)
    x = gelu(x * norm_weight[:, None, None] + norm_bias[:, None, None])
    x = transposed_convolution(x, conv2, bias2)
    if detail is not None:
        x = x + np.repeat(detail[1], len(x) // len(detail[1]), 0)
    return np.einsum("bmd,bdyx->bmyx", vectors, gelu(x))


def token_mlps(tokens: Any, rows: Any, weights: Any, layers: int) -> list[Any]:
    """Of each row of the tokens (B, T, C): its own ``layers`` linear layers, with ReLU between them."""
    found = []
    for k, row in enumerate(rows):
        x = tokens[:, row]
        for n in range(layers * k, layers * (k + 1)):
            x = (x if n == layers * k else np.maximum(x, 0)) @ weights[2 * n].T + weights[2 * n + 1]
        found.append(x)
    return found
