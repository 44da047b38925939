"""Matrix fragments: ldmatrix, stmatrix and mma."""

import numpy as np

from ..program import parts
from ..values import DTYPE, Fault, round_to_tf32
from .table import instruction


@instruction("ldmatrix", allow="sync aligned m8n8 x1 x2 x4 trans shared", schedules=True)
def load_matrix(batch, active, ins):
    """8x8 matrices of 16-bit values; lane 8 m + r gives the address of row r of matrix m"""
    if "m8n8" not in ins.op or ins.op[-1] != "b16":
        raise Fault("this ldmatrix shape is not supported")
    targets = parts(ins.args[0])
    address, warp, lane = batch.address(ins.args[1], active), *lanes(batch, active)
    here = np.flatnonzero(lane < 8 * len(targets))
    rows = np.zeros((batch.warps, 32, 8), np.uint16)
    rows[warp[here], lane[here]] = batch.access(("ld",), ins.space or "shared", address[here], 16, 8, active[here])
    row, column = lane // 4, 2 * (lane % 4)
    for number, target in enumerate(targets):
        matrix = rows[:, 8 * number : 8 * number + 8]
        matrix = matrix.transpose(0, 2, 1) if "trans" in ins.op else matrix
        low, high = (matrix[warp, row, column + i].astype(np.uint32) for i in (0, 1))
        batch.write(target, low | (high << np.uint32(16)), "b32", active)


@instruction("stmatrix", allow="sync aligned m8n8 x1 x2 x4 trans shared", schedules=True)
def store_matrix(batch, active, ins):
    if "m8n8" not in ins.op or ins.op[-1] != "b16":
        raise Fault("this stmatrix shape is not supported")
    address, warp, lane = batch.address(ins.args[0], active), *lanes(batch, active)
    row, column = lane // 4, 2 * (lane % 4)
    for number, source in enumerate(parts(ins.args[1])):
        pair = batch.read(source, "b32", active)
        matrix = np.zeros((batch.warps, 8, 8), np.uint16)
        for i in (0, 1):
            half = (pair >> np.uint32(16 * i)).astype(np.uint16)
            where = (column + i, row) if "trans" in ins.op else (row, column + i)
            matrix[(warp, *where)] = half
        here = np.flatnonzero(lane // 8 == number)
        data = matrix[warp[here], lane[here] % 8]
        space = ins.space or "shared"
        batch.access(("st",), space, address[here], 16, 8, active[here], data)


def lanes(batch, active):
    return batch.batch_warp[active], batch.lane[active]


OPERAND_TYPES = {"f16": "f16x2", "bf16": "bf16x2", "tf32": "tf32", "s8": "s8", "u8": "u8"}


@instruction("mma", allow="sync aligned row col m16n8k4 m16n8k8 m16n8k16 m16n8k32 satfinite", schedules=True)
def multiply_matrices(batch, active, ins):
    """D = A B + C for m16n8kK; f16, bf16, tf32 (sums in f32) and int8"""
    shape = next(part for part in ins.op if part.startswith("m16n8k"))
    kind_d, kind_a, kind_b, kind_c = ins.op[-4:]
    if {kind_a, kind_b} - set(OPERAND_TYPES) or "sp" in ins.op:
        raise Fault("this mma type is not supported")
    depth, compute = int(shape[6:]), np.float32 if "f" in kind_a else np.int64
    d, a, b, c = (parts(arg) for arg in ins.args)
    warp, lane = lanes(batch, active)
    group, member = lane // 4, lane % 4
    left = np.zeros((batch.warps, 16, depth), compute)
    for i, operand in enumerate(a):  # rows alternate by 8, then the columns go on
        values = matrix_elements(batch, operand, kind_a, active)
        column = member * values.shape[1] + 4 * values.shape[1] * (i >> 1)
        for j in range(values.shape[1]):
            left[warp, group + 8 * (i & 1), column + j] = values[:, j]
    right = np.zeros((batch.warps, depth, 8), compute)
    for i, operand in enumerate(b):
        values = matrix_elements(batch, operand, kind_b, active)
        row = member * values.shape[1] + 4 * values.shape[1] * i
        for j in range(values.shape[1]):
            right[warp, row + j, group] = values[:, j]
    total = np.zeros((batch.warps, 16, 8), compute)
    for operand, row, column, half in accumulators(c, kind_c, group, member):
        value = batch.read(operand, "f16x2" if kind_c == "f16" else kind_c, active)
        total[warp, row, column] = value if half is None else value[:, half]
    total += left @ right
    write_accumulators(batch, active, d, kind_d, total)


def matrix_elements(batch, operand, kind, active):
    """(threads, elements per 32-bit register)"""
    if kind in ("s8", "u8"):
        raw = np.ascontiguousarray(batch.read(operand, "b32", active))
        return raw.view(DTYPE[kind]).reshape(-1, 4)
    values = batch.read(operand, OPERAND_TYPES[kind], active)
    if kind == "tf32":
        return round_to_tf32(values, "rz")[:, None]  # the hardware reads the upper 19 bits
    return values


def accumulators(operands, kind, group, member):
    """(register, row, column, half of the register or None) of every C or D element"""
    for i, operand in enumerate(operands):
        if kind == "f16":
            for half in (0, 1):
                yield operand, group + 8 * i, 2 * member + half, half
        else:
            yield operand, group + 8 * (i >> 1), 2 * member + (i & 1), None


def write_accumulators(batch, active, operands, kind, total):
    warp, lane = lanes(batch, active)
    group, member = lane // 4, lane % 4
    for i, operand in enumerate(operands):
        if kind == "f16":
            pair = [total[warp, group + 8 * i, 2 * member + half] for half in (0, 1)]
            batch.write(operand, np.stack(pair, axis=1), "f16x2", active)
        else:
            value = total[warp, group + 8 * (i >> 1), 2 * member + (i & 1)]
            batch.write(operand, value, kind, active)
