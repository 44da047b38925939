"""Moves, conversions, comparisons and selections."""

import numpy as np

from ..memory import LOCAL_WINDOW, SHARED_WINDOW
from ..program import Group, Pair
from ..values import DTYPE, Fault, flush, round_to, round_to_tf32, rounding_mode, width
from .table import FLOAT, finish_float, instruction


@instruction("mov")
def move(batch, active, ins):
    kind, target, source = ins.op[-1], *ins.args
    if isinstance(target, Group):  # mov.b32 {low, high}, x
        bits = width(kind) // len(target.parts)
        raw = batch.read(source, "b64", active)
        for i, part in enumerate(target.parts):
            piece = (raw >> np.uint64(i * bits)) & np.uint64(2**bits - 1)
            batch.write(part, piece, "b64", active)
    elif isinstance(source, Group):  # mov.b32 x, {low, high}
        bits, raw = width(kind) // len(source.parts), np.uint64(0)
        for i, part in enumerate(source.parts):
            piece = batch.read(part, f"b{bits}", active).astype(np.uint64)
            raw = raw | (piece << np.uint64(i * bits))
        batch.write(target, raw, "b64", active)
    else:
        batch.write(target, batch.read(source, kind, active), kind, active)


@instruction("cvta", allow="to global shared local const")
def convert_address(batch, active, ins):
    window = {"shared": SHARED_WINDOW, "local": LOCAL_WINDOW}.get(ins.space, 0)
    step = -window if "to" in ins.op else window
    address = batch.read(ins.args[1], "s64", active)
    batch.write(ins.args[0], address + np.int64(step), "s64", active)


@instruction("isspacep", allow="global shared local const")
def is_in_space(batch, active, ins):
    address = batch.read(ins.args[1], "u64", active)
    shared, local = address >= SHARED_WINDOW, (address >= LOCAL_WINDOW) & (address < SHARED_WINDOW)
    result = {"shared": shared, "local": local}.get(ins.space, ~(shared | local))
    batch.write(ins.args[0], result, "pred", active)


TO_INTEGER = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}


@instruction("cvt", allow=FLOAT + " rzi rni rmi rpi rna")
def convert(batch, active, ins):
    target, source = ins.op[-2:]
    if len(ins.args) == 3:  # cvt.rn.f16x2.f32 d, high, low
        high, low = (batch.read(arg, source, active) for arg in ins.args[1:])
        values = np.stack([low, high], axis=1)
    else:
        values = batch.read(ins.args[1], source, active)
    values = convert_values(values, target, ins.op)
    kind = "s64" if target[0] == "s" else target  # sign-extend into wider registers
    batch.write(ins.args[0], values.astype(np.int64) if kind == "s64" else values, kind, active)


def convert_values(values, target, op):
    to_whole = next((TO_INTEGER[part] for part in op if part in TO_INTEGER), None)
    if "f" in target:
        values = to_whole(values) if to_whole else values
        return round_float(finish_float(op, values), target, op)
    info = np.iinfo(DTYPE[target])
    if values.dtype.kind == "f":
        whole = to_whole(values.astype(np.float64))
        inside = np.where(np.isnan(whole), 0, np.clip(whole, info.min, float(info.max)))
        return np.where(inside >= float(info.max), info.max, inside.astype(DTYPE[target]))
    if "sat" in op:
        own = np.iinfo(values.dtype)
        values = np.clip(values, max(info.min, own.min), min(info.max, own.max))
    return values.astype(DTYPE[target])


def round_float(values, target, op):
    mode = rounding_mode(op)
    if target == "tf32":
        return round_to_tf32(values, "rna" if "rna" in op else mode)
    if target.startswith("bf16"):
        if mode == "rz":
            bits = values.astype(np.float32).view(np.uint32)
            values = (bits & np.uint32(0xFFFF0000)).view(np.float32)
        elif mode:
            raise Fault(f"rounding mode {mode} to bf16 is not supported")
        return values
    dtype = DTYPE[target.removesuffix("x2")]
    return round_to(values.astype(np.float64), dtype, mode) if mode else values.astype(dtype)


@instruction("szext", allow="wrap clamp")
def extend(batch, active, ins):
    kind = ins.op[-1]
    wide = np.int64 if kind[0] == "s" else np.uint64
    values = batch.read(ins.args[1], kind, active).astype(wide)
    length = batch.read(ins.args[2], "u32", active)
    length = length & np.uint32(31) if "wrap" in ins.op else np.minimum(length, 32)
    rest = wide(64) - length.astype(wide)
    values = np.where(length == 0, wide(0), (values << np.minimum(rest, wide(63))) >> rest)
    batch.write(ins.args[0], values, kind, active)


COMPARE = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal}
COMPARE |= {"gt": np.greater, "ge": np.greater_equal, "lo": np.less, "ls": np.less_equal}
COMPARE |= {"hi": np.greater, "hs": np.greater_equal}
COMPARISONS = "eq ne lt le gt ge lo ls hi hs equ neu ltu leu gtu geu num nan"
COMBINE = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def compare(name, x, y):
    """Ordered comparisons are false for NaN, those with a trailing u (equ, ...) true."""
    if x.ndim > 1:
        raise Fault("comparison of packed pairs is not supported")
    unordered = np.isnan(x) | np.isnan(y) if x.dtype.kind == "f" else np.zeros(len(x), bool)
    if name in ("nan", "num"):
        return unordered == (name == "nan")
    result = COMPARE[name[:2]](x, y)
    return result | unordered if len(name) == 3 else result & ~unordered


@instruction("setp", allow=COMPARISONS + " and or xor ftz")
def set_predicate(batch, active, ins):
    x, y = (batch.read(arg, ins.op[-1], active) for arg in ins.args[1:3])
    if "ftz" in ins.op:
        x, y = flush(x), flush(y)
    result = compare(ins.op[1], x, y)
    both = result, ~result
    if len(ins.args) > 3:
        combine = next(COMBINE[part] for part in ins.op if part in COMBINE)
        third = batch.read(ins.args[3], "pred", active)
        both = tuple(combine(r, third) for r in both)
    target = ins.args[0]
    targets = (target.first, target.second) if isinstance(target, Pair) else (target,)
    for operand, values in zip(targets, both, strict=False):
        batch.write(operand, values, "pred", active)


@instruction("set", allow=COMPARISONS + " ftz")
def set_number(batch, active, ins):
    x, y = (batch.read(arg, ins.op[-1], active) for arg in ins.args[1:3])
    kind = ins.op[-2]
    true = np.float32(1) if kind == "f32" else DTYPE[kind].type(-1 if kind[0] == "s" else 2**32 - 1)
    batch.write(ins.args[0], np.where(compare(ins.op[1], x, y), true, true * 0), kind, active)


@instruction("selp")
def select(batch, active, ins):
    x, y = (batch.read(arg, ins.op[-1], active) for arg in ins.args[1:3])
    chosen = np.where(batch.read(ins.args[3], "pred", active), x, y)
    batch.write(ins.args[0], chosen, ins.op[-1], active)


@instruction("slct", allow="ftz")
def select_by_sign(batch, active, ins):
    x, y = (batch.read(arg, ins.op[-2], active) for arg in ins.args[1:3])
    sign = batch.read(ins.args[3], ins.op[-1], active)
    batch.write(ins.args[0], np.where(sign >= 0, x, y), ins.op[-2], active)


@instruction("testp", allow="finite infinite number notanumber")
def test_number(batch, active, ins):
    x = batch.read(ins.args[1], ins.op[-1], active)
    tests = {"finite": np.isfinite, "infinite": np.isinf, "notanumber": np.isnan}
    tests["number"] = lambda x: ~np.isnan(x)
    batch.write(ins.args[0], tests[ins.op[1]](x), "pred", active)
