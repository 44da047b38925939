"""Memory read in plain NumPy, as the formula reads."""

from typing import Any

import numpy as np


def memory_read(q: Any, k: Any, v: Any, scale: float) -> tuple[Any, Any]:
    """(B, N, H, D') from (B, N, H, D), (B, M, H, D), (B, M, H, D'); the log of the sums of the weights, (B, H, N)."""
    logits = scale * np.einsum("bqhd,bkhd->bhqk", q.astype(np.float64), k)
    peak = logits.max(-1, keepdims=True)
    weight = np.exp(logits - peak)
    total = weight.sum(-1, keepdims=True)
    return np.einsum("bhqk,bkhd->bqhd", weight / total, v), (peak + np.log(total))[..., 0]


def memory_read_backward(
    grad: Any, q: Any, k: Any, v: Any, out: Any, log_weight: Any, scale: float
) -> tuple[Any, Any, Any]:
    """Of q, k and v, for a gradient of ``out``."""
    weight = np.exp(scale * np.einsum("bqhd,bkhd->bhqk", q.astype(np.float64), k) - log_weight[..., None])
    mean = np.einsum("bqhd,bqhd->bhq", grad, out)[..., None]
    slope = scale * weight * (np.einsum("bqhd,bkhd->bhqk", grad, v) - mean)  # of the logits
    of_keys, of_values = (np.einsum("bhqk,bqhd->bkhd", x, y) for x, y in ((slope, q), (weight, grad)))
    return np.einsum("bhqk,bkhd->bqhd", slope, k), of_keys, of_values
