"""The host's path, which calls take that a drop-in does not cover; why is said once."""

import warnings
from typing import Any

import torch

from fastprompt._switches import is_disabled
from fastprompt.nn.parts.transforms import transformed


def falls_back(module: Any, reason: str | None) -> bool:
    """Whether a call takes the host's path; the reason is said once."""
    if is_disabled():
        return True
    reason = reason or transformed()
    if reason:
        say_once(f"fastprompt: {type(module).__name__} takes the host's path: {reason}")
    return reason is not None


_said: set[str] = set()


def say_once(text: str) -> None:
    if text not in _said and not torch.compiler.is_compiling():  # a warning would break the graph
        _said.add(text)
        warnings.warn(text, stacklevel=4)


__all__ = ["falls_back", "say_once"]
