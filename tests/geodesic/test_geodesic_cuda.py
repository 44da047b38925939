"""csrc/geodesic/cuda_*.cu: the PTX that nvcc emits, executed, gives the bits of the CPU's kernels."""

import math
import os

import numpy as np
import pytest
from ptx import Kernel, launcher
from ptx.build import cuda_module

import fastprompt as fp

METRICS = ["fastgeodis", "geodistk", "geodistk_fm"]  # in the order of the enum
STARTS = {"cost": 0, "seed": 1, "nonzero": 2}
# Of csrc/geodesic/cuda_raster_volume.cu; of cuda_exact.cu, for pictures and volumes.
RASTER_TILE, RASTER_THREADS = (8, 16), 384
EXACT_TILE, EXACT_THREADS = {False: (1, 32, 32), True: (8, 8, 8)}, {False: 256, True: 512}


def module(method, volume=False, arch=80):
    name = "raster_volume" if method == "raster" and volume else method
    return cuda_module(f"csrc/geodesic/cuda_{name}.cu", arch, "-fmad=false")


def entry(module, metric, volume):
    """The kernel of a module that has one for each metric."""
    of_metric = [n for n in module.entries if f"MetricE{METRICS.index(metric)}E" in n]
    return of_metric[0] if len(of_metric) == 1 else next(n for n in of_metric if f"ELb{int(volume)}E" in n)


def kernel(method, metric, volume, arch=80):
    loaded = module(method, volume, arch)
    return Kernel(loaded, entry(loaded, metric, volume))


def tiles(sizes, tile):
    return math.prod(math.ceil(size / edge) for size, edge in zip(sizes, tile, strict=True))


def problem(method, image, start, *, metric="fastgeodis", kind="seed", barrier=None, lam=0.6, iterations=2,
            spacing=None, v=math.inf, limit=math.inf, two_sided=False, blocks=None):  # fmt: skip
    """The struct GeodesicCuda of an image (B, C, [D,] H, W), with its layout before it; its array for the distances
    (B, K, [D,] H, W); grid, threads. The raster scan of pictures is several launches: no grid.

    ``blocks`` is the size of the grid (raster: of its second axis, or both), by default as the launcher has it on a
    large GPU.
    """
    batch, channels, *pixels = image.shape
    volume = len(pixels) == 3
    sets = start.shape[1] * (2 if two_sided else 1)
    out = np.full((batch, sets, *pixels), np.nan, np.float32)
    nz, ny, nx = pixels if volume else (1, *pixels)
    if method == "exact":
        count = tiles((nz, ny, nx), EXACT_TILE[volume]) * batch * sets
        size, cleared, grid, threads = 4 + 3 * count, 4 + count, (blocks or count,), EXACT_THREADS[volume]
    elif volume:
        count = max(tiles(plane, RASTER_TILE) for plane in [(nz, nx), (nz, ny), (ny, nx)])
        size = cleared = count * batch * sets
        grid = blocks if isinstance(blocks, tuple) else (count, blocks or batch * sets)
        threads = RASTER_THREADS
    else:
        size = cleared = 0
        grid = threads = None
    workspace = np.full(size, -1, np.int32)
    workspace[:cleared] = 0  # by the launcher
    for array in (image, start) if barrier is None else (image, start, barrier):
        array.flags.writeable = False
    arguments = (
        "PPPPP6i?ii?i7f", image, start, 0 if barrier is None else barrier, out, workspace,
        batch, channels, sets, nz, ny, nx, volume, METRICS.index(metric), STARTS[kind], two_sided, iterations,
        lam, np.float32(1 - lam), *((1, 1, 1)[: 3 - len(spacing or ())]), *(spacing or ()), v, limit,
    )  # fmt: skip
    if grid is None:
        arguments = (*arguments[:5], launcher.workspace(method, arguments[0], arguments[1:]), *arguments[6:])
    return arguments, out, grid, threads


def run(method, image, start, *, order=None, arch=80, metric="fastgeodis", **options):
    """Distances (B, K, [D,] H, W) as the launches compute them."""
    arguments, out, grid, threads = problem(method, image, start, metric=metric, **options)
    volume = image.ndim == 5
    if grid:
        kernel(method, metric, volume, arch).launch(grid, threads, [arguments], order=order, check_blocks=True)
    else:
        blocks = {"blocks": options["blocks"]} if options.get("blocks") else {}
        launcher.run(method, arguments[0], arguments[1:], module(method, arch=arch), order=order, **blocks)
    return out


def pictures(rng, batch, channels, sets, *pixels):
    """Images (B, C, [D,] H, W) that brighten along x, and seed sets of one pixel each."""
    image = rng.random((batch, channels, *pixels), dtype=np.float32)
    image += np.linspace(0, 2, pixels[-1], dtype=np.float32)
    start = np.zeros((batch, sets, *pixels), np.float32)
    for b, k in np.ndindex(batch, sets):
        start[(b, k, *(rng.integers(size) for size in pixels))] = 1
    return image, start


def cpu(method, image, start, *, lam=0.6, limit=math.inf, barrier=None, spacing=1, iterations=2, **options):
    return fp.geodesic_distance(
        image, start, method=method, lam=lam, max_distance=limit, barriers=barrier, spacing=spacing,
        dims=image.ndim - 2, iterations=iterations if method == "raster" else None, **options,
    )  # fmt: skip


def same_bits(got, expected):
    np.testing.assert_array_equal(got.view(np.int32), np.ascontiguousarray(expected, np.float32).view(np.int32))


SIZES = [  # batch, channels, sets, [nz,] ny, nx, iterations
    (1, 1, 1, 1, 1, 2),
    (1, 3, 1, 33, 17, 2),
    (2, 2, 2, 18, 9, 3),
    (1, 1, 1, 1, 70, 2),
    (1, 4, 1, 40, 1, 1),
    (1, 1, 1, 4, 150, 1),
    (1, 3, 1, 131, 3, 1),
    (1, 1, 1, 1, 1, 1, 2),
    (1, 3, 1, 3, 9, 17, 1),
    (2, 1, 2, 9, 4, 5, 2),
    (1, 2, 1, 5, 18, 2, 1),
    (1, 1, 1, 1, 2, 9, 1),
]
if os.environ.get("FASTPROMPT_GPU_LARGE"):  # minutes
    SIZES += [(1, 3, 1, 150, 270, 2), (2, 1, 2, 97, 140, 2), (1, 1, 1, 19, 33, 37, 2)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("method", ["raster", "exact"])
def test_bits_of_the_cpu(rng, method, size):
    image, start = pictures(rng, *size[:-1])
    same_bits(run(method, image, start, iterations=size[-1]), cpu(method, image, start, iterations=size[-1]))


OPTIONS = {
    "geodistk": {"metric": "geodistk"},
    "geodistk_fm": {"metric": "geodistk_fm"},
    "spacing": {"spacing": (0.7, 2.5)},
    "finite v": {"v": 0.3},
    "limit": {"limit": 0.9},
    "all image": {"lam": 1.0},
    "no image": {"lam": 0.0},
    "barriers": {"barrier": True},
    "barriers, geodistk": {"barrier": True, "metric": "geodistk", "spacing": (1.5, 0.5), "limit": 40.0},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("method", ["raster", "exact"])
def test_options(rng, method, options):
    image, start = pictures(rng, 1, 2, 1, 17, 20) if method == "raster" else pictures(rng, 1, 2, 1, 17, 35)
    if options.get("barrier"):
        options = options | {"barrier": (rng.random((1, *image.shape[2:])) < 0.2).astype(np.uint8)}
    same_bits(run(method, image, start, **options), cpu(method, image, start, **options))


VOLUME_OPTIONS = {
    "geodistk": {"metric": "geodistk", "spacing": (1.5, 0.5, 1.0), "limit": 40.0},
    "geodistk_fm": {"metric": "geodistk_fm", "spacing": (0.7, 2.5, 1.1)},
    "spacing": {"spacing": (0.7, 2.5, 1.1)},
    "finite v": {"v": 0.3},
    "limit, barriers": {"limit": 0.9, "barrier": True},
}


@pytest.mark.parametrize("options", VOLUME_OPTIONS.values(), ids=VOLUME_OPTIONS)
@pytest.mark.parametrize("method", ["raster", "exact"])
def test_options_of_volumes(rng, method, options):
    image, start = pictures(rng, 1, 2, 1, 9, 4, 10)
    if options.get("barrier"):
        options = options | {"barrier": (rng.random((1, *image.shape[2:])) < 0.2).astype(np.uint8)}
    options = options | {"iterations": 1}
    same_bits(run(method, image, start, **options), cpu(method, image, start, **options))


@pytest.mark.parametrize("method", ["raster", "exact"])
def test_start_maps(rng, method):
    """Soft maps from both sides, as the signed distance needs them; no iteration gives the start itself."""
    image, _ = pictures(rng, 1, 1, 1, 9, 17)
    soft = np.clip(rng.random((1, 1, 9, 17), dtype=np.float32) * 1.4 - 0.2, 0, 1)
    two = run(method, image, soft, v=10.0, two_sided=True)
    same_bits(two[:, :1], cpu(method, image, soft, v=10.0))
    iterations = 2 if method == "raster" else None
    signed = fp.signed_geodesic_distance(image, soft, method=method, lam=0.6, v=10.0, dims=2, iterations=iterations)
    same_bits(two[:, :1] - two[:, 1:], signed)
    same_bits(run(method, image, soft, v=10.0, kind="cost"), two[:, 1:])
    same_bits(run(method, image, soft, kind="nonzero"), cpu(method, image, (soft != 0).astype(np.float32)))
    if method == "raster":
        start = np.where(soft == 1, np.float32(0), np.float32(3) * (1 - soft))
        same_bits(run(method, image, soft, v=3.0, iterations=0), start)


@pytest.mark.parametrize("method", ["raster", "exact"])
def test_values_that_are_no_numbers(rng, method):
    """NaN and infinities of the image cut edges, as on the CPU."""
    image, start = pictures(rng, 1, 1, 1, 16, 17)
    image[0, 0, rng.integers(16, size=60), rng.integers(17, size=60)] = np.repeat([np.nan, np.inf, -np.inf], 20)
    same_bits(run(method, image, start), cpu(method, image, start))


ORDERS = ["forward", "reverse", 1]


@pytest.mark.parametrize("blocks", [None, 2], ids=["a block per tile", "two blocks"])
@pytest.mark.parametrize("order", ORDERS)
def test_exact_in_any_order_of_blocks(rng, order, blocks):
    """Tiles wake one another in another order, on a path that winds through them several times: the same bits."""
    image, start = pictures(rng, 1, 1, 1, 34, 40)
    wall = np.zeros((1, 34, 40), np.uint8)
    wall[0, 2:, 8::16] = wall[0, :-2, 16::16] = 1
    expected = cpu("exact", image, start, barrier=wall)
    assert np.isfinite(expected).sum() == (wall == 0).sum()
    same_bits(run("exact", image, start, barrier=wall, order=order, blocks=blocks), expected)


@pytest.mark.parametrize(("order", "blocks"), [("forward", None), ("reverse", 2), (1, None), (2, 3)])
def test_exact_volumes_in_any_order_of_blocks(rng, order, blocks):
    image, start = pictures(rng, 1, 1, 1, 9, 10, 9)
    wall = np.zeros((1, 9, 10, 9), np.uint8)
    wall[0, 2, 1:], wall[0, 5, :-1], wall[0, 7, :, 1:] = 1, 1, 1
    expected = cpu("exact", image, start, barrier=wall)
    assert np.isfinite(expected).sum() == (wall == 0).sum()
    same_bits(run("exact", image, start, barrier=wall, order=order, blocks=blocks), expected)


@pytest.mark.parametrize(("order", "blocks"), [("forward", None), ("reverse", None), (1, (2, 1)), ("reverse", (1, 1))])
def test_raster_volumes_in_any_order_of_blocks(rng, order, blocks):
    """Tiles that exchange margins on both axes, as many blocks as tiles or fewer."""
    image, start = pictures(rng, 1, 1, 1, 9, 3, 17)
    expected = cpu("raster", image, start, iterations=1)
    same_bits(run("raster", image, start, iterations=1, order=order, blocks=blocks), expected)


@pytest.mark.parametrize(
    ("order", "blocks"), [("forward", None), ("reverse", None), (1, None), (2, 3), ("reverse", 2), (None, 1)]
)
def test_raster_in_any_order_of_blocks(rng, order, blocks):
    """Tiles that exchange margins in several rounds, on both axes; and blocks that have several tiles of two images."""
    image, start = pictures(rng, 1, 1, 2, 70, 140)
    expected = cpu("raster", image, start, iterations=1)
    same_bits(run("raster", image, start, iterations=1, order=order, blocks=blocks), expected)


@pytest.mark.parametrize(("method", "arch"), [("raster", 75), ("exact", 90)])
def test_other_architectures(rng, method, arch):
    for pixels in ((18, 17), (3, 9, 5)):
        image, start = pictures(rng, 1, 1, 1, *pixels)
        same_bits(run(method, image, start, arch=arch), cpu(method, image, start))
