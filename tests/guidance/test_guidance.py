"""click_map: every encoding against its formula in float64, RITM's torch formula bit by bit, and the traps of ops.md."""

import math

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")

SIZES = {"regular": (64, 128), "ragged": (37, 71), "wide": (3, 200), "tall": (70, 5), "pixel": (1, 1)}
ENCODINGS = {
    "disk": {"encoding": "disk"},
    "disks": {"encoding": "disk", "radius": [5, 2.5, 24]},
    "dot": {"encoding": "disk", "radius": 0},
    "huge": {"encoding": "disk", "radius": 1e5},
    "raw": {"encoding": "euclidean"},
    "clipped": {"encoding": "euclidean", "clip": 30},
    "divided": {"encoding": "euclidean", "clip": 255, "normalize": "clip"},
    "stretched": {"encoding": "euclidean", "normalize": "minmax"},
    "tanh": {"encoding": "tanh"},
    "tanh_5": {"encoding": "tanh", "radius": 5},
    "std": {"encoding": "gaussian", "sigma": 7},
    "fwhm": {"encoding": "gaussian", "sigma_unit": "fwhm"},
    "relative": {"encoding": "gaussian", "sigma": [0.05, 0.2], "sigma_unit": "relative"},
    "stack": {"encoding": "gaussian", "sigma": [1, 3, 9]},
    "mideepseg": {"encoding": "gaussian", "sigma": 10, "normalize": "minmax"},
}


def formulas(size, encoding, radius=None, sigma=10, sigma_unit="std", clip=math.inf, normalize=None):
    """Functions of d, and the value of a map without a click: independently written."""
    many = lambda x: x if isinstance(x, list) else [x]  # noqa: E731
    if encoding == "disk":
        return [lambda d, r=r: (d <= r) * 1.0 for r in many(5 if radius is None else radius)], 0
    if encoding == "tanh":
        return [lambda d, r=r: np.tanh(2 * d / r) for r in many(260 if radius is None else radius)], 1
    if encoding == "euclidean":
        divisor = clip if normalize == "clip" else 1
        return [lambda d: np.minimum(d, clip) / divisor], 1 if normalize else clip
    unit = {"std": 1, "fwhm": 1 / math.sqrt(8 * math.log(2)), "relative": min(size)}[sigma_unit]
    return [lambda d, s=s: np.exp(-0.5 * (d / (s * unit)) ** 2) for s in many(sigma)], 0


def oracle(points, labels, size, **options):
    functions, empty = formulas(size, **options)
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    out = []
    for label in (1, 0):
        chosen = [p for p, kind in zip(points, labels, strict=True) if kind == label and not (max(p) < 0)]
        distance = [np.hypot(x - px, y - py) for px, py in chosen if math.isfinite(px) and math.isfinite(py)]
        for f in functions:
            if not distance:
                out.append(np.full(size, float(empty)))
                continue
            value = f(np.min(distance, 0))
            if options.get("normalize") == "minmax":
                value = (value - value.min()) / max(value.max() - value.min(), 1e-8)
            out.append(value)
    return np.array(out)


def random_clicks(rng, size, count):
    """Some whole, some between pixels, some outside, some slots empty."""
    points = rng.uniform(-0.2, 1.2, (count, 2)) * (size[1], size[0])
    points[::3] = points[::3].round()
    points[1::5] = (-1, -1)
    points[2::7] = math.nan
    return points.astype(np.float32), rng.choice([1, 1, 0, -1], count)


@pytest.fixture(params=["numpy", "torch", "reference", "torch reference"])
def click_map(request):
    def run(points, labels, **options):
        with fp.backend("reference" if "reference" in request.param else "auto"):
            if "torch" in request.param:
                return fp.click_map(torch.as_tensor(points), torch.as_tensor(labels), **options).numpy()
            return fp.click_map(points, labels, **options)

    return run


def near(got, want, options):
    if options["encoding"] == "disk":
        np.testing.assert_array_equal(got, want)
    else:
        loose = 1e-5 if options.get("normalize") == "minmax" else 3e-7  # the stretch enlarges the error too
        np.testing.assert_allclose(got, want, rtol=3e-7, atol=loose)


@pytest.mark.parametrize("count", [0, 1, 7, 48, 300])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("options", ENCODINGS.values(), ids=ENCODINGS)
def test_equals_the_formula(rng, click_map, options, size, count):
    points, labels = random_clicks(rng, size, count)
    got = click_map(points, labels, size=size, **options)
    assert got.dtype == np.float32
    near(got, oracle(points, labels, size, **options), options)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("options", ENCODINGS.values(), ids=ENCODINGS)
def test_instruction_sets(rng, isa, options, size):
    points, labels = random_clicks(rng, size, 40)
    near(fp.click_map(points, labels, size=size, **options), oracle(points, labels, size, **options), options)


def ritm(points, size, radius, disks):
    """RITM's torch path: every click's map, then the minimum; (row, column, order), positive clicks first."""
    rows, columns = torch.arange(size[0], dtype=torch.float32), torch.arange(size[1], dtype=torch.float32)
    place = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    shift = place - points[..., :2].reshape(-1, 2, 1, 1)
    shift = shift if disks else shift / radius
    d2 = (shift * shift).sum(1)
    d2[points[..., :2].reshape(-1, 2).amax(1) < 0] = 1e6
    d2 = d2.view(-1, points.shape[1] // 2, *size).amin(1).view(-1, 2, *size)
    return (d2 <= radius**2).float() if disks else (2 * d2.sqrt()).tanh()


@pytest.mark.parametrize("radius", [1.0, 5.0, 2.3, 24.0, 260.0])
@pytest.mark.parametrize("disks", [True, False])
def test_equals_ritm(rng, isa, disks, radius):
    size = (123, 161)
    points = torch.from_numpy(rng.uniform(-5, 170, (3, 48, 3)).astype(np.float32))
    points[:, ::3] = points[:, ::3].round()
    points[:, ::4] = -1
    points[1, :24] = -1  # no positive click
    labels = (torch.arange(48) < 24).long().expand(3, -1)
    encoding = "disk" if disks else "tanh"
    got = fp.click_map(points[..., [1, 0]], labels, size=size, encoding=encoding, radius=radius)
    want = ritm(points, size, radius, disks)
    if disks:
        assert torch.equal(got, want)
    else:
        assert float((got - want).abs().max()) <= 1e-6


def test_disks_of_whole_clicks():
    assert fp.click_map([[20, 20]], size=(41, 41)).sum() == 81


def test_threads_and_slices(rng):
    points, labels = random_clicks(rng, (700, 300), 60)
    one = fp.click_map(points, labels, size=(700, 300), encoding="tanh")
    fp.set_num_threads(4)
    try:
        np.testing.assert_array_equal(fp.click_map(points, labels, size=(700, 300), encoding="tanh"), one)
    finally:
        fp.set_num_threads(None)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "uint8"])
def test_dtypes_and_layouts(dtype):
    points = np.array([[3, 4], [10, 2], [0, 0]], dtype)
    want = fp.click_map(points.astype(np.float32), [1, 0, 1], size=(9, 12))
    wide = np.zeros((6, 4), dtype)
    wide[::2, 1:3] = points
    for p in (points, wide[::2, 1:3], np.asfortranarray(points), points.tolist()):
        np.testing.assert_array_equal(fp.click_map(p, [1, 0, 1], size=(9, 12)), want)
    for kind in (np.int8, np.uint16, bool):
        labels = np.array([1, 0, 1]).astype(kind)
        np.testing.assert_array_equal(fp.click_map(points, labels, size=(9, 12)), want)


def test_bfloat16_and_half_clicks():
    points, labels = torch.tensor([[3.0, 4.0]]), torch.tensor([1])
    want = fp.click_map(points, labels, size=(9, 12))
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        assert torch.equal(fp.click_map(points.to(dtype), labels, size=(9, 12)), want)


def test_ragged_batch(rng):
    sets = [rng.uniform(0, 30, (n, 2)) for n in (3, 0, 5)]
    labels = [rng.integers(0, 2, n) for n in (3, 0, 5)]
    for options in ENCODINGS.values():
        got = fp.click_map(sets, labels, size=(31, 33), **options)
        want = [fp.click_map(p, k, size=(31, 33), **options) for p, k in zip(sets, labels, strict=True)]
        np.testing.assert_array_equal(got, want)
    tensors = [torch.from_numpy(p) for p in sets], [torch.from_numpy(k) for k in labels]
    assert torch.equal(fp.click_map(*tensors, size=(31, 33), **options), torch.from_numpy(got))
    assert fp.click_map([[], []], size=(3, 4)).shape == (2, 1, 3, 4)
    assert fp.click_map(sets, size=(3, 4)).shape == (3, 1, 3, 4)
    padded = fp.click_map(np.array([[[1.0, 2], [-1, -1]], [[3, 3], [0, 0]]]), [[1, 1], [0, -1]], size=(5, 6))
    want = [fp.click_map([[1, 2]], [1], size=(5, 6)), fp.click_map([[3, 3]], [0], size=(5, 6))]
    np.testing.assert_array_equal(padded, want)


def test_channels(rng):
    """DEXTR: one channel. FCA-Net and RITM's groups: the first click alone."""
    points = rng.uniform(0, 20, (4, 2))
    one = fp.click_map(points, size=(20, 21), encoding="gaussian", sigma_unit="fwhm")
    assert one.shape == (1, 20, 21)
    each = [fp.click_map(p[None], size=(20, 21), encoding="gaussian", sigma_unit="fwhm") for p in points]
    np.testing.assert_array_equal(one, np.max(each, 0))
    groups = fp.click_map(points, [7, 3, 3, 9], size=(20, 21), channels=(7, 3, 5))
    np.testing.assert_array_equal(groups[0], fp.click_map(points[:1], size=(20, 21))[0])
    np.testing.assert_array_equal(groups[1], fp.click_map(points[1:3], size=(20, 21))[0])
    assert not groups[2].any()


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_empty_sizes(size):
    assert fp.click_map([[1, 1]], [1], size=size).shape == (2, *size)
    assert fp.click_map(np.zeros((0, 3, 2)), np.zeros((0, 3), int), size=(4, 5)).shape == (0, 2, 4, 5)


def test_nothing_beyond_the_output(rng):
    points, labels = random_clicks(rng, (19, 37), 30)
    from fastprompt.ops.guidance.click_sets import arguments, check_clicks, check_encoding
    from fastprompt.ops.guidance.operators import click_map

    clicks = check_clicks(np.stack([points, points[::-1]]), np.stack([labels, labels[::-1]]))
    for encoding in ("disk", "tanh", "euclidean", "gaussian"):
        e = check_encoding(encoding, (19, 37), None, None, None, None, None)
        memory = np.full((2, 5, 19, 37), 7.0, np.float32)
        click_map.into(memory[:, 2:4], *arguments(clicks, e, (19, 37)))
        assert (memory[:, :2] == 7).all()
        assert (memory[:, 4:] == 7).all()
        want = fp.click_map(clicks.points, clicks.labels, size=(19, 37), encoding=encoding)
        np.testing.assert_array_equal(memory[:, 2:4], want)


# ---------------------------------------------------------------- the traps of ops.md, section 2.3


def test_only_both_negative_is_an_empty_slot():
    """Trap 1: RITM's torch path calls a click invalid where max(row, column) < 0; others outside count."""
    for point, counts in (((-1, -1), False), ((-1, 3), True), ((3, -1), True), ((-0.5, -0.5), False), ((99, 99), True)):
        assert np.isfinite(fp.click_map([point], size=(5, 6), encoding="euclidean")).all() == counts
    assert fp.click_map([(-3, 2)], size=(5, 6)).sum() == 11  # what of the disk is inside


def test_ritm_cython_rounds_to_even_and_looks_at_rows_only():
    """Trap 1: the compiled path rounds as Python does (measured: 0.5, 1.5, 2.5 to 0, 2, 2), and -0.5 is row 0."""
    dot = {"size": (4, 4), "radius": 0, "rounding": "ritm_cython"}
    for y, row in ((0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (0.49, 0)):
        got = fp.click_map([(1.2, y)], **dot)[0]
        assert np.argwhere(got).tolist() == [[row, 1]]
        tensor = fp.click_map(torch.tensor([[1.2, y]]), **dot)[0]
        np.testing.assert_array_equal(tensor, got)
    assert np.isfinite(fp.click_map([(-5, 2)], size=(4, 4), encoding="euclidean", rounding="ritm_cython")).all()
    assert np.isinf(fp.click_map([(2, -0.6)], size=(4, 4), encoding="euclidean", rounding="ritm_cython")).all()
    assert np.isfinite(fp.click_map([(2, -0.6)], size=(4, 4), encoding="euclidean")).all()
    assert not fp.click_map([(1.2, 0.5)], size=(4, 4), radius=0).any()  # else a fraction stays one


def test_clicks_behind_the_border_write_nowhere():
    """Trap 2: the compiled path has no upper bound."""
    far = [(1e9, 3), (3, 1e9), (1e38, 1e38), (2.5e38, -2.5e38), (math.inf, 2), (6, 5)]
    for encoding in ("disk", "euclidean", "tanh", "gaussian"):
        got = fp.click_map(far, size=(5, 6), encoding=encoding)
        want = oracle(far, [1] * 6, (5, 6), encoding=encoding)[:1]
        np.testing.assert_allclose(got, want, rtol=3e-7, atol=3e-7)


def test_exact_where_the_search_is_not(rng):
    """Trap 3: against the exact transform of SciPy for whole clicks."""
    ndimage = pytest.importorskip("scipy.ndimage")
    points = rng.integers(0, 96, (24, 2))
    seeds = np.ones((96, 96))
    seeds[points[:, 1], points[:, 0]] = 0
    got = fp.click_map(points, size=(96, 96), encoding="euclidean")[0]
    np.testing.assert_allclose(got, ndimage.distance_transform_edt(seeds), rtol=2e-7)


def test_empty_slots_are_nowhere():
    """Trap 4: 1e6 for an invalid slot is 1000 pixels in disks; here it is no click, whatever the radius. DistMaps
    follows RITM (test_dist_maps.py)."""
    assert not fp.click_map([(-1, -1)], size=(5, 6), radius=2000).any()


def test_memory_is_the_output():
    """Trap 5: RITM's path holds 384 MiB for 24 + 24 clicks at 1024 x 1024; ours below 1 MiB beside the output."""
    import tracemalloc

    points, labels = np.random.default_rng(0).uniform(0, 1024, (48, 2)), np.arange(48) % 2
    fp.click_map(points, labels, size=(1024, 1024))
    tracemalloc.start()
    try:
        out = fp.click_map(points, labels, size=(1024, 1024), encoding="tanh")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < out.nbytes + 2**20


def test_dextr_without_a_label_has_no_click():
    """Trap 7: DEXTR draws a Gaussian in the middle, with x and y swapped. Here: none."""
    assert not fp.click_map([], size=(20, 40), encoding="gaussian").any()
    peak = fp.click_map([(30, 5)], size=(20, 40), encoding="gaussian")[0]
    assert np.unravel_index(peak.argmax(), peak.shape) == (5, 30)


def test_maps_are_floats_whatever_the_clicks():
    """Trap 8: in an image's uint8 only the centre of a Gaussian would be left."""
    got = fp.click_map(np.array([[5, 5]], np.uint8), size=(11, 11), encoding="gaussian", sigma_unit="fwhm")
    assert got.dtype == np.float32
    assert ((got > 0.1) & (got < 1)).sum() > 80
    assert math.isclose(got[0, 5, 10], 0.5, rel_tol=1e-6)  # half of the maximum at half of the width
    assert math.isclose(
        fp.click_map([(0, 0)], size=(1, 11), encoding="gaussian")[0, 0, 10], math.exp(-0.5), rel_tol=1e-6
    )


def test_no_negative_click_is_far_and_not_near():
    """Trap 9: in iFCN_Pytorch a missing negative map is 0, which means next to a click."""
    got = fp.click_map([(1, 1)], [1], size=(4, 4), encoding="euclidean", clip=255)
    assert (got[1] == 255).all()
    for normalize in ("clip", "minmax"):
        assert (
            fp.click_map([(1, 1)], [1], size=(4, 4), encoding="euclidean", clip=255, normalize=normalize)[1] == 1
        ).all()
