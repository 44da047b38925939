"""Integer and floating-point arithmetic."""

import functools

import numpy as np

from ..values import DTYPE, Fault, add_to_odd, flush, round_to, rounding_mode, width
from .table import FLOAT, elementwise, finish_float, instruction


def arithmetic(op, f, *values):
    """f in the precision of the values, with the rounding and saturation named in the opcode."""
    dtype = values[-1].dtype
    mode = rounding_mode(op) if dtype.kind == "f" else None
    if mode:
        if dtype == np.float64:
            raise Fault("directed rounding of f64 is not supported")
        result = round_to(f(*(v.astype(np.float64) for v in values)), dtype, mode)
    elif "sat" in op and dtype.kind == "i":
        info = np.iinfo(dtype)
        exact = f(*(v.astype(np.int64) for v in values))
        return np.clip(exact, info.min, info.max).astype(dtype)
    else:
        result = f(*values)
    return finish_float(op, result)


@elementwise("add", inputs=2)
def add(op, x, y):
    return arithmetic(op, np.add, x, y)


@elementwise("sub", inputs=2)
def subtract(op, x, y):
    return arithmetic(op, np.subtract, x, y)


@elementwise("fma", inputs=3)
def fused_multiply_add(op, x, y, z):
    return finish_float(op, fused(op, x, y, z))


def fused(op, x, y, z):
    """x y + z, rounded once: the product is exact in float64, and the sum is rounded to odd there."""
    if z.dtype == np.float64:
        raise Fault("fused multiply-add of f64 is not supported")
    return round_to(add_to_odd(x.astype(np.float64) * y, z.astype(np.float64)), z.dtype, rounding_mode(op))


@elementwise("div", inputs=2)
def divide(op, x, y):
    if x.dtype.kind == "f":
        return arithmetic(op, np.divide, x, y)
    if x.dtype.kind == "u":
        return x // np.maximum(y, 1)
    x, y = x.astype(np.int64), y.astype(np.int64)
    return np.sign(x) * np.sign(y) * (np.abs(x) // np.maximum(np.abs(y), 1))


@elementwise("rem", inputs=2)
def remainder(op, x, y):
    return np.fmod(x, np.where(y == 0, 1, y).astype(y.dtype))


def extremum(op, plain, ignoring_nan, values):
    f = ignoring_nan if values[0].dtype.kind == "f" and "NaN" not in op else plain
    return finish_float(op, functools.reduce(f, values))


elementwise("min", inputs=3)(lambda op, *v: extremum(op, np.minimum, np.fmin, v))
elementwise("max", inputs=3)(lambda op, *v: extremum(op, np.maximum, np.fmax, v))
elementwise("and", inputs=2)(lambda op, x, y: x & y)
elementwise("or", inputs=2)(lambda op, x, y: x | y)
elementwise("xor", inputs=2)(lambda op, x, y: x ^ y)
elementwise("not", inputs=1)(lambda op, x: ~x)
elementwise("cnot", inputs=1)(lambda op, x: (x == 0).astype(x.dtype))
elementwise("neg", inputs=1)(lambda op, x: -x)
elementwise("abs", inputs=1)(lambda op, x: np.abs(x))
elementwise("sqrt", inputs=1)(lambda op, x: arithmetic(op, np.sqrt, x))
elementwise("rsqrt", inputs=1)(lambda op, x: 1 / np.sqrt(x))
elementwise("rcp", inputs=1)(lambda op, x: arithmetic(op, np.reciprocal, x))
elementwise("ex2", inputs=1)(lambda op, x: np.exp2(x))
elementwise("lg2", inputs=1)(lambda op, x: np.log2(x))
elementwise("sin", inputs=1)(lambda op, x: np.sin(x))
elementwise("cos", inputs=1)(lambda op, x: np.cos(x))
elementwise("tanh", inputs=1)(lambda op, x: np.tanh(x))
elementwise("copysign", inputs=2)(lambda op, x, y: np.copysign(y, x))


@instruction("mul", "mad", allow=FLOAT + " lo hi wide")
def multiply(batch, active, ins):
    op, kind = ins.op, ins.op[-1]
    x, y = (batch.read(arg, kind, active) for arg in ins.args[1:3])
    result_kind = kind
    if x.dtype.kind == "f":
        if "ftz" in op:
            x, y = flush(x), flush(y)
        if op[0] == "mad":
            result = finish_float(op, fused(op, x, y, batch.read(ins.args[3], kind, active)))
        else:
            result = arithmetic(op, np.multiply, x, y)
        result = flush(result) if "ftz" in op else result
    elif "wide" in op:
        result_kind = f"{kind[0]}{width(kind) * 2}"
        result = x.astype(DTYPE[result_kind]) * y.astype(DTYPE[result_kind])
    elif "hi" in op:
        result = high_half(x, y)
    else:
        result = x * y
    if op[0] == "mad" and x.dtype.kind != "f":
        result = result + batch.read(ins.args[3], result_kind, active)
    batch.write(ins.args[0], result, result_kind, active)


def high_half(x, y):
    """Upper half of the double-width product."""
    bits, dtype = x.dtype.itemsize * 8, x.dtype
    if bits < 64:
        wide = np.int64 if dtype.kind == "i" else np.uint64
        return ((x.astype(wide) * y.astype(wide)) >> wide(bits)).astype(dtype)
    shift, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    a, b = x.astype(np.uint64), y.astype(np.uint64)
    middle = (a >> shift) * (b & low) + (((a & low) * (b & low)) >> shift)
    middle_low = (middle & low) + (a & low) * (b >> shift)
    result = (a >> shift) * (b >> shift) + (middle >> shift) + (middle_low >> shift)
    if dtype.kind == "i":
        result -= np.where(x < 0, b, 0).astype(np.uint64) + np.where(y < 0, a, 0).astype(np.uint64)
    return result.astype(dtype)


@elementwise("sad", inputs=3)
def sum_of_absolute_difference(op, x, y, z):
    return np.where(x > y, x - y, y - x) + z


@instruction("dp4a")
def dot_of_bytes(batch, active, ins):
    first, second = (f"{kind[0]}8" for kind in ins.op[-2:])
    x, y = (
        np.ascontiguousarray(batch.read(arg, "b32", active)).view(DTYPE[kind]).reshape(-1, 4)
        for arg, kind in zip(ins.args[1:3], (first, second), strict=False)
    )
    total = (x.astype(np.int64) * y).sum(axis=1) + batch.read(ins.args[3], "s32", active)
    batch.write(ins.args[0], total, "b32", active)
