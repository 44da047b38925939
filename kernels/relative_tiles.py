"""Sizes of the tiles of relative-position attention: a fixed table by architecture, type and width of a head."""

import math
from typing import NamedTuple


class Tile(NamedTuple):
    queries: int  # of a program, or of a step where a program has keys
    keys: int
    warps: int
    stages: int


def forward_tile(arch: int, itemsize: int, width: int, kind: str) -> Tile:
    """For numbers of ``itemsize`` bytes and heads of ``width``; kind: "grid", "window", "list"."""
    if arch < 80:
        return Tile(32, 32, 4, 1)
    if itemsize == 4:
        return Tile(64, 32, 8, 2)
    return Tile(64, 64, 4, 2)


def backward_tile(arch: int, itemsize: int, width: int, kernel: str) -> Tile:
    """kernel: "keys", "queries" of a grid, "list"."""
    if arch < 80:
        return Tile(32, 32, 4, 1)
    if itemsize == 4:
        return Tile(32, 32, 4, 1)
    return Tile(64, 64, 8, 2)


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
