"""Pictures, seeds and the comparison of the tests of the geodesic distances."""

import numpy as np

METHODS = ["raster", "toivanen", "exact"]


def problem(rng, shape, channels=2, sets=2, density=0.02):
    image = rng.random((channels, *shape), dtype=np.float32)
    seeds = rng.random((sets, *shape)) < density
    seeds.reshape(sets, -1)[:, rng.integers(seeds[0].size)] = True
    return image, seeds


def assert_bits(result, expected):
    """Equal bit for bit; -0 and 0 count as equal."""
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, expected)
