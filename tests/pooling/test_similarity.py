"""cosine_prototype_map, text_similarity_map and film: against torch in float64, and the rules of their hosts."""

import math

import numpy as np
import pytest

import fastprompt as fp
from fastprompt import _C

torch = pytest.importorskip("torch")
F = torch.nn.functional

# batch, channels, (h, w), rows, images of rows (None: one list for all)
SHAPES = {
    "panet": (1, 64, (53, 53), 2, None),
    "one": (2, 35, (5, 7), 1, 2),
    "three": (3, 19, (9, 13), 3, None),
    "four": (1, 33, (6, 6), 4, None),
    "seven": (2, 40, (11, 5), 7, 2),
    "tiles": (2, 37, (9, 11), 21, 2),
    "wide": (1, 8, (31, 40), 9, None),
    "single": (1, 1, (1, 1), 1, None),
}


def make(rng, shape):
    batch, channels, size, rows, images = shape
    lead = () if images is None else (images,)
    return (
        3 * rng.standard_normal((batch, channels, *size), np.float32),
        rng.standard_normal((*lead, rows, channels), np.float32) / 7,
    )


def cosines(features, rows, eps=1e-8):
    features, rows = torch.from_numpy(features).double(), torch.from_numpy(rows).double()
    rows = rows if rows.ndim == 3 else rows[None]
    return F.cosine_similarity(features[:, None], rows[..., None, None], dim=2, eps=eps).numpy()


@pytest.fixture(params=["numpy", "torch", "reference", "torch reference"])
def call(request, isa):
    def run(function, *arrays, **options):
        with fp.backend("reference" if "reference" in request.param else "auto"):
            if "torch" not in request.param:
                return function(*arrays, **options)
            return function(*(torch.from_numpy(np.asarray(x)) for x in arrays), **options).numpy()

    return run


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_cosine_prototype_map(rng, call, shape):
    features, rows = make(rng, shape)
    got = call(fp.cosine_prototype_map, features, rows)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, 20 * cosines(features, rows), rtol=0, atol=1e-5)
    if shape[4] is None:
        np.testing.assert_array_equal(call(fp.cosine_prototype_map, features[0], rows), got[0])


def test_special_values(call):
    features, rows = np.zeros((5, 2, 3), np.float32), np.zeros((3, 5), np.float32)
    features[0, 0, 1], features[1, 1, 1], features[2, 1, 2] = 2, np.nan, -3e-9
    rows[0, 0], rows[1, 2] = 4, 1
    got = call(fp.cosine_prototype_map, features, rows, scale=1.0)
    np.testing.assert_array_equal(got[0, 0], [0, 1, 0])
    assert np.isnan(got[:, 1, 1]).all()
    assert got[1, 1, 2] == pytest.approx(-0.3)  # eps is the least length
    assert (got[2, 0] == 0).all()


# ---------------------------------------------------------------- text


@pytest.mark.parametrize("shape", [SHAPES["tiles"], SHAPES["wide"], (1, 64, (8, 9), 3, None)], ids=str)
def test_text_similarity_map(rng, call, shape):
    features, text = make(rng, (*shape[:4], None))
    want = cosines(features, text)
    np.testing.assert_allclose(call(fp.text_similarity_map, features, text), want, rtol=0, atol=1e-6)
    got = call(fp.text_similarity_map, features, text, reduce="softmax", temperature=30.0)
    np.testing.assert_allclose(got, torch.from_numpy(30 * want).softmax(1), rtol=0, atol=1e-5)
    got = call(fp.text_similarity_map, features, text, reduce="argmax")
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, want.argmax(1))


@pytest.mark.parametrize("level", [0.25, 0.9])
def test_denoise(rng, call, level):
    """MaskCLIP: a class of which no pixel is sure, in an image, gets -100."""
    features, text = make(rng, (3, 16, (5, 6), 12, None))
    want = torch.from_numpy(cosines(features, text))
    sure = (10 * want).softmax(1).amax((2, 3)) >= level
    assert 0 < sure.sum() < sure.numel()
    want = want.masked_fill(~sure[..., None, None], -100)
    options = {"temperature": 10.0, "denoise": level}
    np.testing.assert_allclose(call(fp.text_similarity_map, features, text, **options), want, rtol=0, atol=1e-6)
    got = call(fp.text_similarity_map, features, text, reduce="softmax", **options)
    np.testing.assert_allclose(got, (10 * want).softmax(1), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(
        call(fp.text_similarity_map, features, text, reduce="argmax", **options), want.argmax(1)
    )


def test_zero_pixels_and_ties(call):
    """The hosts divide by 0: NaN; equal classes: the lowest."""
    features, text = np.zeros((1, 4, 1, 3), np.float32), np.eye(4, dtype=np.float32)
    features[0, 2, 0, 1], features[0, 1:3, 0, 2] = 5, 1
    for reduce in ("none", "softmax"):
        got = call(fp.text_similarity_map, features, text, reduce=reduce)
        assert np.isnan(got[..., 0]).all()
        assert np.isfinite(got[..., 1:]).all()
    np.testing.assert_array_equal(call(fp.text_similarity_map, features, text, reduce="argmax"), [[[0, 2, 1]]])
    assert (call(fp.text_similarity_map, features, text, eps=1e-6)[..., 0] == 0).all()


def test_templates(rng, call):
    features, text = rng.standard_normal((8, 3, 4), np.float32), rng.standard_normal((5, 6, 8), np.float32)
    unit = text.astype(np.float64) / np.linalg.norm(text, axis=-1, keepdims=True)
    want = cosines(features[None], unit.mean(1))[0]
    np.testing.assert_allclose(call(fp.text_similarity_map, features, text), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("engine", ["avx512_bf16", "plain"])
def test_precision(rng, engine):
    """ "medium": products of bfloat16, sums and lengths in float32; few prototypes are not worth it."""
    if _C.best_isa() != "avx512" or (engine != "plain" and _C.bf16() not in ("avx512_bf16", "amx")):
        pytest.skip("this machine has no AVX-512, or no bfloat16 products")
    features, text = make(rng, (2, 100, (9, 11), 21, None))
    want, rounded = cosines(features, text), fp.cosine_prototype_map(features, text[:2])
    _C.set_bf16(engine)
    torch.set_float32_matmul_precision("medium")
    try:
        got = fp.text_similarity_map(features, text)
        np.testing.assert_array_equal(fp.cosine_prototype_map(features, text[:2]), rounded)
        shares = fp.text_similarity_map(features, text, reduce="softmax", temperature=1.0)
    finally:
        torch.set_float32_matmul_precision("highest")
        _C.set_bf16("best")
    np.testing.assert_allclose(got, want, rtol=0, atol=4e-3)
    assert np.abs(got - want).max() > 1e-5
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)


# ---------------------------------------------------------------- FiLM


@pytest.mark.parametrize("images", [1, 3])
def test_film(rng, call, images):
    gamma, beta = (rng.standard_normal((3, 21), np.float32) for _ in range(2))
    for axes in ((), (5,), (7, 9), (40, 50, 2)):
        x = rng.standard_normal((images, 21, *axes), np.float32)
        wide = [v.reshape(3, 21, *[1] * len(axes)) for v in (gamma, beta)]
        np.testing.assert_array_equal(call(fp.film, x, gamma, beta), wide[0] * x + wide[1])
        last = np.moveaxis(x, 1, -1)
        got = call(fp.film, last, gamma, beta, axis=-1)
        np.testing.assert_array_equal(got, np.moveaxis(wide[0] * x + wide[1], 1, -1))


# ---------------------------------------------------------------- dtypes, views, threads, errors


def test_views_and_dtypes(rng, isa):
    features, rows = make(rng, (2, 12, (9, 10), 3, 2))
    large = np.full((2, 30, 11, 14), np.nan, np.float32)
    large[:, 1:25:2, 1:10, 3:13] = features
    view = large[:, 1:25:2, 1:10, 3:13]
    for function in (fp.cosine_prototype_map, lambda x, y: fp.text_similarity_map(x, y[0], reduce="softmax")):
        want = function(features, rows)
        np.testing.assert_array_equal(function(view, rows), want)
        np.testing.assert_array_equal(function(torch.from_numpy(view), torch.from_numpy(rows)), want)
        for name in ("float16", "bfloat16", "float64"):
            x = torch.from_numpy(features).to(getattr(torch, name))
            got = function(x, torch.from_numpy(rows))
            assert got.dtype == x.dtype
            np.testing.assert_allclose(got.float(), function(x.float(), torch.from_numpy(rows)), rtol=1e-2, atol=1e-3)
    gamma = rows[:, 0]
    np.testing.assert_array_equal(fp.film(view, gamma, gamma), fp.film(features, gamma, gamma))
    half = fp.film(torch.from_numpy(features).bfloat16(), torch.from_numpy(gamma), torch.from_numpy(gamma))
    assert half.dtype == torch.bfloat16


def test_nothing():
    x = np.zeros((0, 4, 2, 3), np.float32)
    assert fp.cosine_prototype_map(x, np.zeros((2, 4))).shape == (0, 2, 2, 3)
    assert fp.cosine_prototype_map(x[:, :, :0], np.zeros((2, 4))).shape == (0, 2, 0, 3)
    assert fp.cosine_prototype_map(np.zeros((4, 2, 3)), np.zeros((0, 4))).shape == (0, 2, 3)
    assert fp.film(np.zeros((1, 4, 0)), np.zeros((2, 4)), np.zeros((2, 4))).shape == (2, 4, 0)


def test_threads_change_no_bit(rng):
    features, rows = make(rng, (2, 30, (40, 41), 20, None))
    found = []
    try:
        for threads in (1, 2, 5):
            fp.set_num_threads(threads)
            few = fp.cosine_prototype_map(features, rows[:2])
            found.append(
                np.concatenate([few, fp.text_similarity_map(features, rows, reduce="softmax", denoise=0.2)], 1)
            )
    finally:
        fp.set_num_threads(None)
    np.testing.assert_array_equal(found[1:], found[:1] * 2)


X, P = np.zeros((2, 4, 3, 5), np.float32), np.zeros((2, 4), np.float32)
WRONG = {
    "features": (fp.cosine_prototype_map, (X[0, 0], P), {}, ValueError, r"features must be \(\[B,\] C, h, w\)"),
    "channels": (fp.cosine_prototype_map, (X, P[:, :3]), {}, ValueError, r"prototypes must be \(\[2,\] P, 4\), got .*\(2, 3\)"),
    "batch": (fp.cosine_prototype_map, (X, P[None]), {}, ValueError, r"prototypes must be \(\[2,\] P, 4\)"),
    "own": (fp.cosine_prototype_map, (X[0], P[None]), {}, ValueError, r"prototypes must be \(P, 4\)"),
    "kinds": (fp.cosine_prototype_map, (X, torch.zeros(2, 4)), {}, TypeError, "both be NumPy arrays or both torch tensors"),
    "scale": (fp.cosine_prototype_map, (X, P), {"scale": "big"}, TypeError, "scale must be a number"),
    "eps": (fp.cosine_prototype_map, (X, P), {"eps": -1}, ValueError, "eps must be between 0 and inf"),
    "text": (fp.text_similarity_map, (X, P[:, :3]), {}, ValueError, r"text must be \(P, 4\), got shape \(2, 3\)"),
    "no_text": (fp.text_similarity_map, (X, P[:0]), {}, ValueError, r"text must be \(T, \[R,\] C\), got shape \(0, 4\)"),
    "reduce": (fp.text_similarity_map, (X, P), {"reduce": "max"}, ValueError, "reduce must be one of none, softmax, argmax"),
    "temperature": (fp.text_similarity_map, (X, P), {"temperature": -1}, ValueError, "temperature must be between 0"),
    "denoise": (fp.text_similarity_map, (X, P), {"denoise": math.nan}, ValueError, "denoise must be between 0 and 1"),
    "axis": (fp.film, (X, P, P), {"axis": 2}, ValueError, "axis must be one of 1, -1, got 2"),
    "gamma": (fp.film, (X, P[:, :3], P), {}, ValueError, r"gamma must be \(2, 4\), got shape \(2, 3\)"),
    "beta": (fp.film, (X, P, P[:1]), {}, ValueError, r"beta must be \(2, 4\), got shape \(1, 4\)"),
    "images": (fp.film, (X, P.repeat(2, 0), P.repeat(2, 0)), {}, ValueError, "x must have a batch of 1 or 4"),
    "x": (fp.film, (X[0, 0, 0], P, P), {}, ValueError, "x must be"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_calls(case):
    function, arrays, options, error, match = WRONG[case]
    with pytest.raises(error, match=match):
        function(*arrays, **options)
