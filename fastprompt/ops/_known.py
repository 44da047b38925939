"""All operators, by name: each adds itself."""

from collections.abc import Callable
from typing import Any

OPERATORS: dict[str, Any] = {}  # of Operator
REGISTER: list[Callable[[Any], None]] = []  # with torch, once a tensor has come: of families that are imported later


def add(operator: Any) -> None:
    OPERATORS[operator.name] = operator
    for register in REGISTER:
        register(operator)


__all__ = ["OPERATORS", "REGISTER", "add"]
