"""The exact distance from a line of seeds, wherever it lies: seeds all along the side of a tile reached one side only."""

import numpy as np
import pytest

import fastprompt as fp


@pytest.mark.parametrize("shape", [(2, 33), (2, 65), (40, 129), (65, 2), (70, 66), (1, 33)])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_line_of_seeds(rng, isa, shape, dims):
    image = rng.random(shape).astype(np.float32)
    for axis in (0, 1):
        for at in {k for k in (0, 15, 16, 31, 32, 47, 48, 63, 64, 127, 128) if k < shape[axis]}:
            seeds = np.zeros(shape, bool)
            np.moveaxis(seeds, axis, 0)[at] = True
            given = (image, seeds) if dims == 2 else (image[None], seeds[None])
            found = fp.geodesic_distance(*given, method="exact", dims=dims)
            with fp.backend("reference"):
                want = fp.geodesic_distance(*given, method="exact", dims=dims)
            np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
