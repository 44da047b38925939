"""What the tensors of an operator must be: dtypes, and axes that agree by their names.

``csrc/bind.h`` checks the same of what the CPU's kernels read, whoever calls. This is for torch's doors that have no
such kernel behind them: tracing, the formulas, the reference, GPUs.

    "gamma: batch channels, x: 1|batch channels _, index int64: batch kept, weights: rows channels / rows"

For each argument its dtypes, of which float32 is not said (a GPU reads float16 and bfloat16 besides), and its axes: a
name is as long as where it stood first, ``2*name`` twice that, ``1|name`` may be 1 instead, ``new%name`` is a name and
a multiple (of a number: ``new%2``), ``_`` anything, ``...`` leading axes that agree. A list's arrays have a "/" between
them; of a list of numbers, integers from 0 on, there is the length: ``size: 2``.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

HALVES = ("float16", "bfloat16")
KINDS = {  # of words that stand for several dtypes
    "float": ("float32", *HALVES),  # of formulas
    "bytes": ("uint8", "bool"),
    "picture": ("float32", *HALVES, "uint8", "bool"),
    "whole": ("uint8", "bool", "int8", "int16", "int32", "int64"),
}
KINDS["real"] = ("float64", *KINDS["float"], *KINDS["whole"])  # of what is converted


class Declared(NamedTuple):
    name: str
    dtypes: tuple[str, ...]  # none: any
    shapes: tuple[tuple[str, ...], ...]


@functools.lru_cache(256)
def parsed(text: str) -> tuple[Declared, ...]:
    found = []
    for part in text.split(","):
        head, _, shapes = part.partition(":")
        name, *kinds = head.split()
        dtypes = [dtype for kind in kinds or ["float32"] for dtype in KINDS.get(kind, (kind,))]
        axes = tuple(tuple(shape.split()) for shape in shapes.split("/"))
        found.append(Declared(name, () if "any" in dtypes else tuple(dtypes), axes))
    return tuple(found)


def floating(x: Any) -> str:
    """Of formulas that take float64 too, if all is: what the others hold."""
    return "float64" if str(x.dtype).endswith("float64") else "float"


def check(operator: str, text: str, given: dict[str, Any]) -> None:
    """ValueError or TypeError where ``given``, arguments by name, are not as ``text`` says. None fits."""
    sizes: dict[str, Any] = {}
    for name, dtypes, shapes in parsed(text):
        x, told = given[name], f"{operator}: {name}"
        if x is None:
            continue
        if not isinstance(x, (list, tuple)):
            check_one(told, x, dtypes, shapes[0], sizes)
        elif shapes[0][0].isdigit():
            if len(x) != int(shapes[0][0]) or any(isinstance(n, int) and n < 0 for n in x):
                raise ValueError(f"{told} must be {shapes[0][0]} numbers, not negative, got {list(x)}")
        elif len(x) != len(shapes):
            raise ValueError(f"{told} must hold {len(shapes)} arrays, got {len(x)}")
        else:
            for k, (one, shape) in enumerate(zip(x, shapes, strict=True)):
                check_one(f"{told}[{k}]", one, dtypes, shape, sizes)


def check_one(told: str, x: Any, dtypes: tuple[str, ...], axes: tuple[str, ...], sizes: dict[str, Any]) -> None:
    kind = str(x.dtype).removeprefix("torch.")
    halves = HALVES if getattr(x, "is_cuda", False) and "float32" in dtypes else ()
    if dtypes and kind not in dtypes + halves:
        raise TypeError(f"{told} must hold {' or '.join(dtypes)}, got {kind}")
    known = {axis: sizes[axis.removeprefix("1|")] for axis in axes if axis.removeprefix("1|") in sizes}

    def message() -> str:
        wanted = ", ".join(f"{axis} = {known[axis]}" if axis in known else axis for axis in axes)
        wanted = wanted.replace("1|", "1 or ").replace("%", " a multiple of ")
        return f"{told} must have shape ({wanted}), got {tuple(x.shape)}"

    shape, names = list(x.shape), axes
    if axes[0] == "...":
        names = axes[1:]
        leading, shape = shape[: max(len(shape) - len(names), 0)], shape[max(len(shape) - len(names), 0) :]
        others = sizes.setdefault("...", leading)
        require(len(others) == len(leading), message)
        for n, m in zip(leading, others, strict=True):
            require(n == m, message)
    require(len(shape) == len(names), message)
    for n, axis in zip(shape, names, strict=True):
        require(fits(n, axis, sizes), message)


def fits(n: Any, axis: str, sizes: dict[str, Any]) -> Any:
    """Whether an axis is ``n`` long: a bool, or torch's of a size that a trace does not know."""
    if axis == "_":
        return True
    if axis.startswith("1|"):
        return (isinstance(n, int) and n == 1) or n == sizes.setdefault(axis[2:], n)
    if "%" in axis:
        name, _, of = axis.partition("%")
        each = int(of) if of.isdigit() else sizes.get(of, 1)
        if isinstance(n, int) and isinstance(each, int) and n != 0 and (each == 0 or n % each):
            return False
        return name == "_" or n == sizes.setdefault(name, n)
    if "*" in axis:
        return n == math.prod(int(part) if part.isdigit() else sizes[part] for part in axis.split("*"))
    return n == (int(axis) if axis.isdigit() else sizes.setdefault(axis, n))


def require(holds: Any, message: Callable[[], str]) -> None:
    """Of a size that a trace does not know it becomes a guard."""
    if isinstance(holds, bool):
        if not holds:
            raise ValueError(message())
        return
    import torch

    torch._check_value(holds, message)
