"""The calls into csrc/memory."""

from typing import Any

from fastprompt import _C
from fastprompt._runtime import matmul_precision
from fastprompt.ops._arrays import contiguous
from fastprompt.ops._operator import Asked


def memory_read(q: Any, k: Any, v: Any, scale: float, out: Any, log_weight: Any) -> Asked:
    return _C.memory_read, dict(
        query=contiguous(q), key=contiguous(k), value=contiguous(v), scale=scale, out=out, log_weight=log_weight,
        precision=matmul_precision(),
    )  # fmt: skip


def turned_memory_read(
    q: Any, k: Any, v: Any, cos: Any, sin: Any, key_cos: Any, key_sin: Any, unturned: int, scale: float, out: Any
) -> Asked:
    return _C.memory_read, dict(
        query=contiguous(q), key=contiguous(k), value=contiguous(v), **tables(cos, sin, key_cos, key_sin),
        unturned=unturned, scale=scale, out=out, precision=matmul_precision(),
    )  # fmt: skip


def projected_memory_read(
    q: Any, source: Any, value: Any, linear: Any, cos: Any, sin: Any, key_cos: Any, key_sin: Any, size: Any,
    unturned: int, scale: float, out: Any,
) -> Asked:  # fmt: skip
    weight, bias = map(contiguous, linear)
    return _C.projected_memory_read, dict(
        query=contiguous(q), source=contiguous(source), value=contiguous(value), weight=weight, bias=bias,
        **tables(cos, sin, key_cos, key_sin), size=size, unturned=unturned, scale=scale, out=out,
        precision=matmul_precision(),
    )  # fmt: skip


def tables(cos: Any, sin: Any, key_cos: Any, key_sin: Any) -> dict[str, Any]:
    named = {"cos": cos, "sin": sin, "key_cos": key_cos, "key_sin": key_sin}
    return {name: contiguous(x) for name, x in named.items()}
