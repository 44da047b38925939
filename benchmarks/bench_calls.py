"""What a call costs beside its kernel: arrays so small that nearly all of the time is Python, the dispatcher of
torch and the checks of the fields.

pytest benchmarks/bench_calls.py --benchmark-enable --benchmark-group-by=param:name
"""

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch", reason="torch is not installed")


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


CALLS = {
    "geodesic_distance": (fp.geodesic_distance, (normal(1, 4, 5), np.eye(4, 5) > 0), {}),
    "euclidean_distance_transform": (fp.euclidean_distance_transform, (np.eye(4, 5) > 0,), {}),
    "masked_average_pool": (fp.masked_average_pool, (normal(4, 2, 2), normal(4, 4) > 0), {}),
    "cosine_prototype_map": (fp.cosine_prototype_map, (normal(8, 2, 2), normal(2, 8)), {}),
    "film": (fp.film, (normal(1, 4, 8), normal(1, 4), normal(1, 4)), {}),
    "memory_attention": (fp.memory_attention, (normal(4, 1, 16),) * 3, {}),
    "prune_tokens": (fp.prune_tokens, (normal(1, 8, 16), normal(1, 8)), {"count": 4}),
    "click_map": (fp.click_map, (np.array([[1.0, 2.0]]), np.array([1])), {"size": (4, 4)}),
    "resize_masks": (fp.resize_masks, (normal(1, 4, 4), (4, 4)), {}),
}


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("name", CALLS)
def test_call(benchmark, name, kind):
    function, arrays, options = CALLS[name]
    if kind == "torch":
        arrays = [torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in arrays]
    fp.set_num_threads(1)
    try:
        with torch.no_grad():
            function(*arrays, **options)  # operators register with torch
            benchmark(function, *arrays, **options)
    finally:
        fp.set_num_threads(None)
