"""The geodesic family against its reference, against Dijkstra on the explicit graph, and against known answers."""

import itertools

import numpy as np
import pytest
from geodesic_cases import METHODS, assert_bits, problem
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

import fastprompt as fp

METRICS = ["fastgeodis", "geodistk", "geodistk_fm"]
SHAPES = {
    "pixel": (1, 1),
    "row": (1, 37),
    "column": (23, 1),
    "tile": (16, 16),
    "ragged": (17, 33),
    "two_tiles": (7, 130),
    "volume": (4, 5, 19),
    "thin_volume": (1, 3, 2),
}
SMALL = {k: s for k, s in SHAPES.items() if k in ("row", "ragged", "volume")}


def reference(function, *args, **kwargs):
    with fp.backend("reference"):
        return function(*args, **kwargs)


# ---------------------------------------------------------------- against the reference


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_fastgeodis_metric(rng, isa, method, shape, channels):
    image, seeds = problem(rng, shape, channels)
    once = method == "toivanen"  # its reference is a Python loop over pixels
    for lam, iterations in [(0.3, 2)] if once else itertools.product((0.0, 0.3, 1.0), (1, 3)):
        settings = {"lam": lam, "method": method, "iterations": iterations, "dims": len(shape)}
        result = fp.geodesic_distance(image, seeds, **settings)
        assert_bits(result, reference(fp.geodesic_distance, image, seeds, **settings))
        if method == "exact":
            break


@pytest.mark.parametrize("shape", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("metric", METRICS)
def test_metrics_spacing_barriers_limit(rng, isa, metric, method, shape):
    image, seeds = problem(rng, shape, 3)
    walls = rng.random(shape) < 0.1
    settings = {
        "metric": metric,
        "method": method,
        "lam": 0.6,
        "iterations": 2,
        "spacing": (2.1, 1.3, 0.7)[-len(shape) :],
    }
    once = method == "toivanen"  # its reference is a Python loop over pixels
    for extra in (
        ({"barriers": walls, "max_distance": 0.9},) if once else ({}, {"barriers": walls}, {"max_distance": 0.9})
    ):
        for function in (fp.geodesic_distance, fp.signed_geodesic_distance):
            result = function(image, seeds, **settings, **extra)
            assert_bits(result, reference(function, image, seeds, **settings, **extra))


@pytest.mark.parametrize("method", METHODS)
def test_soft_seeds(rng, isa, method):
    image, _ = problem(rng, (19, 35), 1)
    soft = rng.random((1, 19, 35), dtype=np.float32)
    result = fp.geodesic_distance(image, soft, v=3.0, lam=0.5, method=method)
    assert_bits(result, reference(fp.geodesic_distance, image, soft, v=3.0, lam=0.5, method=method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_image_with_holes(rng, isa, method, bad):
    image, seeds = problem(rng, (20, 40), 3)
    image[1, 5:15, 20] = bad
    result = fp.geodesic_distance(image, seeds, lam=0.5, method=method)
    assert_bits(result, reference(fp.geodesic_distance, image, seeds, lam=0.5, method=method))
    assert np.isinf(result[:, 5:15, 20][~seeds[:, 5:15, 20]]).all()


# ---------------------------------------------------------------- against an independent oracle


def graph_distance(image, seeds, lam, metric):
    """Dijkstra of SciPy on the explicit 8- or 26-neighbour graph, in float64."""
    shape = seeds.shape
    index = np.arange(seeds.size).reshape(shape)
    rows, columns, costs = [], [], []
    for offset in itertools.product((-1, 0, 1), repeat=len(shape)):
        if not any(offset):
            continue
        here = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, shape, strict=True))
        there = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, shape, strict=True))
        difference = np.abs(image[(slice(None), *here)].astype(float) - image[(slice(None), *there)])
        length = np.sqrt(sum(abs(o) for o in offset))
        if metric == "fastgeodis":
            cost = (1 - lam) * length + lam * difference.sum(0)
        elif metric == "geodistk":
            cost = length / ((1 - lam) + lam / (np.sqrt((difference**2).sum(0)) + 1e-5))
        else:
            cost = length * np.sqrt((difference**2).sum(0))
        rows.append(index[here].ravel())
        columns.append(index[there].ravel())
        costs.append(cost.ravel() + 1e-300)  # SciPy takes a stored 0 for "no edge"
    graph = coo_matrix((np.concatenate(costs), (np.concatenate(rows), np.concatenate(columns))), (seeds.size,) * 2)
    return dijkstra(graph.tocsr(), indices=index[seeds], min_only=True).reshape(shape)


@pytest.mark.parametrize("shape", [(40, 70), (9, 12, 35)], ids=["plane", "volume"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
def test_exact_is_dijkstra(rng, isa, shape, metric, lam):
    image, seeds = problem(rng, shape, 2, 1, density=0.001)
    result = fp.geodesic_distance(image, seeds[0], metric=metric, lam=lam, dims=len(shape))
    np.testing.assert_allclose(result, graph_distance(image, seeds[0], lam, metric), rtol=3e-6, atol=1e-6)


def heap_dijkstra(image, seed, lam):
    """Dijkstra in Python with the float32 association of the kernels: (D + step) + gradient, 2-D."""
    import heapq

    height, width = image.shape[1:]
    lam, rest = np.float32(lam), np.float32(1 - lam)
    step = {1: rest * np.float32(1), 2: rest * np.sqrt(np.float32(2))}
    distance = np.full((height, width), np.inf, np.float32)
    distance[seed] = 0
    heap = [(np.float32(0), seed)]
    while heap:
        d, (y, x) = heapq.heappop(heap)
        if d > distance[y, x]:
            continue
        for dy, dx in itertools.product((-1, 0, 1), repeat=2):
            q = (y + dy, x + dx)
            if (dy or dx) and 0 <= q[0] < height and 0 <= q[1] < width:
                l1 = np.float32(0)
                for c in range(len(image)):
                    l1 += abs(image[c][q] - image[c, y, x])
                candidate = (d + step[abs(dy) + abs(dx)]) + lam * l1
                if candidate < distance[q]:
                    distance[q] = candidate
                    heapq.heappush(heap, (candidate, q))
    return distance


@pytest.mark.parametrize(("shape", "channels", "lam"), [((70, 67), 1, 1.0), ((33, 80), 3, 0.5), ((64, 65), 2, 0.9)])
def test_exact_equals_heap_dijkstra_bit_for_bit(rng, isa, shape, channels, lam):
    image = rng.random((channels, *shape), dtype=np.float32) * 255
    seeds = np.zeros(shape, bool)
    seeds[11, 60] = True
    assert_bits(fp.geodesic_distance(image, seeds, lam=lam), heap_dijkstra(image, (11, 60), lam))


def serpentine(size):
    """A maze with one long way: walls every other row with a gap at alternating ends."""
    walls = np.zeros((size, size), bool)
    walls[1::2] = True
    walls[1::4, -1] = False
    walls[3::4, 0] = False
    return walls


def test_maze_has_its_known_length(isa):
    size = 65
    seeds = np.zeros((size, size), bool)
    seeds[0, 0] = True
    result = fp.geodesic_distance(np.zeros((size, size), np.uint8), seeds, lam=0.0, barriers=serpentine(size))
    corridors = (size + 1) // 2
    # A corridor is crossed in size - 1 steps; where it meets a gap, a straight step and a diagonal one replace two.
    finite = result[np.isfinite(result)]
    assert finite.max() > (corridors - 1) * (size - 2)
    np.testing.assert_array_equal(result, reference_maze(size))
    assert np.isinf(result[serpentine(size)]).all()


def reference_maze(size):
    seeds = np.zeros((size, size), bool)
    seeds[0, 0] = True
    image = np.zeros((size, size), np.float32)
    return reference(fp.geodesic_distance, image, seeds, lam=0.0, barriers=serpentine(size))


def test_flat_image_gives_chamfer_and_euclid_of_one_row():
    seeds = np.zeros((9, 9), bool)
    seeds[4, 4] = True
    d = fp.geodesic_distance(np.zeros((9, 9)), seeds, lam=0.0)
    y, x = np.abs(np.mgrid[-4:5, -4:5])
    np.testing.assert_allclose(d, np.maximum(y, x) + (np.sqrt(2) - 1) * np.minimum(y, x), rtol=1e-6)
    assert (fp.geodesic_distance(np.zeros((9, 9)), seeds, lam=1.0) == 0).all()


# ---------------------------------------------------------------- what is made of it


def test_iterations_lead_to_the_exact_distance(rng):
    image, seeds = problem(rng, (40, 50), 1, 1, 0.002)
    exact = fp.geodesic_distance(image, seeds)
    before = fp.geodesic_distance(image, seeds, method="raster", iterations=0)
    assert_bits(before, np.where(seeds, np.float32(0), np.float32(np.inf)))
    for n in range(1, 30):
        now = fp.geodesic_distance(image, seeds, method="raster", iterations=n)
        assert (now <= before).all()
        assert (now >= exact).all()
        before = now
    assert_bits(before, exact)


def test_signed_is_the_difference_of_both_sides(rng):
    image, _ = problem(rng, (30, 41), 3)
    region = np.zeros((30, 41), bool)
    region[8:20, 10:30] = True
    for method in METHODS:
        signed = fp.signed_geodesic_distance(image, region, lam=0.5, method=method)
        inside, outside = (fp.geodesic_distance(image, s, lam=0.5, method=method) for s in (region, ~region))
        assert_bits(signed, inside - outside)
        assert (signed[region] < 0).all()
        assert (signed[~region] > 0).all()


def test_symmetric_filter_removes_what_is_thinner_than_theta():
    region = np.zeros((40, 60), bool)
    region[10:30, 10:50] = True
    noisy = region.copy()
    noisy[20, 20] = False  # a hole
    noisy[3, 3] = True  # a spot
    smooth = fp.geodesic_symmetric_filter(np.zeros((40, 60)), noisy, theta=4, lam=0.0) < 0
    assert (smooth[11:29, 11:49]).all()
    assert not smooth[:8].any()
    assert (smooth == region).mean() > 0.99


def test_exponentiated_forms(rng):
    image, seeds = problem(rng, (20, 25), 1, 2)
    distance = fp.geodesic_distance(image, seeds, metric="geodistk_fm")
    np.testing.assert_allclose(fp.exponentiated_geodesic(image, seeds), np.exp(-distance), rtol=1e-6)
    np.testing.assert_allclose(fp.exponentiated_geodesic(image, seeds, power=2), np.exp(-(distance**2)), rtol=1e-6)
    clipped = fp.exponentiated_geodesic(image, seeds, threshold=0.2)
    np.testing.assert_allclose(clipped, np.minimum(distance, 0.2) / 0.2, rtol=1e-6)
    spread = fp.exponentiated_geodesic(image, seeds, normalize="minmax")
    assert spread.min() == 0
    assert spread.max() == 1
    nothing = np.zeros((20, 25), bool)
    for settings in ({}, {"power": 2}, {"threshold": 1.0}, {"normalize": "minmax"}):
        assert (fp.exponentiated_geodesic(image, nothing, **settings) == 0).all()
