"""Kernels and their launch."""

import struct

import numpy as np

from . import instructions
from .machine import UNSET, Batch
from .memory import Memory
from .program import Program
from .source import Module
from .values import DTYPE, UINT, width

MEMORY = 1 << 29  # bytes for the registers, frames and shared memory of one batch


class Kernel:
    """One kernel of a PTX text: `Kernel(ptx, "saxpy").launch((4,), (256,), [n, 2.0, x, y])`."""

    def __init__(self, ptx, name=None):
        self.module = ptx if isinstance(ptx, Module) else Module(ptx)
        self.name = name or self.module.entries[0]
        self.program = Program(self.module, self.name)
        for instruction in self.program.code:
            instructions.bind(instruction)
        self.variables = {
            v.name: self._initial(v)
            for v in self.module.variables.values()
            if v.space in ("global", "const") and v.values is not None and v.nbytes
        }

    @staticmethod
    def _initial(variable):
        """Bytes of a module-level variable; the test may read and write them."""
        data = np.zeros(variable.nbytes, np.uint8)
        typed = data.view(UINT[width(variable.kind)])
        values = np.array(variable.values, np.uint64)
        typed[: len(values)] = values.astype(typed.dtype)
        return data

    def launch(
        self,
        grid,
        block,
        args,
        smem=0,
        *,
        batch=65536,
        racecheck=True,
        check_blocks=False,
        order=None,
        trace=None,
        memory=None,
    ):
        """Run the kernel on numpy arrays, in place; returns the number of thread-instructions.

        args: one value per parameter: a C-contiguous array (a pointer to it), a number, None (a
            null pointer), or for a struct by value a tuple (struct format, *fields), in which
            "P" takes an array, or its bytes. Missing last ones (Triton's scratch pointers) are 0.
        smem: bytes of dynamic shared memory.
        batch: threads that are run together (whole blocks).
        racecheck: report accesses to shared memory that no barrier orders.
        check_blocks: report array elements that two blocks touch, one of them writing.
        order: who runs when. None: all blocks in lock-step; "forward" or "reverse": block by block, the lowest
            or the highest first, in turns of some steps; a number: the seed of random turns of random warps.
        trace: a dict that receives the number of thread-instructions per opcode.
        memory: {address: array}: what pointers among the bytes of a struct point to.
        """
        grid, block = shape3(grid), shape3(block)
        if self.program.function.block and shape3(self.program.function.block) != block:
            raise ValueError(f"the kernel wants blocks of {self.program.function.block}")
        run = Launch(self, grid, block, args, smem, racecheck, check_blocks, trace, memory or {})
        blocks = np.arange(np.prod(grid))
        if order == "reverse":
            blocks = blocks[::-1]
        elif order not in (None, "forward"):
            np.random.default_rng(order).shuffle(blocks)
        step = self._blocks_at_once(int(np.prod(block)), run.shared_bytes, batch)
        with np.errstate(all="ignore"):
            for first in range(0, len(blocks), step):
                Batch(run, blocks[first : first + step]).run("forward" if order == "reverse" else order)
        return run.count

    def _blocks_at_once(self, threads, shared_bytes, batch):
        """As many blocks as `batch` threads make, but not more than fit into MEMORY."""
        per_thread = 8 * self.program.slots + self.program.frame_bytes
        per_block = threads * per_thread + 5 * shared_bytes
        return max(1, min(batch // threads, MEMORY // max(1, per_block)))


def shape3(shape):
    shape = (shape,) if np.isscalar(shape) else tuple(shape)
    return (shape + (1, 1))[:3]


class Launch:
    """What all batches of one launch share."""

    def __init__(self, kernel, grid, block, args, smem, racecheck, check_blocks, trace, memory):
        self.program, self.grid, self.block = kernel.program, grid, block
        self.racecheck, self.trace, self.count = racecheck, trace, 0
        self.constants = {}  # operands that are the same in every thread: see Batch.read
        self.shared_bytes = kernel.program.shared_bytes + smem
        self.memory = Memory(check_blocks)
        self.symbols = dict.fromkeys(kernel.program.dynamic_shared, kernel.program.shared_bytes)
        self.frame = np.full(kernel.program.frame_bytes, UNSET, np.uint8)
        for address, array in memory.items():
            self.memory.add(array, f"memory at {address:#x}", address)
        parameters = kernel.program.parameters
        if len(args) > len(parameters):
            raise ValueError(f"{len(args)} arguments for {len(parameters)} parameters")
        args = list(args) + [0] * (len(parameters) - len(args))
        for (variable, offset), value in zip(parameters, args, strict=False):
            data = self._pack(variable, value)
            self.frame[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
        for name, data in kernel.variables.items():
            self.symbols[name] = self.memory.add(data, name)
        self.memory.freeze()

    def _pack(self, variable, value):
        if isinstance(value, bytes):
            return value
        if isinstance(value, tuple):
            fields = [self._address(variable, v) for v in value[1:]]
            return struct.pack(value[0], *fields).ljust(variable.nbytes, b"\0")
        value = self._address(variable, value)
        return np.array([value or 0]).astype(DTYPE[variable.kind]).tobytes()

    def _address(self, variable, value):
        if isinstance(value, np.ndarray):
            return self.memory.add(value, f"argument {variable.name}")
        return value
