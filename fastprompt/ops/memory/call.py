"""The call into csrc/memory."""

from typing import Any

from fastprompt import _C
from fastprompt.ops._arrays import contiguous
from fastprompt.ops._operator import Asked


def memory_read(q: Any, k: Any, v: Any, scale: float, out: Any, log_weight: Any) -> Asked:
    return _C.memory_read, dict(
        query=contiguous(q), key=contiguous(k), value=contiguous(v), scale=scale, out=out, log_weight=log_weight,
    )  # fmt: skip
