"""Options that take one of a few words."""

import numbers
from collections.abc import Iterable
from typing import Any


def choice(name: str, value: Any, known: Iterable[Any], hint: str = "") -> Any:
    """``value``, which is one of ``known``; else a ValueError that names all. A list or an array is none of them."""
    words = tuple(known)
    plain = value is None or (isinstance(value, (str, numbers.Integral)) and not isinstance(value, bool))
    if not plain or value not in words:
        raise ValueError(f"{name} must be one of {', '.join(map(str, words))}{hint}, got {value!r}")
    return value
