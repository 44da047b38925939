"""Sizes of the tiles of relative-position attention: a fixed table by architecture, type and width of a head.

Each is the largest of those tried that ptxas fits into registers; which is fastest is *unmeasured*.
"""

import math
from typing import NamedTuple


class Tile(NamedTuple):
    queries: int  # of a program, or of a step where a program has keys
    keys: int
    warps: int
    stages: int


SMALL = Tile(32, 32, 4, 1)  # sm_75: 64 KiB of shared memory, no copies beside the work


def forward_tile(arch: int, itemsize: int, width: int, kind: str) -> Tile:
    """For numbers of ``itemsize`` bytes and heads of ``width``; kind: "grid", "window", "list"."""
    if arch < 80:
        return SMALL
    if itemsize == 4:
        # Three products of both halves of every operand, in registers. wgmma takes its operands from shared memory.
        if arch == 90:
            return Tile(64, 32, 4, 2)
        return Tile(64, 16, 8, 1) if width > 64 or arch in (100, 103) else Tile(64, 32, 8, 2)
    if kind == "grid" and arch in (90, 100, 103):
        return Tile(128, 64, 8, 3)  # two groups of warps share the keys: half the reads of one with 64 queries
    if kind == "list" and arch in (100, 103):
        return Tile(64, 64, 4, 1)  # with two stages 8 bytes spill
    return Tile(64, 64, 4, 2)  # a window of 196 fills 4 blocks; the one-hot places of a list need the registers


def backward_tile(arch: int, itemsize: int, width: int, kernel: str) -> Tile:
    """kernel: "keys", "queries" of a grid, "listed keys", "listed queries"."""
    if arch < 80:
        return SMALL
    if itemsize == 4:
        return Tile(32, 32, 4, 1)
    if arch in (90, 100, 103):
        return Tile(64, 64, 8, 2)
    # mma operands are in registers there: what holds more than one sum per query or key is halved.
    tiles = {"keys": (64, 64, 8, 2), "queries": (32, 64, 4, 2), "listed keys": (64, 32, 8, 1)}
    return Tile(*tiles.get(kernel, (32, 64, 8, 1)))


def cut(size: tuple[int, int], keys: int) -> tuple[int, int]:
    """Rows and columns of a tile of ``keys`` keys: those that leave the fewest places empty."""
    shapes = [(keys // n, n) for n in (16, 32, 64, 128) if n <= keys]

    def padded(shape: tuple[int, int]) -> int:
        return math.prod(-(-n // m) * m for n, m in zip(size, shape, strict=True))

    return min(shapes, key=lambda shape: (padded(shape), shape[0]))


def parts_of(width: int) -> tuple[int, int]:
    """Sizes of the two parts of a head, powers of two from 16 on; the second one may be 0."""
    first = max(16, 1 << (width.bit_length() - 1))
    return first, max(16, 1 << (width - first - 1).bit_length()) if width > first else 0
