"""Shifts, bit fields and byte permutations."""

import numpy as np

from ..values import UINT, width
from .table import instruction


def read_unsigned(batch, operands, kind, active):
    return [batch.read(arg, kind, active).astype(np.uint64) for arg in operands]


@instruction("shl", "shr")
def shift(batch, active, ins):
    kind = ins.op[-1]
    wide = np.int64 if kind[0] == "s" else np.uint64
    values = batch.read(ins.args[1], kind, active).astype(wide)
    amount = batch.read(ins.args[2], "u32", active)
    all_out = amount >= width(kind)
    amount = np.where(all_out, width(kind) - 1, amount).astype(wide)
    shifted = values << amount if ins.op[0] == "shl" else values >> amount
    arithmetic_right = ins.op[0] == "shr" and kind[0] == "s"
    result = shifted if arithmetic_right else np.where(all_out, wide(0), shifted)
    batch.write(ins.args[0], result, kind, active)


@instruction("shf", allow="l r wrap clamp")
def funnel_shift(batch, active, ins):
    low, high, amount = read_unsigned(batch, ins.args[1:4], "b32", active)
    both = (high << np.uint64(32)) | low
    amount = amount & np.uint64(31) if "wrap" in ins.op else np.minimum(amount, np.uint64(32))
    result = both >> amount if "r" in ins.op else (both << amount) >> np.uint64(32)
    batch.write(ins.args[0], result, "b32", active)


@instruction("lop3")
def logic_of_three(batch, active, ins):
    x, y, z = (batch.read(arg, "b32", active) for arg in ins.args[1:4])
    table, result = ins.args[4].bits, np.zeros(len(active), np.uint32)
    for row in range(8):
        if table >> row & 1:
            result |= (x if row & 4 else ~x) & (y if row & 2 else ~y) & (z if row & 1 else ~z)
    batch.write(ins.args[0], result, "b32", active)


@instruction("prmt")
def permute_bytes(batch, active, ins):
    low, high, selector = read_unsigned(batch, ins.args[1:4], "b32", active)
    both, result = (high << np.uint64(32)) | low, np.zeros(len(active), np.uint64)
    for i in range(4):
        choice = (selector >> np.uint64(4 * i)) & np.uint64(15)
        byte = (both >> ((choice & np.uint64(7)) * np.uint64(8))) & np.uint64(255)
        sign = np.where(byte & np.uint64(128), np.uint64(255), np.uint64(0))
        byte = np.where(choice & np.uint64(8), sign, byte)
        result |= byte << np.uint64(8 * i)
    batch.write(ins.args[0], result, "b32", active)


@instruction("bfe")
def extract_bit_field(batch, active, ins):
    kind = ins.op[-1]
    wide = np.int64 if kind[0] == "s" else np.uint64
    values = batch.read(ins.args[1], kind, active).astype(wide)
    start, length = ((batch.read(arg, "u32", active) & np.uint32(255)).astype(wide) for arg in ins.args[2:4])
    rest = wide(64) - np.minimum(length, wide(64))
    field = ((values >> np.minimum(start, wide(63))) << np.minimum(rest, wide(63))) >> rest
    batch.write(ins.args[0], np.where(length == 0, wide(0), field), kind, active)


@instruction("bfi")
def insert_bit_field(batch, active, ins):
    kind = ins.op[-1]
    field, base = read_unsigned(batch, ins.args[1:3], kind, active)
    start, length = read_unsigned(batch, ins.args[3:5], "u32", active)
    mask = ones(length & np.uint64(255)) << np.minimum(start & np.uint64(255), np.uint64(63))
    result = (base & ~mask) | ((field << np.minimum(start, np.uint64(63))) & mask)
    batch.write(ins.args[0], result, kind, active)


@instruction("bmsk", allow="wrap clamp")
def bit_mask(batch, active, ins):
    """`length` ones from bit `start` on; positions are clamped to 32 or taken modulo 32"""
    start, length = read_unsigned(batch, ins.args[1:3], "u32", active)
    if "wrap" in ins.op:
        start, length = start & np.uint64(31), length & np.uint64(31)
    start, length = np.minimum(start, np.uint64(32)), np.minimum(length, np.uint64(32))
    batch.write(ins.args[0], ones(length) << start, "b32", active)


def ones(count):
    """uint64 with the lowest `count` bits set."""
    short = (np.uint64(1) << np.minimum(count, np.uint64(63))) - np.uint64(1)
    return np.where(count >= 64, np.uint64(2**64 - 1), short)


def bit_length(values):
    """Position of the highest set bit plus one, 0 for 0."""
    high, low = values >> np.uint64(32), values & np.uint64(0xFFFFFFFF)
    length_high, length_low = (np.frexp(v.astype(np.float64))[1] for v in (high, low))
    return np.where(high != 0, length_high + 32, length_low)


@instruction("clz")
def count_leading_zeros(batch, active, ins):
    (values,) = read_unsigned(batch, ins.args[1:2], ins.op[-1], active)
    batch.write(ins.args[0], width(ins.op[-1]) - bit_length(values), "u32", active)


@instruction("bfind", allow="shiftamt")
def find_highest_bit(batch, active, ins):
    kind = ins.op[-1]
    values = batch.read(ins.args[1], kind, active)
    values = np.where(values < 0, ~values, values).astype(np.uint64)
    found = bit_length(values) - 1
    if "shiftamt" in ins.op:
        found = np.where(found < 0, -1, width(kind) - 1 - found)
    batch.write(ins.args[0], found, "b32", active)


@instruction("popc")
def count_ones(batch, active, ins):
    values = np.ascontiguousarray(batch.read(ins.args[1], ins.op[-1], active))
    bits = np.unpackbits(values.view(np.uint8).reshape(len(active), -1), axis=1)
    batch.write(ins.args[0], bits.sum(axis=1), "u32", active)


@instruction("brev")
def reverse_bits(batch, active, ins):
    kind = ins.op[-1]
    values = np.ascontiguousarray(batch.read(ins.args[1], kind, active))
    bits = np.unpackbits(values.view(np.uint8).reshape(len(active), -1), axis=1, bitorder="little")
    result = np.packbits(bits[:, ::-1], axis=1, bitorder="little")
    batch.write(ins.args[0], result.view(UINT[width(kind)]).reshape(-1), kind, active)
