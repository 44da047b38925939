"""The threads of some blocks, executed in lock-step."""

import numpy as np

from .memory import LOCAL_WINDOW, SHARED_WINDOW, RaceDetector
from .program import Address, Immediate, Not, Register, Special, Symbol
from .schedule import Threads
from .values import UINT, Fault, from_bits, to_bits, width

UNSET = 0xCD  # shared memory and frames start with this byte, as a GPU promises nothing


class Batch(Threads):
    """Registers and memories of the threads of some blocks."""

    def __init__(self, launch, blocks):
        size = int(np.prod(launch.block))
        super().__init__(launch.program, blocks, size)
        self.launch = launch
        self.specials = self._special_registers(size)
        self._reset_memory()
        self.registers = [None] * self.program.slots

    def _special_registers(self, size):
        grid, block = self.launch.grid, self.launch.block
        values = {"laneid": self.lane, "warpid": self.warp, "nwarpid": -(-size // 32)}
        values["dynamic_smem_size"] = self.launch.shared_bytes - self.program.shared_bytes
        for name, number, shape in (
            ("tid", self.thread, block),
            ("ctaid", self.blocks[self.block], grid),
        ):
            stride = 1
            for axis, extent in zip("xyz", shape, strict=False):
                values[f"{name}.{axis}"] = number // stride % extent
                values[f"n{name}.{axis}"] = extent
                stride *= extent
        bit = np.uint64(1) << self.lane.astype(np.uint64)
        below = bit - np.uint64(1)
        all_lanes = np.uint64(0xFFFFFFFF)
        values.update(lanemask_eq=bit, lanemask_lt=below, lanemask_le=below | bit)
        values.update(lanemask_ge=all_lanes ^ below, lanemask_gt=all_lanes ^ (below | bit))
        for name in ("clock", "clock64", "globaltimer", "smid", "gridid"):
            values[name] = 0
        return {"%" + name: np.broadcast_to(np.asarray(v).astype(np.uint64), self.count) for name, v in values.items()}

    def _reset_memory(self):
        size = -(-self.launch.shared_bytes // 16) * 16 + 16
        self.shared = np.full((len(self.blocks), size), UNSET, np.uint8)
        frame = self.launch.frame
        frame = np.pad(frame, (0, -len(frame) % 8 + 8))
        self.frame = np.tile(frame, (self.count, 1))
        self.races = None
        if self.launch.racecheck:
            self.races = RaceDetector(len(self.blocks), size, self._smallest_access())
        self.copies = []  # cp.async not yet complete: (threads, group, address, data)
        self.copy_group = np.zeros(self.count, np.int32)

    def _smallest_access(self):
        memory_ops = ("ld", "st", "atom", "red")
        accesses = [i for i in self.code if i.op[0] in memory_ops and i.space in ("shared", "")]
        found = [width(i.op[-1]) // 8 for i in accesses if i.op[-1] != "b128"]
        found += [2 for i in self.code if i.op[0] in ("ldmatrix", "stmatrix")]
        return min(found, default=4)

    # ---- registers and operands ---------------------------------------------------------

    def read(self, operand, kind, active):
        """Values of an operand, one per active thread."""
        if type(operand) is Register:
            raw = self.registers[operand.slot]
            if raw is None:
                raw = self.registers[operand.slot] = np.zeros(self.count, np.uint64)
            return from_bits(raw if len(active) == self.count else raw[active], kind)
        if type(operand) is Not:
            return ~self.read(operand.operand, "pred", active)
        if type(operand) is Special and operand.name in self.specials:
            return from_bits(self.specials[operand.name][active], kind)
        key = operand, kind, len(active)
        if key not in self.launch.constants:
            self.launch.constants[key] = self._constant(operand, kind, len(active))
        return self.launch.constants[key]

    def _constant(self, operand, kind, count):
        """The value of an immediate or of a symbol, once per thread; read-only."""
        if type(operand) is Immediate:
            bits = operand.bits
        elif type(operand) is Symbol and operand.name in self.launch.symbols:
            bits = self.launch.symbols[operand.name]
        else:
            raise Fault(f"operand {operand} is not supported")
        value = from_bits(np.array([bits], np.uint64), kind)
        return np.broadcast_to(value, (count, *value.shape[1:]))

    def write(self, operand, values, kind, active):
        if type(operand) is not Register:
            if operand == Special("_"):
                return
            raise Fault(f"cannot write to {operand}")
        raw = self.registers[operand.slot]
        if raw is None:
            raw = self.registers[operand.slot] = np.zeros(self.count, np.uint64)
        raw[slice(None) if len(active) == self.count else active] = to_bits(values, kind)

    def address(self, operand, active):
        if type(operand) is not Address:
            raise Fault(f"address {operand} is not supported")
        base = self.read(operand.base, "u64", active)
        return base + np.uint64(operand.offset & (2**64 - 1))

    # ---- memory -------------------------------------------------------------------------

    def access(self, op, space, address, bits, count, active, data=None):
        """Load (n, count) values of `bits` bits, or store `data` of that shape."""
        nbytes = bits // 8 * count
        misaligned = (address % np.uint64(nbytes)) != 0
        if misaligned.any():
            raise Fault(f"misaligned {nbytes}-byte access", misaligned)
        if space == "":
            return self._generic(op, address, bits, count, active, data)
        checked = not {"volatile", "relaxed", "acquire", "release"} & set(op)
        atomic = op[0] in ("atom", "red")
        if space in ("global", "const"):
            owner = self.blocks[self.block[active]]
            memory = self.launch.memory
            return memory.access(address, bits, count, owner, data, checked, atomic)
        offset = (address & np.uint64(0xFFFFFFFF)).astype(np.int64)
        if space == "shared":
            return self._shared(offset, bits, count, active, data, checked, atomic)
        return self._words("local", self.frame, active, offset, bits, count, data)

    def _generic(self, op, address, bits, count, active, data):
        loaded = np.empty((len(active), count), UINT[bits])
        window = np.where(address >= SHARED_WINDOW, 2, np.where(address >= LOCAL_WINDOW, 1, 0))
        for number, (space, base) in enumerate((("global", 0), ("local", LOCAL_WINDOW), ("shared", SHARED_WINDOW))):
            here = window == number
            if here.any():
                rows = None if data is None else data[here]
                offset = address[here] - np.uint64(base)
                got = self.access(op, space, offset, bits, count, active[here], rows)
                if data is None:
                    loaded[here] = got
        return loaded

    def _words(self, name, memory, row, offset, bits, count, data):
        outside = offset + bits // 8 * count > memory.shape[1]
        if outside.any():
            raise Fault(f"{name} access out of bounds", outside)
        index = row[:, None], (offset // (bits // 8))[:, None] + np.arange(count)
        words = memory.view(UINT[bits])
        if data is None:
            return words[index]
        words[index] = data

    def _shared(self, offset, bits, count, active, data, checked, atomic):
        nbytes, row = bits // 8 * count, self.block[active]
        outside = offset + nbytes > self.launch.shared_bytes
        if outside.any():
            raise Fault(f"shared access out of bounds ({self.launch.shared_bytes} bytes)", outside)
        if self.races and checked:
            kind = "atomic" if atomic else "read" if data is None else "write"
            warp, epoch = self.warp[active], self.epoch[row]
            same = None
            if kind == "write":  # two warps that hold the same value may both store it
                same = (self._words("shared", self.shared, row, offset, bits, count, None) == data).all(axis=1)
            self.races.check(kind, row, warp, epoch, offset, nbytes, same)
        result = self._words("shared", self.shared, row, offset, bits, count, data)
        if self.races and checked and data is not None and not atomic:
            self._two_writers(row, offset, bits, count, active, data)
        return result

    def _two_writers(self, row, offset, bits, count, active, data):
        """Different values stored to one place by two warps in the same instruction."""
        lost = self._words("shared", self.shared, row, offset, bits, count, None) != data
        last = self.races.writer[row, offset // self.races.piece]
        lost = lost.any(axis=1) & (last != self.warp[active])
        if lost.any():
            raise Fault("race: two warps write different values to one place", lost)
