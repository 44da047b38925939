"""The Euclidean distance transform beside SciPy, edt and OpenCV (those that are installed).

pytest benchmarks/bench_geodesic_euclidean.py --benchmark-enable \
    --benchmark-group-by=param:shape,param:seeds,param:threads
"""

import importlib
import importlib.metadata

import numpy as np
import pytest
from scipy import ndimage

import fastprompt as fp

SHAPES = {"512": (512, 512), "1024": (1024, 1024), "2048": (2048, 2048), "128x128x128": (128, 128, 128)}


def clicks(shape):
    seeds = np.zeros(shape, bool)
    seeds.flat[np.random.default_rng(0).integers(0, seeds.size, 8)] = True
    return seeds


def noise(shape):
    return np.random.default_rng(0).random(shape) < 0.01


def region(shape):
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(shape), shape[0] / 32)
    return smooth > 0.5 * smooth.std()


def fastprompt_peer(seeds, threads):
    fp.set_num_threads(threads)
    return lambda: fp.euclidean_distance_transform(seeds, dims=seeds.ndim)


def scipy_peer(seeds, threads):
    rest = ~seeds
    return lambda: ndimage.distance_transform_edt(rest)  # one thread always


def edt_peer(seeds, threads):
    edt, rest = importlib.import_module("edt"), ~seeds
    return lambda: edt.edt(rest, parallel=threads)


def cv2_peer(seeds, threads):
    cv2, rest = importlib.import_module("cv2"), (~seeds).view(np.uint8)
    cv2.setNumThreads(threads)
    return lambda: cv2.distanceTransform(rest, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


PEERS = {"fastprompt": fastprompt_peer, "scipy": scipy_peer, "edt": edt_peer, "cv2": cv2_peer}


def version(peer):
    module = pytest.importorskip(peer)
    return getattr(module, "__version__", None) or importlib.metadata.version(peer)


@pytest.fixture(autouse=True)
def default_threads():
    yield
    fp.set_num_threads(None)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("seeds", [clicks, noise, region], ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.benchmark(group="euclidean", warmup=True, warmup_iterations=1, min_rounds=5, max_time=0.5)
def test_euclidean(benchmark, peer, threads, seeds, shape):
    number = version(peer)
    if peer == "cv2" and len(shape) == 3:
        pytest.skip("cv2 has no 3-D transform")
    if peer == "scipy" and threads > 1:
        pytest.skip("SciPy has one thread")
    mask = seeds(shape)
    result = benchmark(PEERS[peer](mask, threads))
    expected = ndimage.distance_transform_edt(~mask)
    error = float(np.abs(result - expected).max() / expected.max())
    benchmark.extra_info.update(version=number, shape=list(shape), threads=threads, error=error)
    assert error < 1e-6
