"""csrc/geodesic/cuda_*.cu: the PTX that nvcc emits, executed, gives the bits of the CPU's kernels."""

import math

import numpy as np
import pytest
from ptx import Fault, Kernel
from ptx.build import cuda_module

import fastprompt as fp

METRICS = ["fastgeodis", "geodistk", "geodistk_fm"]  # in the order of the enum
STARTS = {"cost": 0, "seed": 1, "nonzero": 2}
LINES, PART, EDGE = 16, 128, 32  # of csrc/geodesic/cuda_raster.cu and cuda_exact.cu


def kernel(method, metric, arch=80, mutation=None):
    module = cuda_module(f"csrc/geodesic/cuda_{method}.cu", arch, "-fmad=false")
    name = next(n for n in module.entries if f"MetricE{METRICS.index(metric)}E" in n)
    return Kernel(module, name)


def run(method, image, start, *, metric="fastgeodis", kind="seed", barrier=None, lam=0.6, iterations=2, spacing=(1, 1),
        v=math.inf, limit=math.inf, two_sided=False, order=None, blocks=None, arch=80):  # fmt: skip
    """Distances (B, K, H, W) as one launch computes them; ``blocks`` is the grid, by default as the launcher has it."""
    batch, channels, ny, nx = image.shape
    sets = start.shape[1] * (2 if two_sided else 1)
    out = np.full((batch, sets, ny, nx), np.nan, np.float32)
    tiles = math.ceil(ny / EDGE) * math.ceil(nx / EDGE) * batch * sets
    parts = math.ceil(max(ny, nx) / PART)
    size, grid, threads = (parts * batch * sets, (parts, blocks or batch * sets), PART + 2 * LINES)
    if method == "exact":
        size, grid, threads = 4 + 3 * tiles, (blocks or tiles,), 256
    workspace = np.full(size, 0 if method == "raster" else -1, np.int32)
    workspace[: 4 + tiles] = 0  # what the launcher clears
    for array in (image, start) if barrier is None else (image, start, barrier):
        array.flags.writeable = False
    arguments = (
        "PPPPP5iii?iffffff", image, start, 0 if barrier is None else barrier, out, workspace,
        batch, channels, sets, ny, nx, METRICS.index(metric), STARTS[kind], two_sided, iterations,
        lam, np.float32(1 - lam), *spacing, v, limit,
    )  # fmt: skip
    kernel(method, metric, arch).launch(grid, threads, [arguments], order=order)
    return out


def pictures(rng, batch, channels, sets, ny, nx):
    image = rng.random((batch, channels, ny, nx), dtype=np.float32)
    image += np.linspace(0, 2, nx, dtype=np.float32)
    start = np.zeros((batch, sets, ny, nx), np.float32)
    for b, k in np.ndindex(batch, sets):
        start[b, k, rng.integers(ny), rng.integers(nx)] = 1
    return image, start


def cpu(method, image, start, *, lam=0.6, limit=math.inf, barrier=None, spacing=(1, 1), **options):
    return fp.geodesic_distance(
        image, start, method=method, lam=lam, max_distance=limit, barriers=barrier, spacing=spacing, dims=2,
        iterations=2 if method == "raster" else None, **options,
    )  # fmt: skip


def same_bits(got, expected):
    np.testing.assert_array_equal(got.view(np.int32), np.ascontiguousarray(expected, np.float32).view(np.int32))


SIZES = [  # batch, channels, sets, ny, nx
    (1, 1, 1, 32, 32),
    (1, 3, 1, 33, 65),
    (2, 1, 2, 20, 37),
    (1, 2, 1, 1, 70),
    (1, 1, 1, 70, 1),
    (1, 1, 1, 17, 150),
    (1, 3, 1, 131, 18),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("method", ["raster", "exact"])
def test_bits_of_the_cpu(rng, method, size):
    image, start = pictures(rng, *size)
    same_bits(run(method, image, start), cpu(method, image, start))
