"""docs/gpu_resources.md: no spills, launchable everywhere, and as the compilers that are installed make the kernels."""

import os

import gpu_resources as resources
import pytest
from gpu_resources import LIMITS, Row, committed, resident_blocks

HOT = [80, 87, 89, 90, 100, 120]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_kernel_on_every_architecture():
    lines = [cells(line) for line in committed()[1]]
    names = {line[0] for line in lines}
    assert len(names) >= 12
    wanted = {
        (name, sm) for name in names for sm in resources.ARCHS if sm in HOT or "geodesic" in name or "Euclidean" in name
    }
    assert sorted((name, int(sm)) for name, sm, *_ in lines) == sorted(wanted)


@pytest.mark.parametrize("line", committed()[1], ids=lambda line: "-".join(cells(line)[:2]))
def test_gates(line):
    name, sm, _, registers, spills, shared, blocks, _, wide = cells(line)
    assert int(registers) <= 255
    assert int(shared) <= 1024 * (LIMITS[int(sm)][1] - (int(sm) >= 80)), "more than a block can have"
    assert int(blocks) >= 1
    if int(sm) in HOT:
        assert spills == "0"
    if not name.startswith(("geodesic", "guidance", "resize masks")):  # which gather single pixels, or clicks
        assert int(wide) > 0, "16 bytes a thread"


def test_occupancy():
    """Blocks that cuda_occupancy.h of the toolkit computes for 128 threads of 128 registers and 16 KiB: 4 everywhere;
    and others by registers, threads and shared memory."""
    for sm in LIMITS:
        assert resident_blocks(Row("", sm, 128, 128, 0, 16 * 1024, 0)) == 4
        assert resident_blocks(Row("", sm, 256, 170, 0, 60 * 1024, 0)) == 1
    assert resident_blocks(Row("", 100, 256, 127, 0, 96 * 1024, 0)) == 2
    assert resident_blocks(Row("", 80, 1024, 32, 0, 0, 0)) == 2


def test_table_is_what_the_compilers_make():
    """One architecture of the table, all of it with FASTPROMPT_GPU_TABLE=1. Kernels change: `make gpu-table`."""
    made_by, lines = committed()
    here = resources.versions()
    if here != made_by:
        pytest.skip(f"the table is by {made_by}, here are {here}")
    archs = resources.ARCHS if os.environ.get("FASTPROMPT_GPU_TABLE") else [80]
    expected = [line for line in lines if int(cells(line)[1]) in archs]
    assert sorted(row.line() for row in resources.rows(archs)) == sorted(expected)
