"""Executes a plan of fastprompt/export/_kernels/plans.py as csrc/export/tensorrt/launches.cpp does it, in our interpreter of PTX."""

import numpy as np
from ptx import Kernel

from fastprompt.export._kernels.plans import SEPARATOR

NUMPY = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16, "i32": np.int32, "i64": np.int64, "bool": np.bool_}
APPLY = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "~": lambda a, b: a // b,
    "/": lambda a, b: -(-a // b), "<": min, ">": max,
}  # fmt: skip


def value(expression, inputs):
    stack = []
    for part in expression.split(","):
        if part in APPLY:
            second, first = stack.pop(), stack.pop()
            stack.append(APPLY[part](first, second))
        elif "." in part:
            place, axis = map(int, part.split("."))
            stack.append(inputs[place].shape[axis])
        else:
            stack.append(int(part))
    assert len(stack) == 1, expression
    return stack[0]


def run(text, ptx, inputs, **launch):
    """The outputs for ``inputs``, arrays of the plan's types."""
    outputs, scratch, kernels = [], [], {}
    for module in ptx.split(SEPARATOR):
        kernel = Kernel(module)
        kernels[kernel.name] = kernel
    for line in text.strip().split("\n"):
        word, *rest = line.split()
        if word == "inputs":
            assert [NUMPY[x] for x in rest] == [x.dtype for x in inputs]
        elif word == "output":
            outputs.append(np.full([value(e, inputs) for e in rest[1:]], 99, NUMPY[rest[0]]))
        elif word == "scratch":
            scratch.append(np.full(value(rest[0], inputs), 255, np.uint8))  # NaN
        else:
            name, threads, shared, *rest = rest
            places = {"i": inputs, "o": outputs, "s": scratch}
            arguments = [
                value(a[1:], inputs) if a[0] == "n" else float(a[1:]) if a[0] == "f" else places[a[0]][int(a[1:])]
                for a in rest[3:]
            ]
            grid = tuple(value(e, inputs) for e in rest[:3])
            kernels[name].launch(grid, int(threads), arguments, int(shared), **launch)
    return outputs
