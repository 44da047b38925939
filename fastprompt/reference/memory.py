"""Memory read in plain NumPy, as the formula reads."""

from typing import Any

import numpy as np


def memory_read(q: Any, k: Any, v: Any, scale: float) -> Any:
    """(B, N, H, D') from (B, N, H, D), (B, M, H, D), (B, M, H, D')."""
    logits = scale * np.einsum("bqhd,bkhd->bhqk", q.astype(np.float64), k)
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    weight /= weight.sum(-1, keepdims=True)
    return np.einsum("bhqk,bkhd->bqhd", weight, v).astype(np.float32)
