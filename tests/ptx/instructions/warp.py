"""Instructions that the lanes of a warp execute together."""

import numpy as np

from ..program import Pair
from ..values import Fault
from .table import instruction

MASK_OPERAND = {"shfl": 4, "vote": 2, "match": 2, "redux": 2, "elect": 1}
WHOLE_WARP = ("ldmatrix", "stmatrix", "mma")


def warp_mask(batch, active, ins):
    """Lanes that must execute the instruction together, or None if it is not of that kind."""
    name = ins.op[0]
    if name in WHOLE_WARP:
        return np.full(len(active), 0xFFFFFFFF, np.uint32)
    if name in MASK_OPERAND:
        return batch.read(ins.args[MASK_OPERAND[name]], "u32", active)
    if ins.op[:2] == ("bar", "warp"):
        return batch.read(ins.args[0], "u32", active)
    return None


@instruction("shfl", allow="sync up down bfly idx", schedules=True)
def shuffle(batch, active, ins):
    target, present = ins.args[0], None
    if isinstance(target, Pair):
        target, present = target
    values = batch.read(ins.args[1], "b32", active)
    step = batch.read(ins.args[2], "u32", active).astype(np.int64) & 31
    limits = batch.read(ins.args[3], "u32", active).astype(np.int64)
    segment, clamp = limits >> 8 & 31, limits & 31
    lane, warp = batch.lane[active], batch.batch_warp[active]
    first = lane & segment
    last = first | (clamp & ~segment)
    wanted = {
        "up": lane - step,
        "down": lane + step,
        "bfly": lane ^ step,
        "idx": first | (step & ~segment),
    }[ins.op[2]]
    inside = wanted >= last if ins.op[2] == "up" else wanted <= last
    source = np.where(inside, wanted, lane)
    missing = ~batch.warp_table(active, np.ones(len(active), bool))[warp, source]
    if missing.any():
        raise Fault("shuffle reads an inactive lane", missing)
    batch.write(target, batch.warp_table(active, values)[warp, source], "b32", active)
    if present is not None:
        batch.write(present, inside, "pred", active)


@instruction("vote", allow="sync ballot any all uni", schedules=True)
def vote(batch, active, ins):
    values = batch.read(ins.args[1], "pred", active)
    warp = batch.batch_warp[active]
    yes = batch.ballot(active, values)[warp]
    everyone = batch.ballot(active, np.ones(len(active), bool))[warp]
    if ins.op[2] == "ballot":
        return batch.write(ins.args[0], yes, "b32", active)
    results = {"any": yes != 0, "all": yes == everyone, "uni": (yes == 0) | (yes == everyone)}
    batch.write(ins.args[0], results[ins.op[2]], "pred", active)


@instruction("match", allow="sync any all", schedules=True)
def match(batch, active, ins):
    values = batch.read(ins.args[1], ins.op[-1], active)
    warp = batch.batch_warp[active]
    here = batch.warp_table(active, np.ones(len(active), bool))[warp]
    equal = (batch.warp_table(active, values)[warp] == values[:, None]) & here
    lanes = (equal.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(axis=1)
    if ins.op[1] == "any":
        return batch.write(ins.args[0], lanes, "b32", active)
    all_equal = (equal == here).all(axis=1)
    target, flag = ins.args[0] if isinstance(ins.args[0], Pair) else (ins.args[0], None)
    batch.write(target, np.where(all_equal, lanes, np.uint64(0)), "b32", active)
    if flag is not None:
        batch.write(flag, all_equal, "pred", active)


@instruction("activemask", schedules=True)
def active_mask(batch, active, ins):
    lanes = batch.ballot(active, np.ones(len(active), bool))
    batch.write(ins.args[0], lanes[batch.batch_warp[active]], "b32", active)


@instruction("elect", allow="sync", schedules=True)
def elect(batch, active, ins):
    target, flag = ins.args[0]
    here = batch.warp_table(active, np.ones(len(active), bool))[batch.batch_warp[active]]
    leader = here.argmax(axis=1)
    batch.write(target, leader, "b32", active)
    batch.write(flag, leader == batch.lane[active], "pred", active)


REDUCE = {"add": np.add, "min": np.minimum, "max": np.maximum}
REDUCE |= {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}


@instruction("redux", allow="sync add min max and or xor", schedules=True)
def reduce_in_warp(batch, active, ins):
    kind, warp = ins.op[-1], batch.batch_warp[active]
    order = np.argsort(warp, kind="stable")
    present, starts = np.unique(warp[order], return_index=True)
    values = batch.read(ins.args[1], kind, active)[order]
    results = REDUCE[ins.op[2]].reduceat(values, starts)
    batch.write(ins.args[0], results[np.searchsorted(present, warp)], kind, active)
