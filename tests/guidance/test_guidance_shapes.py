"""Boxes, scribbles and polygons: against formulas of the tests' own, SciPy, OpenCV, scikit-image and matplotlib."""

import itertools
import math

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")

SIZES = {"regular": (32, 64), "ragged": (37, 71), "wide": (3, 50), "tall": (40, 2), "pixel": (1, 1)}


@pytest.fixture(params=["numpy", "torch", "reference", "torch reference"])
def call(request):
    """``call(function, first argument, …)``, the arrays as NumPy or torch; arrays come out."""

    def as_tensor(x):
        return [as_tensor(p) for p in x] if isinstance(x, list) else torch.from_numpy(np.array(x))

    def run(function, x, *rest, **options):
        with fp.backend("reference" if "reference" in request.param else "auto"):
            if "torch" in request.param:
                return function(as_tensor(x), *rest, **options).numpy()
            return function(x, *rest, **options)

    return run


# ---------------------------------------------------------------- boxes


def signed_distance(box, size):
    """To the frame: the exact distance of its pixels, negative inside. Whole corners only."""
    ndimage = pytest.importorskip("scipy.ndimage")
    x0, y0, x1, y1 = box
    margin = 40
    frame, inside = np.ones((size[0] + 2 * margin, size[1] + 2 * margin)), np.zeros(size, bool)
    frame[y0 + margin : y1 + margin + 1, x0 + margin : x1 + margin + 1] = 0
    frame[y0 + margin + 1 : y1 + margin, x0 + margin + 1 : x1 + margin] = 1
    inside[max(y0, 0) : max(y1 + 1, 0), max(x0, 0) : max(x1 + 1, 0)] = True
    distance = ndimage.distance_transform_edt(frame)[margin:-margin, margin:-margin]
    return np.where(inside, -distance, distance), inside


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_boxes_equal_the_distance_transform_of_their_frame(rng, call, isa, size):
    for _ in range(6):
        x, y = rng.integers(-9, size[1] + 9, 2), rng.integers(-9, size[0] + 9, 2)
        box = [x.min(), y.min(), x.max(), y.max()]
        want, inside = signed_distance(box, size)
        for corners in (box, [box[2], box[3], box[0], box[1]], [box[2], box[1], box[0], box[3]]):  # any order
            corners = np.array(corners, np.float32)
            got = call(fp.box_distance_map, corners, size=size, clip=None)
            np.testing.assert_allclose(got[0], 128 + want, rtol=2e-7)
            np.testing.assert_array_equal(call(fp.box_map, corners, size=size)[0], inside)
        clipped = call(fp.box_distance_map, corners, size=size, offset=10, clip=(5, 20))
        np.testing.assert_allclose(clipped[0], np.clip(10 + want, 5, 20), rtol=2e-7)


def test_box_of_one_pixel_is_all_frame(call):
    got = call(fp.box_distance_map, np.array([2.0, 1, 2, 1]), size=(3, 5))
    assert got[0, 1, 2] == 128
    assert got.min() == 128
    assert math.isclose(got[0, 0, 0], 128 + math.hypot(2, 1), rel_tol=1e-6)


def test_boxes_between_pixels(call):
    got = call(fp.box_map, np.array([[0.5, 0.5, 2.5, 1.5]]), size=(3, 4))
    np.testing.assert_array_equal(got[0], [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
    got = call(fp.box_distance_map, np.array([0.5, 0, 2.5, 2]), size=(3, 4))
    np.testing.assert_allclose(got[0, 1], [128.5, 127.5, 127.5, 128.5])


def test_box_batch(call):
    boxes = np.array([[[1, 1, 3, 2], [0, 0, 0, 0]], [[np.nan, 1, 2, 3], [5, 0, 6, 3]], [[np.nan] * 4] * 2], np.float32)
    got = call(fp.box_map, boxes, size=(4, 7))
    assert got.shape == (3, 1, 4, 7)
    assert got.sum((1, 2, 3)).tolist() == [7, 8, 0]
    far = call(fp.box_distance_map, boxes, size=(4, 7))
    assert (far[2] == 255).all()
    parts = [call(fp.box_distance_map, b, size=(4, 7)) for b in boxes[0]]
    np.testing.assert_array_equal(far[0], np.minimum(*parts))
    assert np.isinf(call(fp.box_distance_map, boxes, size=(4, 7), clip=None)[2]).all()
    assert call(fp.box_map, np.zeros((2, 0, 4)), size=(3, 4)).sum() == 0
    assert call(fp.box_map, np.zeros((0, 2, 4)), size=(3, 4)).shape == (0, 1, 3, 4)
    assert call(fp.box_map, np.zeros((2, 4)), size=(0, 4)).shape == (1, 0, 4)


# ---------------------------------------------------------------- scribbles


def stroke(points, size, thickness):
    """All pixels within half of the thickness of some of many places on the polyline, at fine steps."""
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    distance = np.full(size, np.inf)
    for p, q in itertools.pairwise(points) if len(points) > 1 else [(points[0], points[0])]:
        for t in np.linspace(0, 1, 1001):
            distance = np.minimum(distance, np.hypot(x - (1 - t) * p[0] - t * q[0], y - (1 - t) * p[1] - t * q[1]))
    return distance - thickness / 2


@pytest.mark.parametrize("thickness", [1, 2.4, 7])
@pytest.mark.parametrize("size", [(23, 31), (1, 9), (31, 2)])
def test_scribble_is_what_is_near_the_polyline(rng, call, size, thickness):
    for count in (1, 2, 4):
        points = rng.uniform(-4, max(size) + 4, (count, 2))
        got = call(fp.scribble_map, [points], size=size, thickness=thickness)
        beyond = stroke(points, size, thickness)
        sure = np.abs(beyond) > 0.02
        np.testing.assert_array_equal(got[0][sure], (beyond < 0)[sure])


def test_thin_lines_are_connected(rng):
    measure = pytest.importorskip("skimage.measure")
    for _ in range(50):
        points = rng.integers(0, 40, (2, 2))
        line = fp.scribble_map([points], size=(40, 40))[0]
        assert measure.label(line, connectivity=2).max() == 1
        for x, y in points:
            assert line[y, x]
    assert fp.scribble_map([[(3, 5), (30, 5)]], size=(40, 40)).sum() == 28
    assert fp.scribble_map([[(3, 5), (8, 10)]], size=(40, 40)).sum() == 6
    assert fp.scribble_map([[(10, 10)]], size=(40, 40), thickness=5).sum() == 21


def test_scribble_channels(call):
    """Two channels, not one label: the survey's 0 is "negative" and "nothing" at once. The later stroke wins."""
    strokes = [np.array([[0, 2], [6, 2]]), np.array([[3, 0], [3, 4]]), np.array([[0, 0]]), np.zeros((0, 2))]
    got = call(fp.scribble_map, strokes, [1, 0, -1, 1], size=(5, 7))
    assert got[0].sum() == 6
    assert got[1].sum() == 5
    assert got[:, 2, 3].tolist() == [0, 1]
    assert not (got[0] * got[1]).any()
    alone = call(fp.scribble_map, strokes, size=(5, 7))
    assert alone.shape == (1, 5, 7)
    assert alone.sum() == 12
    more = call(fp.scribble_map, strokes, [4, 5, 6, 4], size=(5, 7), channels=(6, 5))
    assert more.sum((1, 2)).tolist() == [1, 5]
    assert fp.scribble_map([], size=(5, 7)).shape == (1, 5, 7)
    assert fp.scribble_map([], [], size=(5, 7)).sum() == 0


def test_mideepseg_ring_has_no_centre(call):
    """extends_points of MIDeepSeg keeps 0 < distance <= 2: the seeds drop out. thickness=5 is the true dilation."""
    ndimage = pytest.importorskip("scipy.ndimage")
    points = np.array([[10.0, 8.0]])
    ring = call(fp.scribble_map, [points], size=(17, 21), compat="mideepseg")[0]
    seed = np.zeros((17, 21))
    seed[8, 10] = 1
    distance = ndimage.distance_transform_edt(seed == 0)
    np.testing.assert_array_equal(ring, (distance > 0) & (distance <= 2))
    assert ring[8, 10] == 0
    whole = call(fp.scribble_map, [points], size=(17, 21), thickness=4)[0]
    np.testing.assert_array_equal(whole - ring, seed)
    assert not call(fp.scribble_map, [np.zeros((0, 2))], size=(17, 21), compat="mideepseg").any()


# ---------------------------------------------------------------- polygons


def winding_number(vertices, x, y):
    """Sum of the angles under which a point sees the edges, in turns."""
    p, q = vertices - (x, y), np.roll(vertices, -1, 0) - (x, y)
    return round(float(np.arctan2(p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0], (p * q).sum(1)).sum() / (2 * math.pi)))


def crossings(vertices, x, y):
    """Edges that a ray to the right meets."""
    count = 0
    for (px, py), (qx, qy) in zip(vertices, np.roll(vertices, -1, 0), strict=True):
        if (py > y) != (qy > y):
            count += px + (y - py) / (qy - py) * (qx - px) > x
    return count


@pytest.mark.parametrize("rule", ["even_odd", "non_zero"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_polygon_by_angles_and_rays(rng, call, size, rule):
    for count in (3, 5, 12):  # self-intersecting, partly outside
        vertices = rng.uniform(-10, 50, (count, 2))
        got = call(fp.polygon_mask, vertices, size=size, rule=rule)
        assert got.dtype == bool
        for y, x in np.ndindex(size):
            want = crossings(vertices, x, y) % 2 if rule == "even_odd" else winding_number(vertices, x, y) != 0
            assert got[y, x] == want


def test_polygon_equals_matplotlib_and_skimage(rng):
    """Both count crossings, whatever matplotlib's documentation of paths says of filling."""
    path = pytest.importorskip("matplotlib.path")
    draw = pytest.importorskip("skimage.draw")
    for count in (3, 7, 20):
        vertices = rng.uniform(-5, 60, (count, 2))
        places = np.stack(np.meshgrid(np.arange(61), np.arange(47)), -1).reshape(-1, 2)
        inside = path.Path(np.concatenate([vertices, vertices[:1]]), closed=True).contains_points(places)
        got = fp.polygon_mask(vertices, size=(47, 61))
        np.testing.assert_array_equal(got, inside.reshape(47, 61))
        odd = np.zeros((47, 61), bool)
        odd[draw.polygon(vertices[:, 1], vertices[:, 0], (47, 61))] = True
        np.testing.assert_array_equal(got, odd)


def test_square_of_eight(call):
    square = np.array([[2, 2], [10, 2], [10, 10], [2, 10]])
    for shift, pixels in ((0, 64), (0.5, 64)):
        assert call(fp.polygon_mask, square + shift, size=(16, 16)).sum() == pixels
    assert call(fp.polygon_mask, square[::-1].copy(), size=(16, 16)).sum() == 64
    assert call(fp.polygon_mask, square, size=(16, 16), boundary=True).sum() == 81
    half = call(fp.polygon_mask, square, size=(16, 16))
    assert half[2, 2]
    assert not half[10].any()
    assert not half[:, 10].any()


def test_neighbours_share_no_pixel(rng, call):
    """A fan of triangles around any point covers every pixel of the square once."""
    for _ in range(5):
        middle = rng.choice([rng.uniform(4, 16, 2), rng.integers(4, 16, 2)])
        rim = np.array([[0, 0], [9, 0], [20, 0], [20, 13], [20, 20], [3, 20], [0, 20], [0, 7]])
        parts = [np.stack([middle, p, q]) for p, q in zip(rim, np.roll(rim, -1, 0), strict=True)]
        total = sum(call(fp.polygon_mask, p, size=(21, 21)).astype(int) for p in parts)
        assert (total[:20, :20] == 1).all()
        assert total.sum() == 400


@pytest.mark.parametrize("boundary", [False, True])
def test_degenerate_polygons(call, boundary):
    cases = {
        "none": (np.zeros((0, 2)), 0),
        "point": (np.array([[3, 4]]), 1),
        "two": (np.array([[2, 2], [6, 2]]), 5),
        "line": (np.array([[2, 2], [6, 2], [4, 2]]), 5),
        "same": (np.array([[2, 2]] * 4), 1),
        "closed": (np.array([[2, 2], [10, 2], [10, 10], [2, 10], [2, 2]]), 81),
        "outside": (np.array([[-9, -9], [-2, -9], [-2, -2]]), 0),
        "around": (np.array([[-99, -99], [99, -99], [99, 99], [-99, 99]]), 16 * 16),
        "far": (np.array([[-1e9, -1e9], [1e9, -1e9], [1e9, 1e9], [-1e9, 1e9]]), 16 * 16),
    }
    for name, (vertices, drawn) in cases.items():
        got = call(fp.polygon_mask, vertices, size=(16, 16), boundary=boundary) if name != "far" else (
            fp.polygon_mask(vertices, size=(16, 16), boundary=boundary)
        )  # fmt: skip
        want = drawn if boundary or name in ("outside", "around", "far") else 64 if name == "closed" else 0
        assert got.sum() == want, name


def test_rings_and_batches(rng, call):
    outer, hole = np.array([[1, 1], [12, 1], [12, 12], [1, 12]]), np.array([[4, 4], [4, 8], [8, 8], [8, 4]])
    odd = call(fp.polygon_mask, [outer, hole], size=(14, 14))
    assert odd.sum() == 121 - 16
    assert call(fp.polygon_mask, [outer, hole], size=(14, 14), rule="non_zero").sum() == 121 - 16  # the other way round
    assert call(fp.polygon_mask, [outer, hole[::-1].copy()], size=(14, 14), rule="non_zero").sum() == 121
    batch = rng.uniform(0, 14, (3, 6, 2))
    for boundary in (False, True):
        got = call(fp.polygon_mask, batch, size=(14, 15), boundary=boundary)
        want = [call(fp.polygon_mask, v, size=(14, 15), boundary=boundary) for v in batch]
        np.testing.assert_array_equal(got, want)
    assert fp.polygon_mask(np.zeros((0, 3, 2)), size=(4, 5)).shape == (0, 4, 5)
    assert fp.polygon_mask(np.zeros((2, 3, 2)), size=(0, 5)).shape == (2, 0, 5)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 30])
def test_boundary_equals_opencv(rng, call, count):
    cv2 = pytest.importorskip("cv2")
    for n in range(20):
        size = (40, 57) if n % 2 else (9, 11)
        vertices = np.stack([rng.integers(0, size[1], count), rng.integers(0, size[0], count)], 1)
        want = np.zeros(size, np.uint8)
        cv2.fillPoly(want, [vertices.astype(np.int32)], 1)
        np.testing.assert_array_equal(call(fp.polygon_mask, vertices, size=size, boundary=True), want, str(vertices))
    rings = [np.stack([rng.integers(0, 57, 7), rng.integers(0, 40, 7)], 1) for _ in range(3)]
    want = np.zeros((40, 57), np.uint8)
    cv2.fillPoly(want, [r.astype(np.int32) for r in rings], 1)
    np.testing.assert_array_equal(call(fp.polygon_mask, rings, size=(40, 57), boundary=True), want)
