"""The interpreter must fail: planted bugs, and instructions that it does not know."""

import re
from fractions import Fraction

import numpy as np
import pytest
from ptx import Fault, Kernel
from ptx.build import cuda_module
from ptx.values import add_to_odd

f32 = np.float32


@pytest.fixture(scope="module", params=[75, 80])
def arch(request):
    return request.param


BUGS = [
    ("missing_barrier_before_read", 1, 256, "race: read after write"),
    ("missing_barrier_before_overwrite", 1, 256, "race: write after read"),
    ("read_past_the_end", 1, 1024, "out of bounds"),
    ("divergent_barrier", 1, 256, "different barriers"),
    ("shuffle_with_absent_lanes", 1, 32, "a lane named in the mask is not there"),
    ("misaligned_load", 1, 32, "misaligned 16-byte access"),
    ("read_wide_after_narrow_write", 1, 256, "race: read after write"),
    ("read_counter_without_barrier", 1, 256, "race: read after write"),
    ("neighbour_block_race", 2, 32, "race: "),
    ("shared_past_the_end", 1, 64, "shared access out of bounds"),
    ("mask_without_the_caller", 1, 32, "the mask lacks the calling lane"),
    ("barrier_in_a_branch", 1, 64, "different barriers|deadlock"),
]


@pytest.mark.parametrize(("name", "grid", "block", "message"), BUGS, ids=[bug[0] for bug in BUGS])
def test_planted_bug(arch, name, grid, block, message):
    module = cuda_module("tests/ptx/bugs.cu", arch)
    x, out = np.arange(1024, dtype=f32), np.zeros(1024, f32)
    args = [x, 64] if name == "neighbour_block_race" else [x, out]
    with pytest.raises(Fault, match=message) as caught:
        Kernel(module, name).launch(grid, block, args, check_blocks=True)
    assert re.search(r"at: \w.*first: block \d+ thread \d+", str(caught.value)), "the instruction is named"


def test_missing_wait_for_a_copy():
    """No fault, but the data have not arrived."""
    x, out = np.arange(512, dtype=f32), np.zeros(512, f32)
    Kernel(cuda_module("tests/ptx/bugs.cu", 80), "missing_wait_for_copy").launch(1, 128, [x, out])
    assert (out != x.reshape(-1, 4)[::-1].reshape(-1)).any()


def test_write_to_read_only_array(arch):
    x, out = np.arange(32, dtype=f32), np.zeros(32, f32)
    x.flags.writeable = False
    with pytest.raises(Fault, match="read-only"):
        Kernel(cuda_module("tests/ptx/bugs.cu", arch), "write_to_input").launch(1, 32, [x, out])


TEMPLATE = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry one(.param .u64 out)
{{
.reg .b64 %rd<4>;
.reg .b32 %r<4>;
.reg .f32 %f<4>;
ld.param.u64 %rd1, [out];
mov.b32 %r1, 7;
mov.f32 %f1, 0f3F800000;
{}
st.global.b32 [%rd1], %r1;
ret;
}}
"""
UNKNOWN = [
    ("add.cc.u32 %r1, %r1, %r1;", "modifier .cc"),
    ("wgmma.fence.sync.aligned;", "unsupported instruction"),
    ("atom.global.add.noidea.u32 %r1, [%rd1], %r1;", "modifier .noidea"),
    ("ld.global.mmio.relaxed.sys.u32 %r1, [%rd1];", "modifier .mmio"),
    ("setp.eq.shifted.u32 %r1, %r1, %r1;", "modifier .shifted"),
    ("lop3.or.b32 %r1, %r1, %r1, %r1, 3;", "modifier .or"),
    ("mov.u32 %r1, %nosuch;", "not supported"),
    ("trap;", "executes trap"),
]


@pytest.mark.parametrize(("line", "message"), UNKNOWN, ids=[case[0].split()[0] for case in UNKNOWN])
def test_what_is_not_understood_is_refused(line, message):
    with pytest.raises(Fault, match=message) as caught:
        Kernel(TEMPLATE.format(line), "one").launch(1, 32, [np.zeros(1, np.uint32)])
    assert line.split()[0].rstrip(";") in str(caught.value)


def test_the_template_itself_runs():
    out = np.zeros(1, np.uint32)
    Kernel(TEMPLATE.format(""), "one").launch(1, 32, [out])
    assert out[0] == 7


def test_fused_multiply_add_rounds_once(rng):
    """Odd products of 25 bits lie halfway between two float32; the addend decides, and float64 loses it."""
    x, y = (2 * rng.integers(2048, 2896, (2, 500)) + 1).astype(f32)
    z = (rng.choice([-1, 1], 500) * 2.0 ** -rng.integers(20, 60, 500)).astype(f32)
    got = add_to_odd(x.astype(np.float64) * y, z.astype(np.float64)).astype(f32)
    rounded_twice = 0
    for a, b, c, g in zip(x.tolist(), y.tolist(), z.tolist(), got, strict=True):
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        near = [g, np.nextafter(g, f32(np.inf)), np.nextafter(g, f32(-np.inf))]
        assert min(near, key=lambda n: abs(Fraction(float(n)) - exact)) == g
        rounded_twice += f32(a * b + c) != g
    assert rounded_twice > 50, "the operands are too easy"
