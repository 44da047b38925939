"""The click simulator against its reference, against the published form on OpenCV and SciPy, and known answers."""

import numpy as np
import pytest
from scipy import ndimage

import fastprompt as fp
from fastprompt import _C

SHAPES = {
    "pixel": (1, 1), "row": (1, 37), "column": (41, 1), "two": (2, 2), "ragged": (17, 33), "vector": (16, 64),
    "beyond": (19, 65), "wide": (5, 211), "tall": (150, 7), "square": (70, 70),
}  # fmt: skip
SMALL = {k: s for k, s in SHAPES.items() if s[0] * s[1] < 1300}


def shapes_of(rng, shape, smooth):
    return ndimage.gaussian_filter(rng.standard_normal(shape), smooth) > 0


def published(target, pred, clicked, distance, ignore=None):
    """RITM's rule from its formula: pad, transform, blank the clicked pixels, compare the maxima, first of argwhere."""
    counts = np.ones(target.shape, bool) if ignore is None else target != ignore
    inside = target == 1
    maps = []
    for error in (inside & ~pred & counts, ~inside & pred & counts):
        d = distance(np.pad(error, 1))[1:-1, 1:-1]
        for x, y in clicked:
            d[y, x] = 0
        maps.append(d)
    missed = maps[0].max() > maps[1].max()
    best = maps[0 if missed else 1]
    y, x = np.argwhere(best == best.max())[0]
    return int(x), int(y), int(missed), best.max()


def opencv(error):
    cv2 = pytest.importorskip("cv2")
    return cv2.distanceTransform(error.astype(np.uint8), cv2.DIST_L2, 0).astype(np.float64)


def same(click, expected):
    assert tuple(click[:3]) == expected[:3]
    assert click.distance == pytest.approx(expected[3], rel=1e-6)


# ---------------------------------------------------------------- against the oracles


@pytest.mark.parametrize("distance", [ndimage.distance_transform_edt, opencv], ids=["scipy", "opencv"])
@pytest.mark.parametrize("smooth", [0, 1, 4])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_published(rng, isa, shape, smooth, distance):
    for clicks in (0, 3):
        target, pred = shapes_of(rng, shape, smooth), shapes_of(rng, shape, smooth)
        pred[0, 0] = not target[0, 0]
        clicked = np.stack([rng.integers(0, n, clicks) for n in shape[::-1]], 1)
        expected = published(target, pred, clicked, distance)
        click = fp.next_click(target, pred, clicked=clicked, compat=True)
        same(click, expected)


@pytest.mark.parametrize("shape", SMALL.values(), ids=SMALL)
def test_reference(rng, isa, shape):
    target, pred = rng.integers(0, 3, (3, *shape), np.uint8), rng.random((3, *shape), np.float32)
    clicked = rng.integers(-1, max(shape), (3, 4, 2))
    options = {"clicked": clicked, "threshold": 0.6, "ignore": 2}
    with fp.backend("reference"):
        expected = fp.next_click(target, pred, **options)
    assert fp.next_click(target, pred, **options) == expected


def structures():
    y, x = np.mgrid[:230, :310]
    yield "disc", (x - 100) ** 2 + (y - 90) ** 2 < 80**2
    yield "upright", (abs(x - 150) < 40) & (abs(y - 115) < 110)
    yield "lying", (abs(x - 150) < 140) & (abs(y - 115) < 30)
    yield "stripes", (x + y) % 90 < 45
    yield "steep stripes", (x + 3 * y) % 90 < 45
    yield "grid", (x % 50 != 0) & (y % 40 != 0)
    yield "ring", abs(np.hypot(x - 150, y - 110) - 80) < 20
    yield "all", x >= 0
    yield "corner", (x > 250) & (y > 180)
    yield "one row", y == 100


STRUCTURES = dict(structures())


@pytest.mark.parametrize("mask", STRUCTURES.values(), ids=STRUCTURES)
def test_structures(isa, mask):
    """Straight fronts, where many pixels tie; missed, false, and both."""
    none = np.zeros_like(mask)
    for target, pred in ((mask, none), (none, mask), (mask, np.roll(mask, 9, 0)), (mask, mask[::-1]), (mask, ~mask)):
        if (target == pred).all():
            continue
        same(fp.next_click(target, pred), published(target, pred, (), ndimage.distance_transform_edt))


@pytest.mark.parametrize("shape", [(3, 32766), (32766, 2), (700, 900)], ids=str)
def test_large(rng, isa, shape):
    target = np.ones(shape, bool)
    target.flat[rng.integers(target.size, size=5)] = False
    pred = np.zeros(shape, bool)
    same(fp.next_click(target, pred), published(target, pred, (), ndimage.distance_transform_edt))


# ---------------------------------------------------------------- the rules


def masks(*pixels, shape=(5, 9)):
    out = np.zeros(shape, bool)
    for x, y in pixels:
        out[y, x] = True
    return out


def test_a_tie_of_both_kinds_is_negative():
    """Trap: positive only if the maximum of FN is larger, not equal."""
    assert fp.next_click(masks((1, 1)), masks((7, 3)))[:3] == (7, 3, 0)


def test_the_first_pixel_of_a_tie_in_the_order_of_the_rows():
    assert fp.next_click(masks((6, 1), (2, 1), (1, 3)), masks())[:3] == (2, 1, 1)


def test_pixels_outside_of_the_image_are_no_error():
    """Trap: without the pad of one pixel the click would sit at the edge."""
    click = fp.next_click(np.ones((5, 9), bool), masks())
    assert click == (2, 2, 1, 3.0)


def test_clicked_pixels_are_no_candidates_but_errors():
    """Trap: they are blanked after the transform, so the distances of their neighbours do not change."""
    target = masks(*((x, y) for x in range(2, 7) for y in range(1, 4)))
    assert fp.next_click(target, masks())[:3] == (3, 2, 1)
    assert fp.next_click(target, masks(), clicked=[(3, 2)]) == (4, 2, 1, 2.0)


@pytest.mark.parametrize("clicked", [[(-1, -1)], [(9, 2)], [(2, 5)], [(np.nan, 2)], [(1e300, -np.inf)]], ids=str)
def test_clicks_outside_of_the_image_are_passed_over(clicked):
    assert fp.next_click(masks((2, 2)), masks(), clicked=clicked)[:3] == (2, 2, 1)


def test_clicks_are_rounded():
    assert fp.next_click(masks((2, 2), (4, 2)), masks(), clicked=[(2.3, 1.6)])[:3] == (4, 2, 1)


@pytest.mark.parametrize("target", [masks(), masks((2, 2)), ~masks()], ids=["empty", "pixel", "full"])
def test_no_error_left(target):
    """Trap: published code clicks at (0, 0), negative."""
    assert fp.next_click(target, target) is None
    assert fp.next_click(target, target, compat=True) == (0, 0, 0, 0.0)


def test_every_error_clicked():
    options = {"clicked": [(2, 2)]}
    assert fp.next_click(masks((2, 2)), masks(), **options) is None
    expected = published(masks((2, 2)).astype(int), masks(), [(2, 2)], ndimage.distance_transform_edt)
    same(fp.next_click(masks((2, 2)), masks(), compat=True, **options), expected)


@pytest.mark.parametrize(("dtype", "ignore"), [("uint8", 255), ("int32", -1), ("int64", 300), ("float32", -1)])
def test_ignored_pixels_are_no_errors(rng, isa, dtype, ignore):
    plain = shapes_of(rng, (40, 50), 3).astype(dtype)
    plain[rng.random(plain.shape) < 0.05] = ignore
    pred = shapes_of(rng, (40, 50), 3)
    expected = published(plain, pred, (), ndimage.distance_transform_edt, ignore)
    same(fp.next_click(plain, pred, ignore=ignore), expected)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)], ids=str)
def test_no_pixels(shape):
    empty = np.zeros(shape, bool)
    assert fp.next_click(empty, empty) is None


# ---------------------------------------------------------------- input forms

VIEWS = {
    "transposed": lambda m: m.T,
    "reversed": lambda m: m[::-1, ::-1],
    "every_third": lambda m: m[1::2, ::3],
    "offset": lambda m: m[3:, 5:],
    "broadcast": lambda m: np.broadcast_to(m[:1], m.shape),
    "fortran": np.asfortranarray,
}


@pytest.mark.parametrize("see", VIEWS.values(), ids=VIEWS)
def test_views(rng, see):
    target, pred = see(shapes_of(rng, (60, 70), 2)), see(shapes_of(rng, (60, 70), 2))
    same(fp.next_click(target, pred), published(target, pred, (), ndimage.distance_transform_edt))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "float64"])
def test_dtypes(rng, dtype):
    target, pred = shapes_of(rng, (20, 30), 2), shapes_of(rng, (20, 30), 2)
    threshold = {"threshold": 0.5} if "float" in dtype else {}
    expected = fp.next_click(target, pred)
    assert fp.next_click(target.astype(dtype), pred.astype(dtype), **threshold) == expected


def test_threshold_is_strict_and_nan_is_outside():
    pred = np.array([[0.5, np.nan, 0.51]], np.float32)
    assert fp.next_click(np.zeros((1, 3), bool), pred, threshold=0.5)[:3] == (2, 0, 0)


@pytest.mark.parametrize("threads", [1, 2])
def test_batch(rng, threads):
    target, pred = shapes_of(rng, (5, 90, 200), 2), shapes_of(rng, (5, 90, 200), 2)
    pred[3] = target[3]
    clicked = rng.integers(0, 90, (5, 6, 2))
    fp.set_num_threads(threads)
    try:
        found = fp.next_click(target, pred, clicked=clicked)
    finally:
        fp.set_num_threads(None)
    assert found == [fp.next_click(t, p, clicked=c) for t, p, c in zip(target, pred, clicked, strict=True)]
    assert found[3] is None
    assert fp.next_click(target[:0], pred[:0]) == []


def test_torch(rng):
    torch = pytest.importorskip("torch")
    target, pred = shapes_of(rng, (3, 20, 70), 2), rng.random((3, 20, 70), np.float32)
    clicked = rng.integers(0, 20, (3, 4, 2))
    expected = fp.next_click(target, pred, threshold=0.5, clicked=clicked)
    arrays = [torch.from_numpy(x) for x in (target, pred, clicked)]
    assert fp.next_click(arrays[0], arrays[1], threshold=0.5, clicked=arrays[2]) == expected
    assert fp.next_click(arrays[0][0], arrays[1][0].bfloat16().float(), threshold=0.5) is not None
    operator = torch.ops.fastprompt.next_click.default
    points = torch.from_numpy(clicked.astype(np.int32))
    torch.library.opcheck(operator, (arrays[1], arrays[0], points, 0.5, -1))
    torch.library.opcheck(operator, (arrays[1].mT, arrays[0].mT, points, 0.5, -1))
    with fp.backend("reference"):
        assert fp.next_click(*arrays[:2], threshold=0.5, clicked=arrays[2]) == expected


A = np.zeros((4, 5), bool)
WRONG = {
    "one_axis": ((A[0], A[0]), {}, ValueError, r"target and pred must both be \(\[B,\] H, W\)"),
    "shapes": ((A, A[:3]), {}, ValueError, r"got shapes \(4, 5\) and \(3, 5\)"),
    "floats": ((A, A.astype(np.float32)), {}, ValueError, r"pred holds float32: say threshold"),
    "threshold_text": ((A, A), {"threshold": "x"}, TypeError, r"threshold must be a number"),
    "threshold_nan": ((A, A), {"threshold": np.nan}, ValueError, r"threshold must be between"),
    "ignore": ((A, A), {"ignore": 0.5}, TypeError, r"ignore must be an int or None, got 0.5"),
    "clicked": ((A, A), {"clicked": [1, 2]}, ValueError, r"clicked must be \(K, 2\)"),
    "clicked_batch": ((A[None], A[None]), {"clicked": [[1, 2]]}, ValueError, r"clicked must be \(1, K, 2\)"),
    "clicked_width": ((A, A), {"clicked": [[1, 2, 3]]}, ValueError, r"points \(x, y\), got shape \(1, 3\)"),
    "complex": ((A.astype(complex), A), {}, TypeError, r"target must hold real numbers"),
    "huge": ((np.zeros((1, _C.largest_click_side + 1), bool),) * 2, {}, ValueError, r"at most 32766 pixels"),
}


@pytest.mark.parametrize(("args", "options", "kind", "message"), WRONG.values(), ids=WRONG)
def test_errors(args, options, kind, message):
    with pytest.raises(kind, match=message):
        fp.next_click(*args, **options)
