"""Hosts that are repositories to fork, not packages: a class is known by its attributes and the arguments it takes."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any


def another_class(
    module: Any, attributes: Iterable[str], method: Callable[..., Any], arguments: list[str]
) -> str | None:
    """Why ``module`` is not what its name says; None: it is."""
    for name in attributes:
        if not hasattr(module, name):
            return f"it is another class of that name: it has no {name}"
    if list(inspect.signature(method).parameters)[1:] != arguments:
        return "it is another class of that name: forward takes other arguments"
    return None
