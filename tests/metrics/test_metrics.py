"""Metrics of one mask against another: counts, IoU, Dice, Hausdorff, PointM, all pairs."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import directed_hausdorff

import fastprompt as fp
from fastprompt import metrics

SHAPES = {
    "pixel": (1, 1), "row": (1, 37), "column": (41, 1), "ragged": (17, 33), "vector": (8, 64), "beyond": (5, 13 * 5),
    "counter": (255, 64), "counter_beyond": (256, 65), "large": (300, 401),
}  # fmt: skip
SMALL = {k: s for k, s in SHAPES.items() if s[0] * s[1] < 600}
FULL, NONE = np.ones((4, 6), bool), np.zeros((4, 6), bool)
ONE = NONE.copy()
ONE[2, 3] = True


def random_pair(rng, *shape):
    return rng.random(shape) < rng.random(), rng.random(shape) < rng.random()


def counts(pred, target, ignore=None):
    keep = np.ones(target.shape, bool) if ignore is None else target != ignore
    pred, target = (pred != 0) & keep, (target != 0) & keep
    axes = (-2, -1)
    return (pred & target).sum(axes), pred.sum(axes), target.sum(axes), keep.sum(axes)


# ---------------------------------------------------------------- counts


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("lead", [(), (3,), (2, 2)], ids=str)
def test_overlap(rng, isa, shape, lead):
    pred, target = random_pair(rng, *lead, *shape)
    for got, wanted in zip(metrics.overlap(pred, target), counts(pred, target), strict=True):
        np.testing.assert_array_equal(got, wanted)
    union = (pred | target).sum((-2, -1))
    np.testing.assert_array_equal(metrics.overlap(pred, target).union, union)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_overlap_of_full_masks(isa, shape):
    """Byte counters must not overflow."""
    mask = np.full(shape, 255, np.uint8)
    assert [int(n) for n in metrics.overlap(mask, mask)] == [mask.size] * 4


@pytest.mark.parametrize(
    ("dtype", "ignore"), [("uint8", 255), ("uint8", 0), ("int64", -1), ("int32", 300), ("float32", 255)]
)
@pytest.mark.parametrize("shape", SMALL.values(), ids=SMALL)
def test_ignored_pixels(rng, isa, shape, dtype, ignore):
    pred, target = random_pair(rng, 3, *shape)
    target = np.where(rng.random(target.shape) < 0.3, ignore, target).astype(dtype)
    for got, wanted in zip(metrics.overlap(pred, target, ignore=ignore), counts(pred, target, ignore), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_reference(rng, isa, shape):
    pred, target = rng.standard_normal((2, *shape)).astype(np.float32), rng.integers(0, 3, (2, *shape), np.uint8)
    with fp.backend("reference"):
        expected = metrics.overlap(pred, target, threshold=0.3, ignore=2)
    np.testing.assert_array_equal(metrics.overlap(pred, target, threshold=0.3, ignore=2), expected)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int64", "uint16", "float16", "float32", "float64"])
def test_dtypes(rng, dtype):
    pred, target = random_pair(rng, 19, 23)
    threshold = {"threshold": 0.5} if "float" in dtype else {}
    assert metrics.iou(pred.astype(dtype), target.astype(dtype), **threshold) == metrics.iou(pred, target)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8"])
def test_threshold_is_strict_and_nan_is_outside(dtype):
    pred = np.array([[0, 1, 2, 3]]).astype(dtype)
    assert metrics.overlap(pred, pred >= 0, threshold=1).pred == 2
    if "float" in dtype:
        pred[0, 3] = np.nan
        assert metrics.overlap(pred, pred, threshold=1)[:3] == (1, 1, 2)


def test_thresholds_of_doubles_are_doubles():
    pred = np.array([[0.5, np.nextafter(0.5, 1)]])
    assert metrics.overlap(pred, np.ones((1, 2)), threshold=0.5).pred == 1


VIEWS = {
    "transposed": lambda m: m.swapaxes(-1, -2),
    "reversed": lambda m: m[..., ::-1, ::-1],
    "every_third": lambda m: m[:, 1::2, ::3],
    "offset": lambda m: m[1:, 3:, 5:],
    "broadcast": lambda m: np.broadcast_to(m[:1], m.shape),
    "fortran": np.asfortranarray,
}


@pytest.mark.parametrize("dtype", ["bool", "float32"])
@pytest.mark.parametrize("see", VIEWS.values(), ids=VIEWS)
def test_views(rng, see, dtype):
    pred, target = (see(x.astype(dtype)) for x in random_pair(rng, 3, 40, 51))
    plain = metrics.overlap(pred, target, threshold=0.5)
    for got, wanted in zip(plain, counts(pred, target), strict=True):
        np.testing.assert_array_equal(got, wanted)


# ---------------------------------------------------------------- IoU and Dice

EDGES = {
    "both_empty": (NONE, NONE, None, None),
    "pred_empty": (NONE, FULL, 0.0, 0.0),
    "target_empty": (FULL, NONE, 0.0, 0.0),
    "both_full": (FULL, FULL, 1.0, 1.0),
    "one_pixel": (ONE, ONE, 1.0, 1.0),
    "pixel_of_full": (ONE, FULL, 1 / 24, 2 / 25),
    "disjoint": (ONE, ~ONE, 0.0, 0.0),
}


@pytest.mark.parametrize(("empty", "value"), [("one", 1.0), ("zero", 0.0), ("nan", math.nan)])
@pytest.mark.parametrize(("pred", "target", "iou", "dice"), EDGES.values(), ids=EDGES)
def test_edges(pred, target, iou, dice, empty, value):
    """Trap: public code has 1, 0 and NaN for two empty masks; the switch changes nothing else."""
    wanted_iou, wanted_dice = (value if x is None else x for x in (iou, dice))
    np.testing.assert_equal(float(metrics.iou(pred, target, empty=empty)), wanted_iou)
    np.testing.assert_equal(float(metrics.dice(pred, target, empty=empty)), wanted_dice)


def test_two_empty_masks_are_equal_by_default():
    assert metrics.iou(NONE, NONE) == metrics.dice(NONE, NONE) == 1.0


def test_iou_is_of_the_foreground_and_of_masks_not_labels():
    assert metrics.iou(np.array([[0, 7, 7]]), np.array([[0, 0, 3]])) == 0.5


def test_eps(rng):
    pred, target = random_pair(rng, 9, 9)
    assert metrics.iou(pred, target, eps=1e-6) == (pred & target).sum() / ((pred | target).sum() + 1e-6)
    for empty, value in (("one", 1.0), ("zero", 0.0), ("nan", math.nan)):  # eps makes no number of nothing
        np.testing.assert_equal(metrics.iou(NONE, NONE, eps=1e-6, empty=empty), value)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (0, 0)], ids=str)
def test_no_pixels(shape):
    x = np.zeros(shape, bool)
    np.testing.assert_array_equal(metrics.iou(x, x), np.ones(shape[:-2]))
    np.testing.assert_array_equal(metrics.dice(x, x, empty="zero"), np.zeros(shape[:-2]))
    np.testing.assert_array_equal(metrics.hausdorff(x, x), np.zeros(shape[:-2]))


# ---------------------------------------------------------------- Hausdorff


def all_points(pred, target, spacing=(1.0, 1.0)):
    a, b = np.argwhere(pred) * spacing, np.argwhere(target) * spacing
    return max(directed_hausdorff(a, b)[0], directed_hausdorff(b, a)[0])


@pytest.mark.parametrize("spacing", [1.0, (2.5, 0.4)], ids=str)
@pytest.mark.parametrize("shape", SMALL.values(), ids=SMALL)
def test_hausdorff(rng, shape, spacing):
    for density in (0.02, 0.5, 0.95):
        pred, target = (rng.random((2, *shape)) < density for _ in range(2))
        pred[:, 0, 0] = target[:, -1, -1] = True
        sizes = (spacing, spacing) if isinstance(spacing, float) else spacing
        wanted = [all_points(p, t, sizes) for p, t in zip(pred, target, strict=True)]
        np.testing.assert_allclose(metrics.hausdorff(pred, target, spacing=spacing), wanted, rtol=1e-6)


def test_hausdorff_of_surfaces_differs_in_a_hole():
    """A pixel of the mask is at distance 0 of the mask, but not of its border."""
    square = np.zeros((9, 9), bool)
    square[1:8, 1:8] = True
    holed = square.copy()
    holed[2:7, 2:7] = False
    holed[4, 4] = True
    assert metrics.hausdorff(holed, square) == pytest.approx(math.sqrt(2))
    assert metrics.hausdorff(holed, square, surface=True) == 3.0


def six_neighbours(mask):
    inside = np.pad(mask, 1)
    least = [np.roll(inside, step, axis) for axis in range(3) for step in (-1, 1)]
    return mask & ~np.all(least, 0)[1:-1, 1:-1, 1:-1]


@pytest.mark.parametrize("surface", [False, True])
def test_hausdorff_of_volumes(rng, surface):
    pred, target = (rng.random((2, 1, 4, 7, 8)) < 0.6 for _ in range(2))
    spacing = (3.0, 1.0, 0.5)
    shown = six_neighbours if surface else np.asarray
    wanted = [[all_points(shown(p[0]), shown(t[0]), spacing)] for p, t in zip(pred, target, strict=True)]
    for options in ({}, {"dims": 3}):  # five axes are volumes
        found = metrics.hausdorff(pred, target, spacing=spacing, surface=surface, **options)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    one = metrics.hausdorff(pred[0, 0], target[0, 0], spacing=spacing, dims=3, surface=surface)
    np.testing.assert_allclose(one, wanted[0][0], rtol=1e-6)
    assert metrics.hausdorff(pred[0, 0], target[0, 0], surface=surface).shape == (4,)
    with pytest.raises(ValueError, match="spacing must be one number or 2 numbers, got 3; a volume needs dims=3"):
        metrics.hausdorff(pred[0, 0], target[0, 0], spacing=spacing)
    none = np.zeros((4, 7, 8), bool)
    edge = metrics.hausdorff(none, ~none, one_empty="diagonal", spacing=spacing, dims=3, surface=surface)
    assert edge == pytest.approx(math.sqrt(9**2 + 6**2 + 3.5**2))


def test_the_edge_of_the_image_is_a_border():
    corner = np.zeros((9, 9), bool)
    corner[:3, :3] = True
    assert metrics.hausdorff(corner, np.ones((9, 9), bool), surface=True) == pytest.approx(math.hypot(6, 6))
    assert metrics.hausdorff(corner[:2], np.ones((2, 9), bool), surface=True) == 6.0


@pytest.mark.parametrize(("options", "both", "one"), [
    ({}, 0.0, math.inf),
    ({"empty": "nan"}, math.nan, math.inf),
    ({"one_empty": "diagonal"}, 0.0, math.hypot(3, 5)),
    ({"one_empty": "diagonal", "spacing": (2.0, 0.5)}, 0.0, math.hypot(6, 2.5)),
])  # fmt: skip
def test_hausdorff_of_empty_masks(options, both, one):
    pred, target = np.stack([NONE, NONE, FULL, FULL]), np.stack([NONE, FULL, NONE, FULL])
    for surface in (False, True):
        found = metrics.hausdorff(pred, target, surface=surface, **options)
        np.testing.assert_array_equal(found, [both, one, one, 0.0])


# ---------------------------------------------------------------- PointM, all pairs


def test_point_matching():
    scores = np.array([[[0.1, 0.9], [0.9, 0.2]]] * 4 + [[[np.nan, 0.1], [np.nan, -np.inf]]])
    target = np.array([[[0, 1], [0, 0]], [[0, 0], [1, 0]], [[1, 1], [1, 1]], [[0, 0], [0, 0]], [[0, 1], [0, 0]]])
    # the first of equal maxima; an empty target is a miss; NaN is the lowest score
    np.testing.assert_array_equal(metrics.point_matching(scores, target), [True, False, True, False, True])
    assert metrics.point_matching(np.array([[3, 200]], np.uint8), np.array([[0, 1]]))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_pairwise(rng, isa, shape):
    pred, target = rng.random((5, *shape)) < 0.3, rng.random((3, *shape)) < 0.6
    target[1] = pred[2]
    wanted = [[metrics.iou(p, t) for t in target] for p in pred]
    np.testing.assert_array_equal(metrics.pairwise_iou(pred, target), wanted)
    with fp.backend("reference"):
        np.testing.assert_array_equal(metrics.pairwise_iou(pred, target), wanted)
    got = metrics.pairwise_iou(pred.astype(np.float32), target, threshold=0.5)
    np.testing.assert_array_equal(got, wanted)


def test_pairwise_of_nothing():
    assert metrics.pairwise_iou(FULL[None][:0], FULL[None]).shape == (0, 1)
    np.testing.assert_array_equal(metrics.pairwise_iou(NONE[None], np.stack([NONE, FULL]), empty="zero"), [[0.0, 0.0]])


# ---------------------------------------------------------------- torch


def test_torch(rng):
    torch = pytest.importorskip("torch")
    pred, target = random_pair(rng, 3, 20, 30)
    logits = pred.astype(np.float32) - 0.5
    p, t = torch.from_numpy(logits), torch.from_numpy(target)
    for name in ("iou", "dice", "hausdorff", "pairwise_iou"):
        found = getattr(metrics, name)(p, t, threshold=0.0)
        assert found.dtype == torch.float64
        np.testing.assert_array_equal(found, getattr(metrics, name)(pred, target))
        half = getattr(metrics, name)(p.bfloat16().mT, t.mT, threshold=0.0)
        np.testing.assert_allclose(half, getattr(metrics, name)(pred, target), rtol=1e-12)
    assert metrics.overlap(p, t.long(), threshold=0.0, ignore=1).pixels.tolist() == (~target).sum((1, 2)).tolist()
    assert metrics.iou(p[0], t[0], threshold=0.0).shape == ()
    hits = metrics.point_matching(p, t)
    assert hits.dtype == torch.bool
    np.testing.assert_array_equal(hits, metrics.point_matching(logits, target))
    operator = torch.ops.fastprompt.overlap_counts.default
    torch.library.opcheck(operator, (p.flatten(1), t.flatten(1), 0.0, -1))
    torch.library.opcheck(operator, (p.flatten(1)[:, ::2], t.flatten(1)[:, ::2], 0.0, 1))
    with fp.backend("reference"):
        np.testing.assert_array_equal(metrics.iou(p, t, threshold=0.0), metrics.iou(pred, target))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(rng, threads):
    pred, target = random_pair(rng, 7, 200, 300)
    fp.set_num_threads(threads)
    try:
        np.testing.assert_array_equal(np.stack(metrics.overlap(pred, target)), np.stack(counts(pred, target)))
    finally:
        fp.set_num_threads(None)


# ---------------------------------------------------------------- wrong calls

F = FULL.astype(np.float32)
WRONG = {
    "row": (metrics.iou, (FULL[0], FULL[0]), {}, ValueError, r"pred and target must both be \(\.\.\., H, W\), got shapes \(6,\)"),
    "shapes": (metrics.iou, (FULL, FULL[:3]), {}, ValueError, r"got shapes \(4, 6\) and \(3, 6\)"),
    "no_threshold": (metrics.iou, (F, FULL), {}, ValueError, r"pred holds float32: say threshold=\.\.\., 0\.0 for logits"),
    "threshold": (metrics.dice, (F, FULL), {"threshold": math.nan}, ValueError, r"threshold must be between"),
    "empty": (metrics.iou, (FULL, FULL), {"empty": "1"}, ValueError, r"empty must be one of one, zero, nan, got '1'"),
    "skip_one": (metrics.iou, (FULL, FULL), {"empty": "skip"}, ValueError, r"empty must be one of one, zero, nan"),
    "eps": (metrics.iou, (FULL, FULL), {"eps": -1}, ValueError, r"eps must be between 0 and inf"),
    "ignore": (metrics.iou, (FULL, FULL), {"ignore": "x"}, TypeError, r"ignore must be an int or None, got 'x'"),
    "complex": (metrics.iou, (F.astype(complex), FULL), {}, TypeError, r"pred must hold real numbers"),
    "hausdorff_shapes": (metrics.hausdorff, (FULL, FULL[:3]), {}, ValueError, r"got shapes"),
    "hausdorff_empty": (metrics.hausdorff, (FULL, FULL), {"empty": "one"}, ValueError, r"empty must be one of zero, nan"),
    "one_empty": (metrics.hausdorff, (FULL, FULL), {"one_empty": "nan"}, ValueError, r"one_empty must be one of inf, diagonal"),
    "spacing": (metrics.hausdorff, (FULL, FULL), {"spacing": (1, 1, 1)}, ValueError, r"spacing must be one number or 2 numbers"),
    "points": (metrics.point_matching, (F, F[:2]), {}, ValueError, r"scores and target must both be"),
    "no_points": (metrics.point_matching, (F[:0], F[:0]), {}, ValueError, r"not empty there"),
    "pairs": (metrics.pairwise_iou, (FULL, FULL), {}, ValueError, r"pred must be \(M, H, W\) and target \(K, H, W\)"),
    "pair_sizes": (metrics.pairwise_iou, (FULL[None], FULL[None, 1:]), {}, ValueError, r"got shapes \(1, 4, 6\) and \(1, 3, 6\)"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "args", "options", "kind", "message"), WRONG.values(), ids=WRONG)
def test_errors(call, args, options, kind, message):
    with pytest.raises(kind, match=message):
        call(*args, **options)
