"""Geodesic distances of arrays of every kind: dtypes, memory layouts, axes; with several threads and from several."""

import concurrent.futures

import numpy as np
import pytest
from geodesic_cases import METHODS, assert_bits, problem

import fastprompt as fp

DTYPES = ["float32", "float16", "uint8", "bool", "float64", "int16", "uint16", "int64"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_image_dtypes(rng, isa, dtype, method):
    image = (rng.random((2, 18, 37)) * (1 if dtype in ("bool", "float16") else 200)).astype(dtype)
    _, seeds = problem(rng, (18, 37))
    expected = fp.geodesic_distance(image.astype(np.float32), seeds, lam=0.5, method=method)
    assert_bits(fp.geodesic_distance(image, seeds, lam=0.5, method=method), expected)


def test_half_covers_every_value():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(1, -1)
    seeds = np.zeros(halves.shape, bool)
    seeds[0, 0] = True
    with np.errstate(invalid="ignore"):
        single = halves.astype(np.float32)
    for method in ("exact", "raster"):
        expected = fp.geodesic_distance(single, seeds, method=method)
        np.testing.assert_array_equal(fp.geodesic_distance(halves, seeds, method=method), expected)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64"])
def test_hard_seed_dtypes(rng, dtype):
    image, seeds = problem(rng, (12, 30))
    assert_bits(fp.geodesic_distance(image, (seeds * 3).astype(dtype)), fp.geodesic_distance(image, seeds))


VIEWS = {
    "transposed": lambda a: np.ascontiguousarray(a.swapaxes(-1, -2)).swapaxes(-1, -2),
    "reversed": lambda a: np.ascontiguousarray(a[..., ::-1, ::-1])[..., ::-1, ::-1],
    "strided": lambda a: np.repeat(np.repeat(a, 2, -1), 3, -2)[..., ::3, ::2],
    "channels_last": lambda a: np.ascontiguousarray(np.moveaxis(a, 0, -1)).transpose(2, 0, 1),
    "offset": lambda a: np.pad(a, [(0, 0), (1, 2), (3, 1)], constant_values=77)[:, 1:-2, 3:-1],
    "fortran": np.asfortranarray,
    "big_endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", VIEWS.values(), ids=VIEWS)
def test_memory_layouts(rng, method, change):
    image, seeds = problem(rng, (21, 34), 3)
    expected = fp.geodesic_distance(image, seeds, method=method)
    assert_bits(fp.geodesic_distance(change(image), change(seeds.astype(np.uint8)), method=method), expected)


def test_unaligned_and_read_only(rng):
    image, seeds = problem(rng, (21, 34), 1)
    packed = np.frombuffer(b"x" + image.tobytes(), np.uint8)[1:].view(np.float32).reshape(image.shape)
    image.flags.writeable = seeds.flags.writeable = False
    assert_bits(fp.geodesic_distance(packed, seeds), fp.geodesic_distance(image, seeds))


AXES = {  # image, seeds -> result
    "plane": ((6, 8), (6, 8), (6, 8)),
    "channels": ((3, 6, 8), (6, 8), (6, 8)),
    "sets": ((6, 8), (4, 6, 8), (4, 6, 8)),
    "batch": ((2, 3, 6, 8), (2, 4, 6, 8), (2, 4, 6, 8)),
    "one_set_for_a_batch": ((2, 3, 6, 8), (6, 8), (2, 1, 6, 8)),
    "one_image_for_a_batch": ((3, 6, 8), (2, 4, 6, 8), (2, 4, 6, 8)),
    "no_set": ((6, 8), (0, 6, 8), (0, 6, 8)),
    "no_batch": ((0, 1, 6, 8), (0, 1, 6, 8), (0, 1, 6, 8)),
    "no_row": ((0, 8), (0, 8), (0, 8)),
    "no_column": ((6, 0), (6, 0), (6, 0)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("image", "seeds", "result"), AXES.values(), ids=AXES)
def test_axes(rng, image, seeds, result, method):
    x, s = rng.random(image, dtype=np.float32), rng.random(seeds) < 0.2
    out = fp.geodesic_distance(x, s, method=method)
    assert out.shape == result
    for k in np.ndindex(*result[:-2]):
        image_k = x[min(k[0], len(x) - 1)] if x.ndim == 4 else x
        seeds_k = s if s.ndim == 2 else s[k[-s.ndim + 2 :]]
        if x.size:
            np.testing.assert_array_equal(out[k], fp.geodesic_distance(image_k, seeds_k, method=method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_change_no_bit(rng, method, threads):
    image, seeds = problem(rng, (150, 201), 3, 3, 0.001)
    volume, marks = problem(rng, (20, 33, 40), 1, 1, 0.001)
    try:
        fp.set_num_threads(1)
        expected = [
            fp.geodesic_distance(i, s, method=method, dims=s.ndim - 1) for i, s in ((image, seeds), (volume, marks))
        ]
        fp.set_num_threads(threads)
        for _ in range(5):
            results = [
                fp.geodesic_distance(i, s, method=method, dims=s.ndim - 1) for i, s in ((image, seeds), (volume, marks))
            ]
            for result, want in zip(results, expected, strict=True):
                assert_bits(result, want)
    finally:
        fp.set_num_threads(None)


@pytest.mark.parametrize("metric", ["fastgeodis", "geodistk_fm"])
@pytest.mark.parametrize(("shape", "threads"), [((770, 801), 2), ((1155, 1170), 3)], ids=str)
def test_a_large_picture_is_shared_in_columns(rng, isa, shape, threads, metric):
    """The threads take columns of a few rows with margins of their own; the cheap paths cross them all the time."""
    image, seeds = problem(rng, shape, 3, 2, 1e-5)
    image[:, rng.random(shape) < 0.01] = np.nan
    try:
        fp.set_num_threads(1)
        expected = fp.geodesic_distance(image, seeds, method="raster", metric=metric, lam=0.5)
        fp.set_num_threads(threads)
        for _ in range(3):
            assert_bits(fp.geodesic_distance(image, seeds, method="raster", metric=metric, lam=0.5), expected)
    finally:
        fp.set_num_threads(None)


def test_calls_from_many_python_threads(rng):
    image, seeds = problem(rng, (90, 120), 1, 2, 0.001)
    expected = {m: fp.geodesic_distance(image, seeds, method=m) for m in METHODS}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        jobs = [(m, pool.submit(fp.geodesic_distance, image, seeds, method=m)) for m in METHODS * 12]
        for method, job in jobs:
            assert_bits(job.result(), expected[method])
