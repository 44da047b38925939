"""What every operator shares at run time: threads, the choice of backend, the kind of array that came in."""

import contextlib
import contextvars
import functools
import numbers
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, Literal, get_args

from fastprompt._choices import choice
from fastprompt._cores import cores

Backend = Literal["auto", "cpu", "cuda", "triton", "reference"]
BACKENDS = get_args(Backend)


class Anywhere:
    """Whether any thread is inside of a kind of block. torch.compile traces no ContextVar; of a plain attribute it
    remembers what it saw, and compiles again when that has changed."""

    def __init__(self, count: int = 0) -> None:
        self._count, self._lock = count, threading.Lock()
        self.on = count > 0

    def add(self, count: int) -> None:
        with self._lock:
            self._count += count
            self.on = self._count > 0


_threads: int | None = None
_backend: contextvars.ContextVar[str | None] = contextvars.ContextVar("fastprompt_backend", default=None)
REFERENCE = Anywhere(os.environ.get("FASTPROMPT_BACKEND") == "reference")


def set_num_threads(threads: int | None) -> None:
    """Use at most ``threads`` threads in every operator; ``None`` follows torch, or the environment, again.

    >>> import fastprompt as fp
    >>> fp.set_num_threads(1); fp.get_num_threads()
    1
    >>> fp.set_num_threads(None)
    """
    global _threads
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, numbers.Integral) or threads < 1):
        raise ValueError(f"threads must be a positive int or None, got {threads!r}")
    _threads = None if threads is None else int(threads)


def get_num_threads() -> int:
    """Threads that an operator uses now: what ``set_num_threads`` said, else ``torch.get_num_threads()`` where torch is
    loaded, else ``OMP_NUM_THREADS``, else the cores that this process may run on: those of its affinity, or fewer where
    its container has a quota."""
    if _threads is not None:
        return _threads
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        return int(torch.get_num_threads())
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list: a number for each level
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return cores()


def release_memory() -> int:
    """Gives the working memory that kernels keep for their next call back to the system; returns how many bytes.

    Every thread keeps some, those that are idle too; all together at most 256 MiB. The next call of each kernel takes
    its memory anew, which costs about as much as the first call did. Safe at any time, from any thread.

    >>> import fastprompt as fp
    >>> d = fp.geodesic_distance([[0.0, 1.0]], [[1, 0]], method="raster")
    >>> fp.release_memory() > 0, fp.release_memory()
    (True, 0)
    """
    from fastprompt import _C

    return int(_C.release_memory())


def matmul_precision() -> int:
    """0, 1, 2 for "highest", "high", "medium" of ``torch.set_float32_matmul_precision``, in the kernels' order; under
    autocast to bfloat16, "medium"."""
    torch = sys.modules.get("torch")
    if torch is None:
        return 0
    if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16:
        return 2
    return ("highest", "high", "medium").index(torch.get_float32_matmul_precision())


def current_backend() -> str:
    """The backend in force: that of the innermost ``with backend(...)``, else ``FASTPROMPT_BACKEND``, else "auto"."""
    name = _backend.get()  # known
    return name if name is not None else backend_of_environment()


@functools.cache
def backend_of_environment() -> str:
    """Looked up at the first call: 1 us, of 20 that a small one takes."""
    return _known(os.environ.get("FASTPROMPT_BACKEND") or "auto")


@contextlib.contextmanager
def backend(name: Backend) -> Iterator[None]:
    """Force a backend inside the block: ``"cpu"``, ``"cuda"``, ``"triton"`` (compiled kernels; one that is off says
    why), ``"reference"`` (plain NumPy, for tensors as well), ``"auto"``: that of the device where the arrays are.

    >>> import fastprompt as fp
    >>> with fp.backend("reference"):
    ...     d = fp.geodesic_distance([[0.0, 1.0]], [[1, 0]])
    """
    before = _backend.get() or os.environ.get("FASTPROMPT_BACKEND")
    token, change = _backend.set(_known(name)), (name == "reference") - (before == "reference")
    REFERENCE.add(change)
    try:
        yield
    finally:
        REFERENCE.add(-change)
        _backend.reset(token)


def _known(name: str) -> str:
    choice("backend", name, BACKENDS)
    if name in ("cuda", "triton"):
        from fastprompt import _gpu

        why = _gpu.reason(name)
        if why is not None:
            raise ValueError(f"backend {name!r} is off: {why}; {_gpu.fix(name)}")
    return name


def is_tensor(x: Any) -> bool:
    """Whether ``x`` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)
