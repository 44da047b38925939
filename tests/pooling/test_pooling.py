"""masked_average_pool: against the reference, against torch's own enlarging in float64, and the rules of its hosts."""

import math

import numpy as np
import pytest

import fastprompt as fp
from fastprompt.ops.pooling.means import PRESETS

torch = pytest.importorskip("torch")
F = torch.nn.functional

# batch, channels, (h, w), masks, (H, W)
SHAPES = {
    "few-shot": (2, 20, (15, 15), 1, (119, 119)),
    "ragged": (3, 7, (5, 9), 8, (37, 53)),
    "13 masks": (1, 33, (12, 11), 13, (40, 31)),
    "same size": (1, 5, (7, 19), 2, (7, 19)),
    "smaller mask": (1, 5, (30, 30), 2, (20, 25)),
    "one pixel": (1, 3, (1, 1), 1, (4, 6)),
    "one mask pixel": (1, 3, (4, 5), 1, (1, 1)),
    "thin": (2, 9, (2, 40), 3, (3, 171)),
}
KINDS = ["soft", "bool", "uint8", "float64"]


def make(rng, shape, kind="soft"):
    batch, channels, size, masks, large = shape
    features = rng.standard_normal((batch, channels, *size), np.float32)
    mask = rng.random((batch, masks, *large), np.float32)
    mask *= rng.random((batch, masks, 1, 1)) < 0.9
    mask[..., mask.shape[-1] // 3 :] *= rng.random(mask[..., mask.shape[-1] // 3 :].shape) < 0.4
    if kind != "soft":
        mask = {"bool": mask > 0.5, "uint8": (mask * 9).astype(np.uint8), "float64": mask.astype(np.float64)}[kind]
    return features, mask


def formula(features, mask, resize, align_corners, eps, threshold=None, empty=0.0):
    """torch's operators in float64; the features are really enlarged."""
    features, mask = torch.from_numpy(features).double(), torch.from_numpy(np.asarray(mask, np.float64))
    if resize == "features":
        features = F.interpolate(features, mask.shape[-2:], mode="bilinear", align_corners=align_corners)
    elif resize == "mask":
        mask = F.interpolate(mask, features.shape[-2:], mode="bilinear", align_corners=align_corners)
    else:
        patch = [m // n for m, n in zip(mask.shape[-2:], features.shape[-2:], strict=True)]
        mask = F.avg_pool2d(mask, patch)
    if threshold is not None:
        mask = (mask > threshold).double()
    total = torch.einsum("bchw,bmhw->bmc", features, mask)
    area = mask.sum((2, 3))[..., None]
    return torch.where(area == 0, empty, total / (area + eps)).numpy()


@pytest.fixture(params=["numpy", "torch", "reference"])
def pool(request, isa):
    def run(features, mask, **options):
        with fp.backend("reference" if request.param == "reference" else "auto"):
            if request.param != "torch":
                return fp.masked_average_pool(features, mask, **options)
            out = fp.masked_average_pool(torch.from_numpy(features), torch.from_numpy(np.asarray(mask)), **options)
            return tuple(x.numpy() for x in out) if isinstance(out, tuple) else out.numpy()

    return run


@pytest.mark.parametrize("resize", ["features", "mask"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_both_definitions(rng, pool, shape, resize, align_corners):
    for kind in KINDS:
        features, mask = make(rng, shape, kind)
        options = {"resize": resize, "align_corners": align_corners, "eps": 1e-5}
        got = pool(features, mask, **options)
        assert got.shape == (shape[0], shape[3], shape[1])
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, formula(features, mask, **options), rtol=0, atol=4e-7, err_msg=kind)


@pytest.mark.parametrize("preset", [None, *PRESETS])
def test_the_formula_of_the_gradient(rng, preset):
    """It is torch's backend "reference" too; its matrices are float32's."""
    features, mask = make(rng, (2, 12, (6, 5), 3, (48, 40)))
    arrays = torch.from_numpy(features), torch.from_numpy(mask)
    for background in (False, True):
        got = fp.masked_average_pool(*arrays, preset=preset, background=background)
        with fp.backend("reference"):
            want = fp.masked_average_pool(*arrays, preset=preset, background=background)
        torch.testing.assert_close(got, want, rtol=0, atol=3e-6, equal_nan=True)


def test_the_definitions_differ(rng):
    """Enlarging the features and shrinking the mask are two things; neither stands in for the other."""
    features, mask = rng.standard_normal((1, 8, 60, 60), np.float32), np.zeros((1, 1, 473, 473), bool)
    mask[..., 100:300, 150:310] = True
    up, down = (fp.masked_average_pool(features, mask, resize=r) for r in ("features", "mask"))
    assert 1e-3 < np.abs(up - down).max() < 0.05


def test_average_of_patches(rng, pool):
    features, mask = make(rng, (2, 9, (5, 3), 4, (20, 21)))
    for threshold in (None, 0.3):
        got = pool(features, mask, resize="average", threshold=threshold)
        np.testing.assert_allclose(got, formula(features, mask, "average", False, 0, threshold), rtol=0, atol=4e-7)


HOW = {
    "panet": ("features", False, 1e-5, None, 0.0),
    "sgone": ("features", False, 0.0, None, math.nan),
    "pfenet": ("mask", True, 5e-4, None, 0.0),
    "persam": ("mask", False, 0.0, 0.0, math.nan),
    "matcher": ("average", False, 0.0, 0.0, 0.0),
}


@pytest.mark.parametrize("preset", HOW)
def test_presets(rng, pool, preset):
    assert HOW.keys() == PRESETS.keys()
    features, mask = make(rng, (2, 12, (6, 5), 3, (48, 40)), "bool")
    mask[1, 2] = False
    got = pool(features, mask, preset=preset)
    if preset == "matcher":
        mask[1, 2, 17:31, 13:27] = True
    want = formula(features, mask, *HOW[preset])
    if preset == "persam":
        want /= np.linalg.norm(want, axis=-1, keepdims=True)
    np.testing.assert_allclose(got, want, rtol=0, atol=4e-7)
    assert np.isnan(got[1, 2]).all() == (preset in ("sgone", "persam"))


def test_what_is_given_goes_before_the_preset(rng):
    features, mask = make(rng, SHAPES["few-shot"])
    got = fp.masked_average_pool(features, mask, preset="pfenet", eps=0.5, align_corners=False)
    np.testing.assert_allclose(got, formula(features, mask, "mask", False, 0.5), rtol=0, atol=4e-7)
    assert np.isnan(fp.masked_average_pool(features, 0 * mask, preset="panet", empty="nan")).all()


def test_a_thresholded_mask_is_dilated():
    """PerSAM keeps every pixel that the resized mask touches."""
    features, mask = np.arange(16, dtype=np.float32).reshape(1, 4, 4), np.zeros((16, 16), bool)
    mask[6:10, 6:10] = True  # a ninth of each of four pixels
    assert fp.masked_average_pool(features, mask, resize="mask", threshold=0.0) == pytest.approx(7.5)
    mask[6, 5] = mask[9, 5] = True
    np.testing.assert_array_equal(
        fp.masked_average_pool(features, mask, resize="mask", threshold=0.9, empty="nan"), [np.nan]
    )


@pytest.mark.parametrize("resize", ["features", "mask", "average"])
def test_background(rng, pool, resize):
    features, mask = make(rng, (2, 10, (5, 6), 5, (40, 42)))
    mask[1, 0, :, :30] = 1
    mask[0, 0] = 1
    fore, back = pool(features, mask, resize=resize, background=True, eps=1e-5)
    np.testing.assert_allclose(fore, formula(features, mask, resize, False, 1e-5), rtol=0, atol=4e-7)
    np.testing.assert_allclose(back, formula(features, 1 - mask, resize, False, 1e-5), rtol=0, atol=1e-6)
    assert (back[0, 0] == 0).all()  # nothing is left of it, not even a rounding error


def test_axes_and_shots(rng, pool):
    features, mask = make(rng, (6, 10, (5, 6), 3, (40, 42)))
    each = pool(features, mask, preset="panet")
    np.testing.assert_array_equal(pool(features[0], mask[0], preset="panet"), each[0])
    np.testing.assert_array_equal(pool(features[0], mask[0, 1], preset="panet"), each[0, 1])
    shots = pool(features.reshape(2, 3, 10, 5, 6), mask.reshape(2, 3, 3, 40, 42), preset="panet")
    np.testing.assert_allclose(shots, each.reshape(2, 3, 3, 10).mean(1), rtol=0, atol=1e-7)
    fore, back = pool(features[0], mask[0, 1], background=True)
    assert fore.shape == back.shape == (10,)


def test_uint8_is_a_weight():
    """255 is not 1: it weighs as much more, which only eps sees."""
    features, mask = np.ones((1, 2, 2), np.float32), np.ones((4, 4), np.uint8)
    assert fp.masked_average_pool(features, mask, eps=16.0) == pytest.approx(0.5)
    assert fp.masked_average_pool(features, 255 * mask, eps=16.0) == pytest.approx(255 / 256)


def test_features_outside_the_mask_do_not_count(rng, pool):
    features, mask = make(rng, (1, 6, (5, 7), 2, (5, 7)), "bool")
    mask[:] = False
    mask[0, 0, 1, 2:4], mask[0, 1, 3, 3:] = True, True
    want = pool(features, mask, resize="mask")
    features[0, 2, 1, 1], features[0, 3, 4, 4], features[0, 4, 1, 3] = np.nan, np.inf, np.nan
    want[0, 0, 4] = np.nan  # of this mask, of this channel
    np.testing.assert_allclose(pool(features, mask, resize="mask"), want, rtol=1e-6)


def test_views_and_dtypes(rng, isa):
    features, mask = make(rng, (2, 12, (9, 10), 3, (41, 43)), "uint8")
    large = np.full((2, 30, 11, 14), np.nan, np.float32)
    large[:, 1:25:2, 1:10, 3:13] = features
    want = fp.masked_average_pool(features, mask)
    np.testing.assert_array_equal(fp.masked_average_pool(large[:, 1:25:2, 1:10, 3:13], mask), want)
    turned = np.ascontiguousarray(mask.transpose(1, 3, 2, 0))
    np.testing.assert_array_equal(fp.masked_average_pool(features, turned.transpose(3, 0, 2, 1)), want)
    for name in ("float16", "bfloat16", "float64"):
        x = torch.from_numpy(features).to(getattr(torch, name))
        got = fp.masked_average_pool(x, torch.from_numpy(mask))
        assert got.dtype == x.dtype
        np.testing.assert_allclose(
            got.float(), fp.masked_average_pool(x.float(), torch.from_numpy(mask)), rtol=1e-2, atol=1e-3
        )
    whole = fp.masked_average_pool((features * 9).astype(np.int32), mask)
    assert whole.dtype == np.float32


def test_nothing(rng):
    features, mask = make(rng, SHAPES["ragged"])
    assert fp.masked_average_pool(features[:0], mask[:0]).shape == (0, 8, 7)
    assert fp.masked_average_pool(features, mask[:, :0]).shape == (3, 0, 7)
    assert fp.masked_average_pool(features[:, :0], mask).shape == (3, 8, 0)


def test_threads_change_no_bit(rng):
    features, mask = make(rng, (1, 70, (31, 33), 1, (200, 210)))
    found = []
    try:
        for threads in (1, 2, 5):
            fp.set_num_threads(threads)
            found.append(fp.masked_average_pool(features, mask))
    finally:
        fp.set_num_threads(None)
    np.testing.assert_array_equal(found[1:], found[:1] * 2)


X, M = np.zeros((2, 4, 3, 5), np.float32), np.zeros((2, 2, 6, 10), bool)
WRONG = {
    "features": ({"features": X[0, 0]}, ValueError, r"features must be \(\[B, \[K,\]\] C, h, w\), got shape \(3, 5\)"),
    "empty_features": ({"features": X[..., :0]}, ValueError, "features must be"),
    "mask": ({"mask": M[0]}, ValueError, r"mask must be \(2, M, H, W\), got shape \(2, 6, 10\)"),
    "mask_batch": ({"mask": M[:1]}, ValueError, r"mask must be \(2, M, H, W\), got shape \(1, 2, 6, 10\)"),
    "mask_axes": ({"features": X[0], "mask": M}, ValueError, r"mask must be \(\[M,\] H, W\)"),
    "mask_pixels": ({"mask": M[..., :0]}, ValueError, "mask must have pixels"),
    "shots": ({"features": X[:, None][:, :0], "mask": M[:, None][:, :0]}, ValueError, "at least one shot"),
    "mixed": ({"mask": torch.zeros(2, 2, 6, 10)}, TypeError, "both be NumPy arrays or both torch tensors"),
    "text": ({"features": "cat"}, TypeError, "features must hold real numbers"),
    "preset": ({"preset": "hsnet"}, ValueError, "preset must be one of panet, sgone, .* got 'hsnet'"),
    "resize": ({"resize": "both"}, ValueError, "resize must be one of features, mask, average, got 'both'"),
    "empty": ({"empty": "inf"}, ValueError, "empty must be one of zero, nan, centre, got 'inf'"),
    "eps": ({"eps": -1}, ValueError, "eps must be between 0 and inf, got -1"),
    "threshold": ({"threshold": "high"}, TypeError, "threshold must be a number, got 'high'"),
    "patches": ({"resize": "average", "mask": M[..., :9]}, ValueError, r"multiple of the features' size \(3, 5\)"),
}


@pytest.mark.parametrize("change", WRONG)
def test_wrong_calls(change):
    changes, error, match = WRONG[change]
    with pytest.raises(error, match=match):
        fp.masked_average_pool(**({"features": X, "mask": M} | changes))
