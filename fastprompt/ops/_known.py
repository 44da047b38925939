"""All operators, by name: each adds itself."""

from typing import Any

OPERATORS: dict[str, Any] = {}  # of Operator

__all__ = ["OPERATORS"]
