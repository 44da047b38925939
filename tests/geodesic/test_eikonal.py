"""Fast marching (behind the ``*_fastmarch`` names of FastGeodis) against solutions that are known."""

import itertools

import numpy as np
import pytest

from fastprompt.compat._eikonal import eikonal_distance

TINY = float(np.sqrt(np.finfo(np.float32).eps))


def seeds_at(shape, *points):
    seeds = np.zeros(shape, bool)
    for p in points:
        seeds[p] = True
    return seeds


def test_a_line_adds_up(rng):
    image = rng.random((2, 1, 30), dtype=np.float32)
    got = eikonal_distance(image, seeds_at((1, 30), (0, 0)), lam=0.7)
    below = np.abs(0 - image)  # the only row is the last one: its lower neighbour counts as 0
    right = np.abs(np.append(image[:, :, 1:], np.zeros((2, 1, 1), np.float32), 2) - image)
    slow = 0.7 * (0.5 * (below + right)).sum(0) + 0.3 + TINY
    np.testing.assert_allclose(got[0, 1:], np.cumsum(slow[0, 1:], dtype=np.float64), rtol=1e-5)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0), (0.7, 1.0, 1.5)], ids=str)
def test_a_flat_image_gives_the_euclidean_distance(spacing):
    """Second order: the distance from a point is off by a fraction of a pixel near it and by little further on."""
    shape = (21,) * len(spacing)
    centre = (10,) * len(spacing)
    got = eikonal_distance(np.zeros((1, *shape), np.float32), seeds_at(shape, centre), lam=0.0, spacing=spacing)
    axes = [(np.arange(21) - 10) * s for s in spacing]
    exact = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij"))) * (1 + TINY)
    assert np.abs(got - exact).max() < 0.75 * max(spacing)
    far = exact > 5 * max(spacing)
    np.testing.assert_allclose(got[far], exact[far], rtol=0.1)


def test_all_axes_are_alike(rng):
    """The original solver forgets an axis in 3-D; here the result turns with the image."""
    image, spacing = rng.random((2, 9, 8, 7), dtype=np.float32), (0.8, 1.0, 1.3)
    seeds = seeds_at((9, 8, 7), (4, 3, 2))
    # The image's last planes see their own brightness, which is symmetric in the axes too.
    expected = eikonal_distance(image, seeds, lam=0.5, spacing=spacing)
    for order in itertools.permutations(range(3)):
        turned = eikonal_distance(
            np.moveaxis(image, [0, *(1 + k for k in order)], [0, 1, 2, 3]),
            np.moveaxis(seeds, order, [0, 1, 2]),
            lam=0.5,
            spacing=[spacing[k] for k in order],
        )
        np.testing.assert_allclose(turned, np.moveaxis(expected, order, [0, 1, 2]), rtol=2e-3)


def test_nan_pixels_are_walls_and_no_seed_reaches_nothing(rng):
    image = rng.random((1, 9, 11), dtype=np.float32)
    image[0, :, 5] = np.nan
    got = eikonal_distance(image, seeds_at((9, 11), (4, 0)), lam=0.5)
    assert np.isfinite(got[:, :5]).all()
    assert np.isposinf(got[:, 5:]).all()
    assert np.isposinf(eikonal_distance(image, np.zeros((9, 11), bool), lam=0.5)).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"lam": 2.0}, "lam"), ({"spacing": (1.0, -1.0)}, "spacing"), ({"seeds": np.zeros((3, 3))}, "image must be")],
)
def test_wrong_calls(change, said):
    call = {"image": np.zeros((1, 4, 4)), "seeds": np.zeros((4, 4)), "lam": 0.5} | change
    with pytest.raises(ValueError, match=said):
        eikonal_distance(**call)
