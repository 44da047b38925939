"""Checks of arguments that several families share."""

from typing import Any

import numpy as np


def check_number(name: str, value: Any, low: float, high: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not low <= number <= high:  # NaN too
        raise ValueError(f"{name} must be between {low:g} and {high:g}, got {value!r}")
    return number


def check_devices(**arrays: Any) -> None:
    """All NumPy arrays, or all torch tensors on one device that has a kernel."""
    for x in arrays.values():
        if x is not None and not getattr(x, "is_cpu", False):
            break
    else:
        return  # 5 us less for tensors
    given = {name: x for name, x in arrays.items() if x is not None}
    kinds = {name: str(getattr(x, "device", "cpu")) if hasattr(x, "layout") else "numpy" for name, x in given.items()}
    first, kind = next(iter(kinds.items()))
    for name, other in kinds.items():
        if (other == "numpy") != (kind == "numpy"):
            raise TypeError(f"{first} and {name} must both be NumPy arrays or both torch tensors")
        if other != kind:
            raise ValueError(f"{name} must be on the device of {first} ({kind}), got {other}")
    if kind.partition(":")[0] not in ("numpy", "cpu", "meta", "cuda"):
        raise ValueError(f"{first} is on {kind}: there is no kernel for that device; call {first}.cpu()")


def check_size(name: str, size: Any, optional: int) -> tuple[int, ...]:
    """Two positive integers; () for None where that may be."""
    if size is None and optional:
        return ()
    numbers = tuple(size) if isinstance(size, (tuple, list)) else ()
    if len(numbers) != 2 or not all(isinstance(n, (int, np.integer)) and n > 0 for n in numbers):
        raise ValueError(f"{name} must be two positive integers (height, width), got {size!r}")
    return tuple(int(n) for n in numbers)
