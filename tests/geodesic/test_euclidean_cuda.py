"""csrc/geodesic/cuda_euclidean.cu: the PTX that nvcc emits, executed, gives the bits of the CPU's transform."""

import math

import numpy as np
import pytest
from ptx import Fault, Kernel, Module
from ptx.build import cuda_module, cuda_ptx

import fastprompt as fp
from fastprompt import _C

SOURCE = "csrc/geodesic/cuda_euclidean.cu"
ROWS, COLUMNS, DEPTH = "rows_kernel", "columns_kernel", "depth_kernel"
KNOT, SHARED = 32, 48 * 1024  # of the kernels


def kernel(name, arch=80, module=None):
    module = module or cuda_module(SOURCE, arch, "-fmad=false")
    return Kernel(module, next(n for n in module.entries if name in n))


def knots(n):
    return -(-(n - 1) // KNOT) + 1


def unit(spacing, sizes):
    """A power of two in which the longest distance is about 2^60, and the spacing in it."""
    longest = max(np.finfo(np.float64).tiny, *(s * (n - 1) for s, n in zip(spacing, sizes, strict=True)))
    e = min(126, max(-127, 60 - (math.frexp(longest)[1] - 1)))
    return math.ldexp(1.0, -e), [math.ldexp(s, e) for s in spacing]


def transform(seeds, spacing=(1.0, 1.0, 1.0), *, arch=80, module=None, staged=None, **launch):
    """Distances (B, D, H, W) as the launches compute them."""
    batch, nz, ny, nx = seeds.shape
    scale, step = unit(spacing, (nz, ny, nx))
    mask = np.ascontiguousarray(seeds, np.uint8)
    mask.flags.writeable = False
    heights, rows, out = (np.full(seeds.shape, np.nan, np.float32) for _ in range(3))
    squares = np.full(nx + nz, np.nan, np.float32)
    words, planes = -(-ny // 32), batch * nz
    kernel(COLUMNS, arch, module).launch(
        planes * -(-nx // 32), 32 * min(32, words), [mask, heights, squares, nz, ny, nx, step[0], step[2],
        min(step[1] ** 2, float(np.finfo(np.float32).max))], 4 * 32 * words, check_blocks=True, **launch,
    )  # fmt: skip
    last = np.float32(scale if nz == 1 else 0)
    tables = squares[:nx].copy(), squares[nx:].copy()
    kernel(ROWS, arch, module).launch(
        planes * ny, 128, [heights, tables[0], rows, nx, last], 4 * knots(nx), check_blocks=True, **launch
    )
    if nz == 1:
        return rows
    known, tile = 8 * knots(nz), nz * (16 + 1 + 8)
    staged = 4 * (known + tile) <= SHARED if staged is None else staged
    kernel(f"{DEPTH}ILb{int(staged)}E", arch, module).launch(
        batch * -(-ny * nx // 16), 256, [rows, tables[1], out, nz, ny * nx, np.float32(scale)],
        4 * (known + tile * staged), check_blocks=True, **launch,
    )  # fmt: skip
    return out


def scattered(rng, *shape, share=0.02):
    return rng.random(shape) < share


def same_bits(got, expected):
    np.testing.assert_array_equal(got.view(np.int32), np.ascontiguousarray(expected).view(np.int32))


SIZES = [  # words have 32 rows, knots are 32 pixels apart, tiles 32 columns
    (1, 1, 1, 1),
    (2, 1, 33, 65),
    (1, 1, 70, 31),
    (1, 1, 1, 129),
    (1, 1, 97, 1),
    (1, 1, 1030, 3),  # a warp has several words
    (1, 1, 3, 300),
    (2, 5, 4, 7),
    (1, 40, 6, 9),
    (1, 67, 1, 17),
]
SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.1, 1.3), (3.0, 1e-12, 2.5e7)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bits_of_the_cpu(rng, size):
    for share in (0.02, 0.4):
        seeds = scattered(rng, *size, share=share)
        seeds[0].flat[0] = True
        same_bits(transform(seeds), fp.euclidean_distance_transform(seeds, dims=3))


@pytest.mark.parametrize("spacing", SPACINGS[1:], ids=str)
@pytest.mark.parametrize("size", [(1, 1, 40, 70), (1, 9, 5, 33)], ids=str)
def test_spacing(rng, size, spacing):
    seeds = scattered(rng, *size)
    same_bits(transform(seeds, spacing), fp.euclidean_distance_transform(seeds, spacing=spacing, dims=3))


@pytest.mark.parametrize("arch", [75, 90, 120])
def test_other_architectures_and_orders(rng, arch):
    for size in ((2, 1, 37, 41), (1, 5, 3, 18)):
        seeds = scattered(rng, *size)
        for order in (1, "reverse"):
            got = transform(seeds, arch=arch, order=order)
            same_bits(got, fp.euclidean_distance_transform(seeds, dims=3))


def test_lines_too_long_for_shared_memory(rng):
    for size, staged in (((1, 36, 3, 7), False), ((1, 520, 1, 2), None)):
        seeds = scattered(rng, *size)
        same_bits(transform(seeds, staged=staged), fp.euclidean_distance_transform(seeds, dims=3))


def test_far_apart(rng):
    """Half-empty images: columns and rows without a seed, an image without any."""
    seeds = np.zeros((3, 1, 65, 100), bool)
    seeds[0, 0, 64, 99] = seeds[1, 0, :, 0] = True
    got = transform(seeds)
    same_bits(got, fp.euclidean_distance_transform(seeds, dims=3))
    assert np.isinf(got[2]).all()


BUGS = [  # (what is wrong, pattern, in its place, in which kernel): every place at once
    ("no seed above", r"clz\.b32\s+(%r\d+), %r\d+;", r"mov.b32 \1, 3;", COLUMNS),
    ("candidates end one early", r"setp\.lt\.s32(\s+%p\d+, %r\d+, %r\d+;)", r"setp.le.s32\1", ROWS),
    ("no barrier", r"bar\.sync\s+0;", "", COLUMNS),
    ("no barrier", r"bar\.sync\s+0;", "", ROWS),
    ("no barrier", r"bar\.sync\s+0;", "", DEPTH + "ILb1E"),
    ("the largest", r"min\.f32", "max.f32", ROWS),
]


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_planted_bugs_are_found(rng, bug):
    import re

    _, pattern, instead, name = bug
    text = cuda_ptx(SOURCE, 80, "-fmad=false")
    start = re.search(rf"\.entry \w*{name}", text).start()
    end = text.index("\n}\n", start)
    altered, count = re.subn(pattern, instead, text[start:end])
    assert count
    module = Module(text[:start] + altered + text[end:])
    found = []
    for size in ((1, 1, 70, 270), (1, 9, 3, 21)):
        seeds = scattered(rng, *size)
        expected = fp.euclidean_distance_transform(seeds, dims=3)
        try:
            found.append(not np.array_equal(transform(seeds, module=module), expected))
        except Fault:
            found.append(True)
    assert any(found)


def test_a_size_that_is_too_large(rng):
    seeds = scattered(rng, 1, 1, 40, 40)
    with pytest.raises(Fault, match="out of bounds"):
        kernel(ROWS).launch(
            41, 128, [seeds[0, 0].astype(np.float32), np.zeros(40, np.float32), np.empty((40, 40), np.float32), 40,
            np.float32(1)], 4 * knots(40),
        )  # fmt: skip


def test_dispatch(monkeypatch):
    """What reaches the launcher: contiguous bytes, its workspace, the sizes, the current stream."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    fp.euclidean_distance_transform(torch.ones(1, 1))  # registers the operator
    from fastprompt.ops._operator import OPERATORS

    transform, launches = OPERATORS["euclidean_distance_transform"].on_gpu, []
    stream = type("Stream", (), {"cuda_stream": 77})
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    for name, value in {
        "euclidean_cuda_rows": 12288,
        "euclidean_cuda_line": 48000,
        "euclidean_cuda_workspace": lambda mask: mask.numel() + 7,
        "euclidean_distance_transform_cuda": lambda **fields: launches.append(fields),
    }.items():
        monkeypatch.setattr(_C, name, value, raising=False)
    out = transform(torch.ones(2, 1, 1, 5, 4).transpose(3, 4) > 0, [1.0, 2.0, 3.0])
    assert out.shape == (2, 1, 1, 4, 5)
    assert out.dtype == torch.float32
    (fields,) = launches
    assert (fields["mask"].shape, fields["spacing"], fields["stream"]) == ((2, 1, 1, 4, 5), (1.0, 2.0, 3.0), 77)
    assert fields["mask"].is_contiguous()
    assert fields["workspace"].shape == (2 * 4 * 5 + 7,)
    assert fields["out"] is out
    with pytest.raises(ValueError, match=r"at most 12288 rows .*\(1, 12289, 1\): call seeds\.cpu\(\)"):
        transform(torch.ones(1, 1, 1, 12289, 1) > 0, [1.0, 1.0, 1.0])
    with fp.backend("reference"):
        assert (transform(torch.ones(1, 1, 1, 2, 3, dtype=torch.bool), [1.0, 1.0, 1.0]) == 0).all()
    assert len(launches) == 1
    monkeypatch.delattr(_C, "euclidean_distance_transform_cuda")
    with pytest.raises(ValueError, match=r"no CUDA kernels: build with nvcc: .*FASTPROMPT_CUDA=ON, or call seeds\.cpu"):
        transform(torch.ones(1, 1, 1, 2, 3, dtype=torch.bool), [1.0, 1.0, 1.0])


@pytest.mark.skipif(not hasattr(_C, "euclidean_cuda_workspace"), reason="this build has no CUDA kernels")
def test_launcher_without_a_gpu():
    with pytest.raises(ValueError, match="mask must be on the GPU"):
        _C.euclidean_cuda_workspace(mask=np.zeros((2, 1, 3, 5, 7), np.uint8))
