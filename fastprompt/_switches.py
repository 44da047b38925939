"""Whether a drop-in computes, or its host."""

import contextlib
import contextvars
from collections.abc import Iterator

from fastprompt._runtime import REFERENCE, Anywhere, current_backend

_disabled: contextvars.ContextVar[bool] = contextvars.ContextVar("fastprompt_disabled", default=False)
OFF, EXPORTING = Anywhere(), Anywhere()


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Inside the block, accelerated modules take their host's path: for comparisons, and for exports of your own.

    It holds for this thread (this task), and in models of ``torch.compile`` for all threads: a compiled model is
    compiled once more, for the host's path, and has both from then on.
    """
    token = _disabled.set(True)
    OFF.add(1)
    try:
        yield
    finally:
        OFF.add(-1)
        _disabled.reset(token)


@contextlib.contextmanager
def exporting() -> Iterator[None]:
    """Inside the block, drop-ins are what is exported, whatever the switches say."""
    EXPORTING.add(1)
    try:
        yield
    finally:
        EXPORTING.add(-1)


def is_disabled() -> bool:
    """Inside :func:`disabled`; or of the backend "reference", which is the host itself here; or somebody else's export
    to ONNX, which knows none of our operators."""
    if is_compiling():
        return not EXPORTING.on and (OFF.on or REFERENCE.on or is_exported_to_onnx())
    return _disabled.get() or current_backend() == "reference"


def is_off() -> bool:
    """Inside :func:`disabled`."""
    return OFF.on and not EXPORTING.on if is_compiling() else _disabled.get()


def is_compiling() -> bool:
    import torch

    return torch.compiler.is_compiling()


def is_exported_to_onnx() -> bool:
    import torch

    return is_exporting() and torch.onnx.is_in_onnx_export()


def is_exporting() -> bool:
    """Inside torch.export."""
    import torch

    return hasattr(torch.compiler, "is_exporting") and torch.compiler.is_exporting()  # torch 2.7


__all__ = ["disabled", "exporting", "is_disabled", "is_off"]
