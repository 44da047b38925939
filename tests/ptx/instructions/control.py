"""Branches, calls and barriers."""

import numpy as np

from ..values import Fault
from .table import instruction


def without_result(*names):
    """Instructions that order or hint; nothing to do in lock-step."""
    for name in names:
        instruction(name, allow=None)(lambda batch, active, ins: None)


without_result("membar", "fence", "prefetch", "prefetchu", "applypriority", "discard")
without_result("nanosleep", "griddepcontrol", "setmaxnreg")


@instruction("bra", allow="uni", schedules=True)
def branch(batch, active, ins):
    batch.turn[active] = ins.target


@instruction("brx", allow="idx uni", schedules=True)
def branch_by_table(batch, active, ins):
    batch.turn[active] = np.array(ins.target)[batch.read(ins.args[0], "u32", active)]


@instruction("call", allow="uni", schedules=True)
def call(batch, active, ins):
    if ins.target is None:
        return system_call(batch, active, ins)
    for source, target, size in ins.target.copy_in:
        batch.frame[active, target : target + size] = batch.frame[active, source : source + size]
    depth = batch.depth[active]
    while len(batch.return_pc) <= depth.max():
        batch.return_pc.append(np.zeros(batch.count, np.int32))
    for level in np.unique(depth):
        here = active[depth == level]
        batch.return_pc[level][here] = batch.turn[here]
    batch.depth[active] += 1
    batch.turn[active] = ins.target.pc


def system_call(batch, active, ins):
    name, results, _ = ins.args
    if name.name == "__assertfail":
        raise Fault("device assertion failed")
    if name.name != "vprintf":  # printf prints nothing
        raise Fault(f"call of the external function {name.name}")
    for result in results.parts:
        batch.frame[active, result.bits : result.bits + 4] = 0


@instruction("ret", allow="uni", schedules=True)
def finish_function(batch, active, ins):
    depth = batch.depth[active]
    batch.finish(active[depth == 0])
    for level in np.unique(depth[depth > 0]):
        here = active[depth == level]
        back = batch.return_pc[level - 1][here]
        for pc in np.unique(back):
            who = here[back == pc]
            for source, target, size in batch.code[pc - 1].target.copy_out:
                moved = batch.frame[who, source : source + size]
                batch.frame[who, target : target + size] = moved
            batch.turn[who] = pc
        batch.depth[here] -= 1


@instruction("exit", schedules=True)
def finish_thread(batch, active, ins):
    batch.finish(active)


@instruction("trap", "brkpt")
def trap(batch, active, ins):
    raise Fault(f"the kernel executes {ins.op[0]}")


@instruction("bar", "barrier", allow="cta aligned sync red popc and or warp", schedules=True)
def barrier(batch, active, ins):
    op = [part for part in ins.op[1:] if part not in ("cta", "aligned")]
    if op[0] == "warp":
        return
    if op[0] == "sync":
        number, *size = ins.args
        value = None
    elif op[0] == "red":
        _, number, *size, operand = ins.args
        value = batch.read(operand, "pred", active)
    else:
        raise Fault("this kind of barrier is not supported")
    number = batch.read(number, "u32", active)
    size = batch.read(size[0], "u32", active) if size else 0
    batch.wait_at_barrier(active, number, size, value)


def reduce_at_barrier(batch, active, pc):
    """Result of bar.red for the threads that a complete barrier lets go"""
    ins = batch.code[pc]
    if "red" not in ins.op:
        return
    block, blocks = batch.block[active], len(batch.blocks)
    votes = np.bincount(block, batch.barrier_value[active], blocks)
    if "popc" in ins.op:
        batch.write(ins.args[0], votes[block].astype(np.uint32), "u32", active)
    else:
        voters = np.bincount(block, minlength=blocks)
        result = votes > 0 if "or" in ins.op else votes == voters
        batch.write(ins.args[0], result[block], "pred", active)
