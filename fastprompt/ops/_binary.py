"""Masks of any dtype on their way to the kernels of metrics and clicks."""

import math
from typing import Any

import numpy as np

from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import dtype_name
from fastprompt.ops._checks import check_number


def contiguous(x: Any) -> Any:
    return x.detach().contiguous() if is_tensor(x) else np.ascontiguousarray(x)


def prediction(pred: Any, threshold: float | None, name: str = "pred") -> tuple[Any, float]:
    """Masks that the kernels read, contiguous bool, uint8 or float32, and the threshold of the latter."""
    kind = dtype_name(pred)
    if threshold is None:
        if "float" in kind:
            raise ValueError(f"{name} holds {kind}: say threshold=..., 0.0 for logits, 0.5 for probabilities")
        return contiguous(pred if kind in ("bool", "uint8") else pred != 0), 0.0
    bound = check_number("threshold", threshold, -math.inf, math.inf)
    if kind in ("float32", "float16", "bfloat16"):
        single = pred.float() if is_tensor(pred) else np.asarray(pred, np.float32)
        return contiguous(single), bound
    return contiguous(pred > bound), 0.0


def labelled(target: Any, ignore: int | None) -> tuple[Any, int]:
    """Targets that the kernels read, contiguous bool or uint8, and the value of an ignored pixel there, or -1."""
    kind = dtype_name(target)
    if ignore is not None and (isinstance(ignore, bool) or not isinstance(ignore, (int, np.integer))):
        raise TypeError(f"ignore must be an int or None, got {ignore!r}")
    if kind in ("bool", "uint8") and (ignore is None or kind == "bool" or not 0 <= ignore < 256):
        return contiguous(target), -1
    if kind == "uint8":
        return contiguous(target), int(ignore)  # type: ignore[arg-type]
    inside = (target != 0) & (target == target)
    if ignore is None:
        return contiguous(inside), -1
    if is_tensor(target):
        return inside.byte().masked_fill_(target == ignore, 255), 255
    return np.where(target == ignore, np.uint8(255), inside).astype(np.uint8), 255
