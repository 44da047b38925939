"""PTX number types: raw 64-bit registers to numpy values and back."""

import functools

import numpy as np

UINT = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
DTYPE = {
    "f16": np.dtype("f2"),
    "f32": np.dtype("f4"),
    "f64": np.dtype("f8"),
    "tf32": np.dtype("f4"),
}
for _bits in UINT:
    DTYPE[f"b{_bits}"] = DTYPE[f"u{_bits}"] = np.dtype(f"u{_bits // 8}")
    DTYPE[f"s{_bits}"] = np.dtype(f"i{_bits // 8}")


class Fault(Exception):
    """The kernel did something wrong, or something that is not supported here.

    `culprits` marks which of the threads at the instruction are to blame.
    """

    def __init__(self, message, culprits=None):
        super().__init__(message)
        self.culprits = culprits


@functools.cache
def width(kind):
    """Bits of one value: `f32` -> 32, `bf16` -> 16, and a packed pair such as `f16x2` -> 32."""
    if kind.endswith("x2"):
        return 2 * width(kind[:-2])
    return 32 if kind == "tf32" else int(kind.lstrip("bufs"))


def from_bits(raw, kind):
    """Raw uint64 register contents -> values; a packed pair gives an array (n, 2)."""
    if kind == "pred":
        return raw.astype(bool)
    if kind == "bf16":
        return bf16_to_f32(raw)
    if kind == "f32x2":
        return np.ascontiguousarray(raw).view(np.float32).reshape(-1, 2)
    if kind in ("f16x2", "bf16x2"):
        halves = np.ascontiguousarray(raw.astype(np.uint32)).view(np.uint16).reshape(-1, 2)
        return halves.view(np.float16) if kind == "f16x2" else bf16_to_f32(halves)
    return raw.astype(UINT[width(kind)], copy=False).view(DTYPE[kind])


def to_bits(values, kind):
    """Values -> raw uint64 register contents, zero-extended; inverse of `from_bits`."""
    if kind == "pred":
        return values.astype(np.uint64)
    if kind == "bf16":
        return f32_to_bf16(values).astype(np.uint64)
    if kind == "f32x2":
        return np.ascontiguousarray(values.astype(np.float32)).view(np.uint64).reshape(-1)
    if kind in ("f16x2", "bf16x2"):
        halves = values.astype(np.float16) if kind == "f16x2" else f32_to_bf16(values)
        return np.ascontiguousarray(halves).view(np.uint32).reshape(-1).astype(np.uint64)
    typed = np.ascontiguousarray(values).astype(DTYPE[kind], copy=False)
    return typed.view(UINT[width(kind)]).astype(np.uint64)


def bf16_to_f32(raw):
    return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)


def f32_to_bf16(values):
    """Round to nearest, ties to even."""
    bits = values.astype(np.float32).view(np.uint32)
    lowest_kept = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + lowest_kept) >> np.uint32(16)
    return np.where(np.isnan(values), 0x7FFF, rounded).astype(np.uint16)


def round_to(values, dtype, mode=None):
    """float64 -> `dtype`, to nearest or as the PTX rounding modes rz, rm, rp say."""
    near = values.astype(dtype)
    if mode is None:
        return near
    back = near.astype(np.float64)
    if mode == "rz":
        too_far, target = np.abs(back) > np.abs(values), 0.0
    elif mode == "rm":
        too_far, target = back > values, -np.inf
    else:
        too_far, target = back < values, np.inf
    return np.where(too_far, np.nextafter(near, dtype.type(target)), near)


def add_to_odd(x, y):
    """x + y in float64; where that is not exact, the neighbour whose last bit is 1.

    Rounding this to 50 bits or fewer gives what rounding the exact sum gives.
    """
    total = x + y
    part = total - x
    rest = (x - (total - part)) + (y - part)  # exact: x + y = total + rest
    bits = total.view(np.int64)
    outward = (rest > 0) == (total > 0)
    odd = np.where(bits & 1, bits, np.where(outward, bits + 1, bits - 1)).view(np.float64)
    return np.where((rest != 0) & np.isfinite(rest), odd, total)


def flush(values):
    """Denormal float32 to zero of its sign, as .ftz does."""
    if values.dtype != np.float32:
        return values
    return np.where(np.abs(values) < np.float32(2.0**-126), np.copysign(np.float32(0), values), values)


def round_to_tf32(values, mode=None):
    """To a 10-bit mantissa: rna (ties away from zero), rz, or to nearest even."""
    bits = values.astype(np.float32).view(np.uint32)
    if mode == "rna":
        bits = bits + np.uint32(0x1000)
    elif mode != "rz":
        bits = bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


def rounding_mode(op):
    """The directed rounding mode named in an opcode, or None for to-nearest."""
    return next((part for part in op if part in ("rz", "rm", "rp")), None)
