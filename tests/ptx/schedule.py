"""Program counters: who executes the next instruction, and who waits for whom."""

import itertools

import numpy as np

from . import instructions
from .values import Fault

IDLE = np.iinfo(np.int32).max
RUNNING, AT_BARRIER, AT_WARP, DONE = range(4)
FAIRNESS = 1024  # every so many turns the largest pc runs, so that a spinning thread starves none
QUANTUM = 64  # turns before other blocks run, where an order is asked for


class LocatedFault(Fault):
    """A fault whose text names the instruction, block and thread."""


class Threads:
    """The threads of some blocks. The smallest pc runs first, so branches meet again."""

    def __init__(self, program, blocks, size):
        self.program, self.code, self.blocks = program, program.code, blocks
        self.thread = np.tile(np.arange(size), len(blocks))  # number in the block
        self.block = np.repeat(np.arange(len(blocks)), size)  # number in the batch
        self.lane, self.warp = self.thread % 32, self.thread // 32
        warps = -(-size // 32)
        self.batch_warp = self.block * warps + self.warp
        self.warps = warps * len(blocks)
        self.count = len(self.thread)
        self.lanes_of_warp = self.ballot(np.arange(self.count), np.ones(self.count, bool))
        self.turn = np.full(self.count, program.start, np.int32)  # pc, or IDLE
        self.at = np.zeros(self.count, np.int32)  # pc of an idle thread
        self.state = np.full(self.count, RUNNING, np.int8)
        self.stalled = False  # is any thread AT_WARP?
        self.yielded = np.zeros(self.count, bool)  # has looked at a flag: the others run first
        self.yielding = False
        self.barrier = np.zeros(self.count, np.int32)
        self.barrier_size = np.zeros(self.count, np.int32)  # 0: the whole block
        self.barrier_value = np.zeros(self.count, bool)  # operand of bar.red
        self.epoch = np.zeros(len(blocks), np.int32)  # barriers passed
        self.return_pc = []  # one array per call depth
        self.depth = np.zeros(self.count, np.int32)

    # ---- which threads run --------------------------------------------------------------

    def run(self, order):
        chosen, left, some = turns(order, self.block, self.batch_warp), 0, None
        for step in itertools.count():
            if not left:
                some, left = next(chosen)
            left -= 1
            turn = self.turn if some is None else np.where(some, self.turn, IDLE)
            turn = np.where(self.yielded, IDLE, turn) if self.yielding else turn
            pc = int(turn.min())
            if pc == IDLE:
                left = 0
                if self._all_done():
                    return
                continue
            if step % FAIRNESS == FAIRNESS - 1:
                pc = int(turn[turn != IDLE].max())
            here = turn == pc
            if self.stalled:
                here |= self._rejoin(pc)
            others = turn[turn > pc]
            self.advance(pc, np.flatnonzero(here), int(others.min()) if len(others) else IDLE)

    def _all_done(self):
        """None of the chosen threads can run: is it over? Else sees to it that somebody can."""
        running = self.turn != IDLE
        if (running & ~self.yielded).any():
            return False  # threads that are not chosen now
        if running.any():
            self.yielded[:] = self.yielding = False
        elif (self.state == DONE).all():
            return True
        elif not self._release_barriers():
            self._explain_deadlock()
        return False

    def _rejoin(self, pc):
        """Threads that wait for lanes of their warp at this instruction."""
        rejoin = (self.state == AT_WARP) & (self.at == pc)
        self.state[rejoin] = RUNNING
        self.stalled = bool((self.state == AT_WARP).any())
        return rejoin

    def advance(self, pc, active, others):
        """Executes from pc on, without a look at the other threads until a branch or their pc."""
        first = pc
        while not self.code[pc].schedules:
            self.step(pc, active)
            pc += 1
            if pc >= others:
                self.turn[active] = pc
                return
        if self.stalled and pc != first:  # threads that wait at this instruction may rejoin
            self.turn[active] = pc
            return
        self.turn[active] = pc + 1
        self.step(pc, active)

    def step(self, pc, active):
        instruction = self.code[pc]
        self.launch.count += len(active)
        if instruction.guard is not None:
            active = active[self.read(instruction.guard, "pred", active) == instruction.wanted]
            if not len(active):
                return
        trace, name = self.launch.trace, instruction.op[0]
        if trace is not None:
            trace[name] = trace.get(name, 0) + len(active)
        try:
            if instruction.problem:
                raise Fault(instruction.problem)
            if instruction.schedules:
                mask = instructions.warp_mask(self, active, instruction)
                if mask is not None:
                    active = self.gather_warp(mask, pc, active)
            if len(active):
                instruction.run(self, active, instruction)
                if instruction.yields:
                    self.yielded[active] = self.yielding = True
        except LocatedFault:
            raise
        except Fault as fault:
            raise self._located(fault, instruction, active) from None
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            fault = Fault(f"unsupported form of an instruction ({error!r})")
            raise self._located(fault, instruction, active) from error

    def _located(self, fault, instruction, active):
        culprits = active if fault.culprits is None else active[fault.culprits]
        first = culprits[0]
        place = f"block {self.blocks[self.block[first]]} thread {self.thread[first]}"
        text = f"{fault}\n  at: {instruction.text}  ({len(culprits)} threads, first: {place})"
        return LocatedFault(text, culprits)

    def park(self, active, state, pc):
        self.state[active], self.at[active], self.turn[active] = state, pc, IDLE

    def finish(self, active):
        self.park(active, DONE, -1)
        self._release_barriers(self.block[active])

    # ---- warps --------------------------------------------------------------------------

    def ballot(self, active, values):
        """Bit mask per warp of the batch: the active lanes where `values` is true."""
        table = np.zeros((self.warps, 32), np.uint64)
        table[self.batch_warp[active], self.lane[active]] = values
        return (table << np.arange(32, dtype=np.uint64)).sum(axis=1)

    def warp_table(self, active, values):
        """(warps, 32) array of the values, zero where a lane is not active."""
        table = np.zeros((self.warps, 32), values.dtype)
        table[self.batch_warp[active], self.lane[active]] = values
        return table

    def gather_warp(self, mask, pc, active):
        """The active threads whose partners, named by the mask, are all here; others wait."""
        warp = self.batch_warp[active]
        mask = mask.astype(np.uint64)
        itself = (mask >> self.lane[active].astype(np.uint64)) & np.uint64(1)
        if not itself.all():
            raise Fault("warp-synchronous instruction: the mask lacks the calling lane", itself == 0)
        here = self.ballot(active, np.ones(len(active), bool))
        complete = (mask & self.lanes_of_warp[warp] & ~here[warp]) == 0
        if not complete.all():
            self.park(active[~complete], AT_WARP, pc)
            self.stalled = True
        return active[complete]

    # ---- barriers -----------------------------------------------------------------------

    def wait_at_barrier(self, active, number, size, value=None):
        """The block's threads, or `size` of them, wait for one another."""
        self.park(active, AT_BARRIER, self.turn[active] - 1)
        self.barrier[active], self.barrier_size[active] = number, size
        if value is not None:
            self.barrier_value[active] = value
        self._release_barriers(self.block[active])

    def _release_barriers(self, among=None):
        """Let the threads of complete barriers go on; False if there is none.

        `among`: the blocks to look at. While threads run, only barriers of all living threads of a block are
        complete; a thread that ends later must not have counted, so the others wait until nobody runs.
        """
        blocks, released = len(self.blocks), np.zeros(self.count, bool)
        waiting = self.state == AT_BARRIER
        if among is not None:
            asked = np.zeros(blocks, bool)
            asked[among] = True
            waiting &= asked[self.block]
        for number in np.unique(self.barrier[waiting]):
            here = waiting & (self.barrier == number)
            arrived = np.bincount(self.block[here], minlength=blocks)
            needed = np.zeros(blocks, np.int64)
            np.maximum.at(needed, self.block[here], self.barrier_size[here])
            alive = np.bincount(self.block[self.state != DONE], minlength=blocks)
            whole = np.where(needed, needed, alive)
            complete = (arrived >= whole) & (arrived > 0)
            if among is None:
                self._same_place(here & (needed == 0)[self.block])
            else:
                self._same_place(here & ((needed == 0) & complete)[self.block])
            released |= here & complete[self.block]
        if not released.any():
            return False
        for pc in np.unique(self.at[released]):
            instructions.reduce_at_barrier(self, np.flatnonzero(released & (self.at == pc)), pc)
        self.epoch[np.unique(self.block[released])] += 1
        self.turn[released] = self.at[released] + 1
        self.state[released] = RUNNING
        return True

    def _same_place(self, here):
        """A barrier of the whole block must be the same instruction for all its threads."""
        lowest = np.full(len(self.blocks), IDLE, np.int32)
        np.minimum.at(lowest, self.block[here], self.at[here])
        other = here & (self.at != lowest[self.block])
        if other.any():
            fault = Fault("threads of one block wait at different barriers")
            active = np.flatnonzero(other)
            raise self._located(fault, self.code[self.at[active[0]]], active)

    def _explain_deadlock(self):
        stalled = np.flatnonzero(self.state == AT_WARP)
        if len(stalled):
            text = "warp-synchronous instruction: a lane named in the mask is not there"
            active = stalled[self.at[stalled] == self.at[stalled[0]]]
        else:
            text = "deadlock: barrier not reached by all threads"
            active = np.flatnonzero(self.state == AT_BARRIER)
        raise self._located(Fault(text), self.code[self.at[active[0]]], active)


def turns(order, block, warp):
    """Which threads may run (a mask, or None: all of them, in lock-step) and for how many turns.

    `block` and `warp` are the numbers of the threads' blocks and warps in the batch.
    """
    if order is None:
        yield from itertools.repeat((None, QUANTUM))
    if order == "forward":
        for number in itertools.count():
            yield block == number % (block[-1] + 1), QUANTUM
    rng, warps = np.random.default_rng(order), warp[-1] + 1
    while True:
        some = np.zeros(warps, bool)
        some[rng.permutation(warps)[: rng.integers(1, warps + 1)]] = True
        yield some[warp], int(rng.integers(1, 2 * QUANTUM))
