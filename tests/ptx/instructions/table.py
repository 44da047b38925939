"""The table of instructions and how handlers enter it."""

import re

import numpy as np

from ..values import Fault, flush

TABLE = {}  # opcode -> (handler, modifiers that it understands or None for any)
TYPE = re.compile(r"(bf16|[busf](4|8|16|32|64|128)|tf32)(x2)?$|pred$|v[248]$")
FLOAT = "rn rz rm rp ftz sat approx full NaN relu"


def instruction(*names, allow="", schedules=False):
    """Registers a handler(batch, active, instruction).

    allow: the modifiers that it understands; another one is a Fault, not a wrong result. None: any.
    schedules: it reads or changes who runs next, or needs the lanes of its warp.
    """

    def register(handler):
        for name in names:
            TABLE[name] = handler, None if allow is None else frozenset(allow.split()), schedules
        return handler

    return register


def bind(ins):
    """Finds the handler of an instruction, and what it does not understand of it."""
    if ins.op[0] not in TABLE:
        ins.problem = ins.problem or "unsupported instruction"
        ins.schedules = False
        return
    ins.run, allowed, ins.schedules = TABLE[ins.op[0]]
    if ins.op[0] == "ld" and ({"volatile", "acquire"} & set(ins.op) or {"relaxed", "b64"} <= set(ins.op)):
        ins.schedules = ins.yields = True
    unknown = [] if allowed is None else [m for m in ins.op[1:] if m not in allowed and not TYPE.match(m)]
    if unknown:
        ins.problem = ins.problem or f"modifier .{unknown[0]} is not supported"


def elementwise(*names, inputs, allow=FLOAT):
    """For d = f(a, b, ...) on values of one type: f gets (op, values...)."""

    def register(f):
        def handler(batch, active, ins):
            kinds = operand_kinds(ins.op, inputs)
            values = [batch.read(arg, kind, active) for arg, kind in zip(ins.args[1:], kinds, strict=False)]
            if "ftz" in ins.op:
                values = [flush(v) for v in values]
            result = f(ins.op, *values)
            batch.write(ins.args[0], flush(result) if "ftz" in ins.op else result, kinds[-1], active)

        instruction(*names, allow=allow)(handler)
        return f

    return register


def finish_float(op, result):
    if result.dtype.kind == "f":
        result = np.clip(result, 0, 1) if "sat" in op else result
        result = np.maximum(result, 0) if "relu" in op else result
    return result


def operand_kinds(op, inputs):
    """All operands have the type that ends the opcode, but add.f32.bf16 adds a bf16 to an f32."""
    mixed = len(op) > 2 and op[-2] == "f32" and op[-1] != "f32"
    if mixed and op[0] not in ("add", "sub", "fma"):
        raise Fault(f"{op[0]} of mixed types is not supported")
    return [op[-1]] * (inputs - 1) + ["f32" if mixed else op[-1]]
