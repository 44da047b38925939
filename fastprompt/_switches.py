"""Whether a drop-in computes, or its host."""

import contextlib
import contextvars
from collections.abc import Iterator

from fastprompt._runtime import current_backend

_disabled: contextvars.ContextVar[bool] = contextvars.ContextVar("fastprompt_disabled", default=False)


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Inside the block, accelerated modules take their host's path: for comparisons."""
    token = _disabled.set(True)
    try:
        yield
    finally:
        _disabled.reset(token)


def is_disabled() -> bool:
    """Inside :func:`disabled`, or of the backend "reference", which is the host itself here."""
    return is_off() or (not is_compiling() and current_backend() == "reference")


def is_off() -> bool:
    """Inside :func:`disabled`."""
    return not is_compiling() and _disabled.get()


def is_compiling() -> bool:
    import torch

    return torch.compiler.is_compiling()


__all__ = ["disabled", "is_disabled", "is_off"]
