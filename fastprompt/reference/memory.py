"""Memory read in plain NumPy, as the formula reads."""

from typing import Any

import numpy as np

from fastprompt.reference.attention import linear


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


# ---------------------------------------------------------------- with rotary positions


def turned_memory_read(
    q: Any, k: Any, v: Any, cos: Any, sin: Any, key_cos: Any, key_sin: Any, unturned: int, scale: float
) -> Any:
    """The rows of ``key_cos`` and ``key_sin`` count again and again for keys, but for the last ``unturned``."""
    turned = k.shape[1] - unturned
    times = turned // len(key_cos) if turned else 0
    head = turn(k[:, :turned], np.tile(key_cos, (times, 1)), np.tile(key_sin, (times, 1)))
    return memory_read(turn(q, cos, sin), np.concatenate([head, k[:, turned:]], 1), v, scale)[0]


def turn(x: Any, cos: Any, sin: Any) -> Any:
    """The pairs (2 i, 2 i + 1) of (B, N, H, D) by the angles of (N, D)."""
    swapped = np.empty_like(x)
    swapped[..., 0::2], swapped[..., 1::2] = -x[..., 1::2], x[..., 0::2]
    return x * cos[:, None] + swapped * sin[:, None]


def projected_memory_read(
    q: Any, source: Any, value: Any, layer: Any, cos: Any, sin: Any, key_cos: Any, key_sin: Any, size: Any,
    unturned: int, scale: float,
) -> Any:  # fmt: skip
    """With one head, and keys W s + b."""
    key, value = linear(source, *layer)[:, :, None], value[:, :, None]
    return turned_memory_read(q[:, :, None], key, value, cos, sin, key_cos, key_sin, unturned, scale)[:, :, 0]
