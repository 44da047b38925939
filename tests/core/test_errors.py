"""Wrong calls: each names the argument, what it was and what is expected, or has a defined result."""

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")

IMAGE = np.zeros((3, 8, 9), np.float32)
SEEDS = np.zeros((8, 9), bool)
SEEDS[2, 3] = True
VOLUME = np.zeros((4, 8, 9), np.float32)
READ_ONLY = IMAGE.copy()
READ_ONLY.flags.writeable = False


def distance(image=IMAGE, seeds=SEEDS, **options):
    return fp.geodesic_distance(image, seeds, **options)


WRONG = {
    # shapes
    "image_scalar": ({"image": 1.0}, ValueError, r"image must have 2 to 4 axes .* got shape \(\)"),
    "image_row": ({"image": np.zeros(9)}, ValueError, r"image must have 2 to 4 axes"),
    "image_six_axes": ({"image": np.zeros((1,) * 6)}, ValueError, r"image must have 2 to 4 axes"),
    "seeds_row": ({"seeds": np.zeros(9, bool)}, ValueError, r"seeds must have 2 to 4 axes"),
    "seeds_other_size": (
        {"seeds": np.zeros((8, 10))},
        ValueError,
        r"seeds must have the image's 2 .*\(8, 9\), got \(8, 10\)",
    ),
    "seeds_transposed": ({"seeds": np.zeros((9, 8))}, ValueError, r"got \(9, 8\)"),
    "channels_last": ({"image": np.zeros((8, 9, 3))}, ValueError, r"channels come first"),
    "no_channel": ({"image": np.zeros((0, 8, 9))}, ValueError, r"at least one channel"),
    "batch_2_against_3": (
        {"image": np.zeros((2, 1, 8, 9)), "seeds": np.zeros((3, 1, 8, 9))},
        ValueError,
        r"seeds must have the image's batch size 2 or 1, got 3",
    ),
    "volume_seeds_of_plane": ({"image": VOLUME, "dims": 3}, ValueError, r"seeds must have 3 to 5 axes"),
    "volume_without_depth": ({"image": np.zeros((8, 9)), "dims": 3}, ValueError, r"image must have 3 to 5 axes"),
    "barriers_other_size": ({"barriers": np.zeros((8, 8), bool)}, ValueError, r"barriers must have the image's"),
    "barriers_two_channels": (
        {"barriers": np.zeros((1, 2, 8, 9), bool)},
        ValueError,
        r"barriers must have one channel",
    ),
    "barriers_batch": ({"barriers": np.zeros((5, 8, 9), bool)}, ValueError, r"barriers must have the image's batch"),
    "ragged_list": ({"image": [[0.0, 1.0], [0.0]]}, TypeError, r"image must be an array of numbers"),
    # dtypes
    "image_complex": (
        {"image": IMAGE.astype(complex)},
        TypeError,
        r"image must hold real numbers, got dtype complex128",
    ),
    "image_strings": ({"image": np.array([["a"]])}, TypeError, r"image must hold real numbers"),
    "image_objects": ({"image": np.array([[None]])}, TypeError, r"image must hold real numbers"),
    "image_none": ({"image": None}, TypeError, r"image must hold real numbers"),
    "seeds_none": ({"seeds": None}, TypeError, r"seeds must hold real numbers"),
    "seeds_complex": ({"seeds": SEEDS.astype(complex)}, TypeError, r"seeds must hold real numbers"),
    "barriers_strings": ({"barriers": np.full((8, 9), "x")}, TypeError, r"barriers must hold real numbers"),
    "seeds_dates": ({"seeds": np.zeros((8, 9), "M8[s]")}, TypeError, r"seeds must hold real numbers"),
    # numbers
    "lam_negative": ({"lam": -0.1}, ValueError, r"lam must be between 0 and 1, got -0.1"),
    "lam_two": ({"lam": 2}, ValueError, r"lam must be between 0 and 1, got 2"),
    "lam_nan": ({"lam": float("nan")}, ValueError, r"lam must be between 0 and 1, got nan"),
    "lam_text": ({"lam": "half"}, TypeError, r"lam must be a number, got 'half'"),
    "lam_none": ({"lam": None}, TypeError, r"lam must be a number, got None"),
    "v_negative": ({"v": -1.0}, ValueError, r"v must be between 0 and inf"),
    "v_nan": ({"v": float("nan")}, ValueError, r"v must be between 0 and inf"),
    "limit_negative": ({"max_distance": -1}, ValueError, r"max_distance must be between 0 and inf"),
    "limit_nan": ({"max_distance": float("nan")}, ValueError, r"max_distance must be between"),
    "spacing_zero": ({"spacing": 0}, ValueError, r"spacing must be positive and finite, got 0"),
    "spacing_negative": ({"spacing": (1.0, -2.0)}, ValueError, r"spacing must be positive and finite"),
    "spacing_nan": ({"spacing": float("nan")}, ValueError, r"spacing must be positive and finite"),
    "spacing_inf": ({"spacing": (1, float("inf"))}, ValueError, r"spacing must be positive and finite"),
    "spacing_one_number": ({"spacing": (1.0,)}, ValueError, r"spacing must be one number or 2 or 3 numbers, got 1"),
    "spacing_of_a_volume": (
        {"spacing": (1, 1, 1), "dims": 2},
        ValueError,
        r"spacing must be one number or 2 numbers, got 3",
    ),
    "spacing_text": ({"spacing": "12"}, None, None),
    "spacing_letters": ({"spacing": "ab"}, TypeError, r"spacing must be a number or a sequence"),
    "iterations_negative": ({"iterations": -1}, ValueError, r"iterations must be between 0"),
    "iterations_float": ({"iterations": 1.5}, TypeError, r"iterations must be an int, got 1.5"),
    "iterations_huge": ({"iterations": 2**31}, ValueError, r"iterations must be between 0"),
    "iterations_bool": ({"iterations": True}, TypeError, r"iterations must be an int"),
    "dims_four": ({"dims": 4}, ValueError, r"dims must be one of 2, 3, None, got 4"),
    # names
    "metric_unknown": (
        {"metric": "l2"},
        ValueError,
        r"metric must be one of fastgeodis, geodistk, geodistk_fm, got 'l2'",
    ),
    "method_unknown": ({"method": "fast"}, ValueError, r"method must be one of raster, toivanen, exact, got 'fast'"),
    "keyword_unknown": ({"lamb": 0.5}, TypeError, r"unexpected keyword argument 'lamb'"),
    # torch
    "array_and_tensor": ({"seeds": torch.zeros(8, 9)}, TypeError, r"image and seeds must both be"),
    "tensor_and_array": ({"image": torch.zeros(8, 9)}, TypeError, r"image and seeds must both be"),
    "device_meta": (
        {"image": torch.zeros(8, 9), "seeds": torch.zeros(8, 9, device="meta")},
        ValueError,
        r"seeds must be on the device of image \(cpu\), got meta",
    ),
    "tensor_sparse": (
        {"image": torch.zeros(8, 9).to_sparse(), "seeds": torch.zeros(8, 9)},
        TypeError,
        r"image must be a dense tensor, got layout torch.sparse_coo",
    ),
    "tensor_complex": (
        {"image": torch.zeros(8, 9, dtype=torch.cfloat), "seeds": torch.zeros(8, 9)},
        TypeError,
        r"image must hold real numbers, got dtype torch.complex64",
    ),
    "gradient_of_raster": (
        {"image": torch.zeros(8, 9, requires_grad=True), "seeds": torch.zeros(8, 9, dtype=bool), "method": "raster"},
        ValueError,
        r"method 'raster' has no gradient: use method='exact'",
    ),
    "gradient_of_hard_seeds": (
        {"image": torch.zeros(8, 9), "seeds": torch.zeros(8, 9, requires_grad=True)},
        ValueError,
        r"v must be finite where seeds require a gradient",
    ),
}


@pytest.mark.parametrize(
    ("options", "error", "message"), [p for p in WRONG.values() if p[1]], ids=[k for k in WRONG if WRONG[k][1]]
)
def test_wrong_call(options, error, message):
    with pytest.raises(error, match=message):
        distance(**options)


def test_table_is_long_enough():
    assert len(WRONG) >= 40


@pytest.mark.parametrize(
    ("function", "options", "error", "message"),
    [
        (fp.geodesic_symmetric_filter, {"theta": -1}, ValueError, "theta must be between 0 and inf"),
        (fp.geodesic_symmetric_filter, {"theta": None}, TypeError, "theta must be a number"),
        (fp.exponentiated_geodesic, {"power": 3}, ValueError, "power must be one of 1, 2, got 3"),
        (fp.exponentiated_geodesic, {"threshold": 0}, ValueError, "threshold must be positive and finite, got 0"),
        (
            fp.exponentiated_geodesic,
            {"normalize": "max"},
            ValueError,
            "normalize must be one of minmax, None, got 'max'",
        ),
        (fp.signed_geodesic_distance, {"lam": 2}, ValueError, "lam must be between 0 and 1"),
    ],
)
def test_wrong_call_of_the_others(function, options, error, message):
    with pytest.raises(error, match=message):
        function(IMAGE, SEEDS, **options)


def test_volumes_that_could_be_channels():
    seeds = np.zeros(VOLUME.shape, bool)
    seeds[0, 0, 0] = True
    for image, starts in ((VOLUME, seeds), (VOLUME[None], seeds), (VOLUME[None], seeds[None])):
        with pytest.warns(UserWarning, match="taken for 4 channels and seeds for 4 sets: say dims=2, or dims=3"):
            flat = fp.geodesic_distance(image, starts)
        np.testing.assert_array_equal(flat, fp.geodesic_distance(image, starts, dims=2))
        with pytest.warns(UserWarning, match="say dims=2, or dims=3"):
            fp.signed_geodesic_distance(image, starts)
    for image, starts, options in (  # nobody doubts these
        (VOLUME, seeds, {"dims": 2}),
        (VOLUME, seeds, {"spacing": (1, 1, 1)}),
        (VOLUME, seeds, {"spacing": (1, 1)}),
        (VOLUME, seeds[0], {}),
        (VOLUME[:3], seeds[:3], {}),  # a picture and a seed set for each of its colours
        (VOLUME[None, None], seeds[None, None], {}),
    ):
        fp.geodesic_distance(image, starts, **options)


# ---------------------------------------------------------------- defined results


@pytest.mark.parametrize("method", ["raster", "toivanen", "exact"])
def test_defined_results(method):
    nothing, everything = np.zeros((8, 9), bool), np.ones((8, 9), bool)
    assert np.isposinf(distance(seeds=nothing, method=method)).all()
    assert (distance(seeds=nothing, v=1e10, method=method) == 1e10).all()
    assert (distance(seeds=everything, method=method) == 0).all()
    assert (distance(image=READ_ONLY, method=method) == distance(method=method)).all()
    assert distance(image=np.full((8, 9), np.nan), method=method)[2, 3] == 0
    assert np.isposinf(distance(image=np.full((8, 9), np.nan), method=method)).sum() == 71
    nan_seed = np.zeros((8, 9), np.float32)
    nan_seed[0, 0] = np.nan
    assert np.isnan(distance(seeds=nan_seed, v=1.0, method=method)[0, 0])  # a NaN seed stays NaN
    walled = distance(barriers=everything, method=method)
    assert np.isposinf(walled).all()  # a barrier on a seed wins
    assert (distance(max_distance=0.0, lam=0.0, method=method) == 0).sum() == 1
    out_of_range = np.full((8, 9), 7.0, np.float32)  # soft seeds outside [0, 1] are taken as they are
    assert (distance(seeds=out_of_range, v=1.0, lam=0.0, method=method) == -6).all()


def test_nothing_outside_the_output_is_written():
    image = np.random.default_rng(0).random((5, 21, 35), dtype=np.float32)
    before = image.copy()
    seeds = image[0] > 0.95
    kept = seeds.copy()
    for method in ("raster", "toivanen", "exact"):
        fp.geodesic_distance(image[1:3, 2:-2, 3:-1], seeds[2:-2, 3:-1], method=method)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(seeds, kept)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "two"])
def test_wrong_threads(threads):
    with pytest.raises(ValueError, match="threads must be a positive int or None"):
        fp.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "backend must be one of"),
        ("cuda", "backend 'cuda' is off: (this build has|there is|the CUDA driver finds) no"),
    ],
)
def test_wrong_backend(name, message):
    with pytest.raises(ValueError, match=message), fp.backend(name):
        pass
