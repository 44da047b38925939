"""Superpixels and proposals: NumPy formulas of the tests' own."""

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")


@pytest.fixture(params=["numpy", "torch", "reference", "torch reference"])
def call(request):
    def run(function, maps, points, labels=None, **options):
        with fp.backend("reference" if "reference" in request.param else "auto"):
            if "torch" in request.param:
                arrays = [None if x is None else torch.from_numpy(np.asarray(x)) for x in (maps, points, labels)]
                return function(*arrays, **options).numpy()
            return function(maps, points, labels, **options)

    return run


def regions(rng, size, count):
    """Nearest of some seeds, some numbers left out."""
    y, x = np.mgrid[: size[0], : size[1]]
    seeds = rng.uniform(0, 1, (count, 2)) * size
    nearest = np.argmin([(y - sy) ** 2 + (x - sx) ** 2 for sy, sx in seeds], 0)
    return rng.permutation(min(2 * count, size[0] * size[1]))[nearest % (size[0] * size[1])]


@pytest.mark.parametrize("clip", [255, 6.5])
@pytest.mark.parametrize(("size", "count"), [((16, 32), 9), ((23, 31), 40), ((1, 7), 3), ((1, 1), 1)])
def test_superpixels(rng, call, size, count, clip):
    labels_of = regions(rng, size, count)
    points = rng.uniform(-0.49, 0.49, (6, 2)) + rng.integers(0, size[::-1], (6, 2))
    kinds = np.array([1, 1, 0, -1, 0, 1])
    points[5] = -7
    got = call(fp.superpixel_map, labels_of, points, kinds, clip=clip)
    centre = {k: np.argwhere(labels_of == k).mean(0) for k in np.unique(labels_of)}
    for channel, label in enumerate((1, 0)):
        clicked = {labels_of[tuple(np.rint(p[::-1]).astype(int))] for p in points[:5][kinds[:5] == label]}
        for at in np.ndindex(size):
            want = min(np.linalg.norm(centre[labels_of[at]] - centre[k]) for k in clicked)
            assert got[channel][at] == pytest.approx(min(want, clip), rel=1e-6, abs=1e-6)


def test_superpixels_without_a_click(call):
    maps = np.zeros((3, 4), np.int32)
    assert (call(fp.superpixel_map, maps, np.zeros((0, 2)), np.zeros(0, int)) == 255).all()
    assert (call(fp.superpixel_map, maps, np.full((2, 2), np.nan), clip=9) == 9).all()
    got = call(fp.superpixel_map, maps, np.array([[1.0, 1]]))
    assert got.shape == (1, 3, 4)
    assert not got.any()
    assert call(fp.superpixel_map, np.zeros((2, 0, 4), np.int64), np.zeros((2, 0, 2))).shape == (2, 1, 0, 4)


def test_superpixels_of_a_batch(rng, call):
    maps = np.stack([regions(rng, (9, 11), 5) for _ in range(3)])
    points = rng.integers(0, 9, (3, 4, 2)).astype(float)
    got = call(fp.superpixel_map, maps, points)
    np.testing.assert_array_equal(got, [call(fp.superpixel_map, m, p) for m, p in zip(maps, points, strict=True)])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32, np.int64])
def test_votes(rng, call, dtype):
    proposals = ((rng.random((7, 13, 17)) < 0.4) * rng.integers(1, 5, (7, 13, 17))).astype(dtype)
    points, kinds = rng.integers(0, 13, (9, 2)).astype(float), rng.choice([0, 1, -1], 9)
    points[3] = -1
    got = call(fp.proposal_vote_map, proposals, points, kinds)
    member = (proposals != 0).astype(float)
    for channel, label in enumerate((1, 0)):
        votes = sum(
            (member[:, int(y), int(x)] for (x, y), k in zip(points, kinds, strict=True) if k == label and x >= 0),
            np.zeros(7),
        )
        np.testing.assert_array_equal(got[channel], np.tensordot(votes, member, 1))
    stack = np.stack([proposals, proposals[::-1]])
    both = call(fp.proposal_vote_map, stack, np.stack([points] * 2), np.stack([kinds] * 2))
    np.testing.assert_array_equal(both, [got, got])


def test_votes_of_nobody(call):
    assert not call(fp.proposal_vote_map, np.ones((2, 3, 4), bool), np.zeros((0, 2))).any()
    assert not call(fp.proposal_vote_map, np.ones((0, 3, 4), bool), np.array([[1.0, 1]])).any()
    sliced = np.ones((4, 6, 8), np.uint8)[::2, ::2, ::2]
    assert (call(fp.proposal_vote_map, sliced, np.array([[1.0, 1]])) == 2).all()
    assert (fp.proposal_vote_map(torch.ones(4, 6, 8)[::2, ::2, ::2], torch.tensor([[1.0, 1]])) == 2).all()
