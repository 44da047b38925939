"""Loads, stores, atomics and asynchronous copies."""

import numpy as np

from ..program import parts
from ..values import DTYPE, UINT, Fault, from_bits, to_bits, width
from .table import instruction

CACHE = "L1::evict_last L1::evict_first L1::evict_normal L1::no_allocate L2::cache_hint L2::64B L2::128B L2::256B"
SPACES = "global shared local const param"
MEMORY = f"volatile relaxed acquire release acq_rel weak sys gpu cta nc ca cg cs lu cv wb wt {SPACES} {CACHE}"


@instruction("ld", "ldu", allow=MEMORY)
def load(batch, active, ins):
    kind, targets = ins.op[-1], parts(ins.args[0])
    address = batch.address(ins.args[1], active)
    data = batch.access(ins.op, ins.space, address, width(kind), len(targets), active)
    if kind[0] == "s":
        data = data.view(DTYPE[kind]).astype(np.int64).view(np.uint64)
    for i, target in enumerate(targets):
        batch.write(target, data[:, i].astype(np.uint64), "b64", active)


@instruction("st", allow=MEMORY)
def store(batch, active, ins):
    bits, sources = width(ins.op[-1]), parts(ins.args[1])
    if ins.space == "const":
        raise Fault("store to constant memory")
    data = np.stack([batch.read(source, f"b{bits}", active) for source in sources], axis=1)
    address = batch.address(ins.args[0], active)
    batch.access(ins.op, ins.space, address, bits, len(sources), active, data)


ATOMIC = {
    "add": lambda old, x, y: old + x,
    "min": lambda old, x, y: np.minimum(old, x),
    "max": lambda old, x, y: np.maximum(old, x),
    "and": lambda old, x, y: old & x,
    "or": lambda old, x, y: old | x,
    "xor": lambda old, x, y: old ^ x,
    "exch": lambda old, x, y: x,
    "cas": lambda old, x, y: np.where(old == x, y, old),
    "inc": lambda old, x, y: np.where(old >= x, 0, old + 1),
    "dec": lambda old, x, y: np.where((old == 0) | (old > x), x, old - 1),
}


@instruction("atom", "red", allow=MEMORY + " noftz add min max and or xor exch cas inc dec")
def atomic(batch, active, ins):
    kind, bits = ins.op[-1], width(ins.op[-1])
    f = ATOMIC[next(part for part in ins.op if part in ATOMIC)]
    args = ins.args if ins.op[0] == "red" else ins.args[1:]
    address = batch.address(args[0], active)
    x = batch.read(args[1], kind, active)
    y = batch.read(args[2], kind, active) if "cas" in ins.op else x
    before = np.zeros(len(active), np.uint64)
    rank = rank_among_equals(address)
    for turn in range(int(rank.max()) + 1):  # threads with the same address go one by one
        now = np.flatnonzero(rank == turn)
        who, place = active[now], address[now]
        raw = batch.access(ins.op, ins.space, place, bits, 1, who)[:, 0].astype(np.uint64)
        before[now] = raw
        after = to_bits(f(from_bits(raw, kind), x[now], y[now]), kind)
        data = after.astype(UINT[bits])[:, None]
        batch.access(ins.op, ins.space, place, bits, 1, who, data)
    if ins.op[0] == "atom":
        batch.write(ins.args[0], before, "b64", active)


def rank_among_equals(values):
    """[5, 7, 5, 5] -> [0, 0, 1, 2]"""
    order = np.argsort(values, kind="stable")
    ordered, place = values[order], np.arange(len(values))
    is_first = np.r_[True, ordered[1:] != ordered[:-1]]
    rank = np.empty(len(values), np.int64)
    rank[order] = place - np.maximum.accumulate(np.where(is_first, place, 0))
    return rank


@instruction("cp", allow="async ca cg global shared commit_group wait_group wait_all " + CACHE)
def copy_asynchronously(batch, active, ins):
    """cp.async: the data arrive in shared memory at the wait, not before"""
    if "commit_group" in ins.op:
        batch.copy_group[active] += 1
    elif "wait_all" in ins.op or "wait_group" in ins.op:
        keep = 0 if "wait_all" in ins.op else ins.args[0].bits
        newest = batch.copy_group.copy()
        newest[active] -= keep
        if "wait_all" in ins.op:
            newest[active] += 1  # also what is not yet committed
        complete_copies(batch, active, newest)
    else:
        start_copy(batch, active, ins)


def start_copy(batch, active, ins):
    size = ins.args[2].bits
    wanted = np.full(len(active), size)
    if len(ins.args) > 3 and "cache_hint" not in str(ins.op):
        if getattr(ins.args[3], "kind", "") == "pred":  # ignore-src
            wanted[batch.read(ins.args[3], "pred", active)] = 0
        else:
            wanted = batch.read(ins.args[3], "u32", active).astype(np.int64)
    target, source = (batch.address(arg, active) for arg in ins.args[:2])
    data = np.zeros((len(active), size // 4), np.uint32)
    for n in np.unique(wanted[wanted > 0]):
        here = wanted == n
        words, rest = divmod(int(n), 4)
        if rest:
            raise Fault("cp.async with a source size that is no multiple of 4 is not supported")
        op = ("ld", "global")
        data[here, :words] = batch.access(op, "global", source[here], 32, words, active[here])
    batch.copies.append((active, batch.copy_group[active], target, data))


def complete_copies(batch, active, newest):
    """Write the data of the copies whose group number is below `newest` of their thread."""
    waiting = np.zeros(batch.count, bool)
    waiting[active] = True
    left = []
    for threads, group, target, data in batch.copies:
        done = waiting[threads] & (group < newest[threads])
        if done.any():
            who, count = threads[done], data.shape[1]
            batch.access(("st",), "shared", target[done], 32, count, who, data[done])
        if not done.all():
            left.append((threads[~done], group[~done], target[~done], data[~done]))
    batch.copies = left
