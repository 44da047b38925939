"""resize_masks against the dense formula, torch's interpolation and segment-anything's post-processing."""

import numpy as np
import pytest

import fastprompt as fp
from fastprompt.reference import masks as reference

torch = pytest.importorskip("torch")

# h, w, size, frame, crop
CASES = {
    "sam": (64, 64, (300, 451), (256, 256), (171, 256)),
    "up": (17, 31, (40, 130), None, None),
    "down": (64, 48, (13, 7), None, None),
    "down twice": (64, 48, (13, 7), (40, 40), (33, 40)),
    "same": (9, 11, (9, 11), None, None),
    "frame only": (16, 16, (20, 33), (64, 64), None),
    "one pixel": (1, 1, (5, 70), None, None),
    "to one pixel": (8, 8, (1, 1), None, None),
}


def smooth(rng, *shape):
    x = rng.standard_normal(shape).astype(np.float32)
    return x + 0.7 * np.roll(x, 1, -1) + 0.7 * np.roll(x, 1, -2)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_logits_equal_the_formula(rng, isa, case):
    h, w, size, frame, crop = case
    logits = smooth(rng, 3, h, w)
    got = fp.resize_masks(logits, size, frame=frame, crop=crop, output="float32").masks
    want = reference.resize(logits.astype(np.float64), size, frame, crop)
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-6)


@pytest.mark.parametrize("threshold", [0.0, 0.7, 50.0, -50.0])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_masks_and_facts(rng, isa, case, threshold):
    """All that is said of a mask is said of the logits that the same call would return."""
    h, w, size, frame, crop = case
    logits = smooth(rng, 4, h, w)
    options = {"frame": frame, "crop": crop, "threshold": threshold, "stability_offset": 0.5}
    full = fp.resize_masks(logits, size, output="float32", **options)
    masks = full.masks > np.float32(threshold)
    for output in ("bool", "uint8", "packed"):
        got = fp.resize_masks(logits, size, output=output, **options)
        plain = np.unpackbits(got.masks, axis=-1, bitorder="little", count=size[1]) if output == "packed" else got.masks
        np.testing.assert_array_equal(plain != 0, masks)
        assert got.masks.dtype == (bool if output == "bool" else np.uint8)
        for a, b in zip(got[1:], full[1:], strict=True):
            np.testing.assert_array_equal(a, b)
    _, numbers = reference.facts(full.masks, np.float32(threshold), np.float32(0.5), "bool")
    np.testing.assert_array_equal(full.area, numbers[:, 0])
    np.testing.assert_array_equal(full.box, numbers[:, 3:])
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(full.stability, numbers[:, 1] / numbers[:, 2], rtol=1e-6)


def test_axes_threads_and_emptiness(rng):
    logits = smooth(rng, 2, 3, 20, 30)
    got = fp.resize_masks(logits, (150, 90))
    assert [x.shape for x in got] == [(2, 3, 150, 90), (2, 3), (2, 3, 4), (2, 3)]
    single = fp.resize_masks(logits[1, 2], (150, 90))
    assert [x.shape for x in single] == [(150, 90), (), (4,), ()]
    np.testing.assert_array_equal(single.masks, got.masks[1, 2])
    assert fp.resize_masks(logits[:0], (5, 5)).masks.shape == (0, 3, 5, 5)
    nothing = fp.resize_masks(np.full((4, 4), -9.0), (8, 8))
    assert nothing.area == 0
    assert nothing.box.tolist() == [0, 0, 0, 0]
    assert np.isnan(nothing.stability)
    try:
        for threads in (1, 2, 5):
            fp.set_num_threads(threads)
            for a, b in zip(fp.resize_masks(logits, (150, 90)), got, strict=True):
                np.testing.assert_array_equal(a, b)
    finally:
        fp.set_num_threads(None)


def test_nan_logits_are_outside(rng):
    logits = smooth(rng, 8, 8)
    logits[3, 3] = np.nan
    masks = fp.resize_masks(logits, (8, 8)).masks
    np.testing.assert_array_equal(masks, logits > 0)


def test_rle(rng):
    for shape in ((7, 5), (1, 9), (9, 1), (40, 33), (0, 4)):
        for density in (0.0, 0.3, 1.0):
            mask = rng.random(shape) < density
            rle = fp.mask_to_rle(mask)
            flat, counts, at = mask.T.reshape(-1), [], 0  # run by run, as the format is defined
            for value in [False, True] * (mask.size + 1):
                if at == mask.size:
                    break
                run = next((k for k, x in enumerate(flat[at:]) if x != value), mask.size - at)
                counts.append(run)
                at += run
            assert rle == {"size": list(shape), "counts": counts}
            np.testing.assert_array_equal(fp.rle_to_mask(rle), mask)
    both = fp.mask_to_rle(np.stack([np.eye(3), np.zeros((3, 3))]))
    assert [r["counts"] for r in both] == [[0, 1, 3, 1, 3, 1], [9]]
    with pytest.raises(ValueError, match="add up to 2 x 2, got a sum of 3"):
        fp.rle_to_mask({"size": [2, 2], "counts": [3]})
    with pytest.raises(ValueError, match="mask must be"):
        fp.mask_to_rle(np.zeros(3))
    for dtype in (torch.bfloat16, torch.float16, torch.bool, torch.int8):
        assert fp.mask_to_rle(torch.eye(3).to(dtype)) == both[0]
    for kind in ("f4", ">f8", "u1", ">i2"):
        assert fp.mask_to_rle(np.eye(3).astype(kind)) == both[0]
        rle = {"size": np.array([3, 3], kind), "counts": np.array(both[0]["counts"], kind)}
        np.testing.assert_array_equal(fp.rle_to_mask(rle), np.eye(3) > 0)


WRONG_RLE = {
    "none": (None, TypeError, r"rle must be .* got NoneType"),
    "text": ("3 4", TypeError, r"rle must be .* got str"),
    "no_size": ({"counts": [4]}, ValueError, r"rle must have size and counts, got \['counts'\]"),
    "no_counts": ({"size": [2, 2]}, ValueError, "rle must have size and counts"),
    "compressed": ({"size": [2, 2], "counts": "abcd"}, TypeError, "counts must be a list of integers, got str"),
    "bytes": ({"size": [2, 2], "counts": b"04"}, TypeError, "counts must be a list of integers, got bytes"),
    "fractions": ({"size": [2, 2], "counts": [1.9, 1.1, 1]}, ValueError, r"counts must hold integers, got 1\.9"),
    "nan": ({"size": [2, 2], "counts": [np.nan, 4]}, ValueError, "counts must hold integers, got nan"),
    "nested": ({"size": [2, 2], "counts": [[4]]}, ValueError, "counts must be a list of integers"),
    "words": ({"size": [2, 2], "counts": ["a"]}, TypeError, "counts must hold real numbers"),
    "negative": ({"size": [2, 2], "counts": [-1, 5]}, ValueError, "counts must be positive"),
    "far": ({"size": [2, 2], "counts": [2**63, 2**63]}, ValueError, "counts must be positive and add up"),
    "too_far": ({"size": [2, 2], "counts": [2**64]}, TypeError, "counts must hold real numbers"),
    "one_side": ({"size": [4], "counts": [4]}, ValueError, r"size must be \[H, W\]"),
    "negative_side": ({"size": [-2, -2], "counts": [4]}, ValueError, r"size must be \[H, W\]"),
    "half_a_side": ({"size": [2.5, 2], "counts": [5]}, ValueError, r"size must hold integers, got 2\.5"),
    "huge": ({"size": [2**20, 2**20], "counts": [2**40]}, ValueError, r"size must be \[H, W\] of at most 2\*\*31"),
    "wrap": ({"size": [2**32, 2**32], "counts": [0]}, ValueError, r"size must be \[H, W\] of at most 2\*\*31"),
}


@pytest.mark.parametrize("name", WRONG_RLE)
def test_wrong_rle(name):
    rle, error, match = WRONG_RLE[name]
    with pytest.raises(error, match=match):
        fp.rle_to_mask(rle)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_torch(rng, case):
    h, w, size, frame, crop = case
    logits = torch.from_numpy(smooth(rng, 2, 1, h, w))
    want = logits
    if frame:
        want = torch.nn.functional.interpolate(want, frame, mode="bilinear", align_corners=False)
        want = want if crop is None else want[..., : crop[0], : crop[1]]
    want = torch.nn.functional.interpolate(want, size, mode="bilinear", align_corners=False)
    got = fp.resize_masks(logits, size, frame=frame, crop=crop, output="float32")
    torch.testing.assert_close(got.masks, want, rtol=0, atol=3e-5)  # torch takes the positions in float32
    masks = fp.resize_masks(logits.double(), size, frame=frame, crop=crop).masks
    assert masks.dtype == torch.bool
    assert not ((masks != (want > 0)) & (want.abs() > 3e-5)).any()


def test_equals_segment_anything(rng):
    pytest.importorskip("transformers")
    from transformers.models.sam.image_processing_pil_sam import (
        _batched_mask_to_box,
        _compute_stability_score,
    )

    logits = torch.from_numpy(smooth(rng, 5, 64, 64) * 2)
    got = fp.resize_masks(logits, (200, 180), output="float32")
    boxes = _batched_mask_to_box(got.masks > 0)
    torch.testing.assert_close(got.box, boxes.long())
    torch.testing.assert_close(got.stability, _compute_stability_score(got.masks, 0.0, 1.0))


def test_compile_and_opcheck(rng):
    logits = torch.from_numpy(smooth(rng, 2, 12, 12))
    call = lambda x: fp.resize_masks(x, (30, 20), frame=(24, 24), crop=(24, 16))  # noqa: E731
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for a, b in zip(compiled(logits), call(logits), strict=True):
        torch.testing.assert_close(a, b)
    torch.library.opcheck(
        torch.ops.fastprompt.resize_masks.default, (logits, [30, 20], [24, 24], [], 0.0, "packed", 1.0)
    )


X = np.zeros((2, 4, 4))
WRONG = {
    "axes": ({"logits": np.zeros(4)}, ValueError, r"logits must be \(..., h, w\)"),
    "empty": ({"logits": np.zeros((2, 0, 4))}, ValueError, "not empty there"),
    "complex": ({"logits": np.zeros((4, 4), complex)}, TypeError, "logits must hold real numbers"),
    "size": ({"size": (4, 0)}, ValueError, r"size must be two positive integers \(height, width\), got \(4, 0\)"),
    "size_number": ({"size": 4}, ValueError, "size must be two positive integers"),
    "size_float": ({"size": (4.0, 4)}, ValueError, "size must be two positive integers"),
    "frame": ({"frame": (1, 2, 3)}, ValueError, "frame must be two positive integers"),
    "crop": ({"crop": (4, 4)}, ValueError, "crop must lie in frame None"),
    "crop_large": ({"frame": (8, 8), "crop": (9, 8)}, ValueError, r"crop must lie in frame \(8, 8\), got \(9, 8\)"),
    "output": ({"output": "rle"}, ValueError, "output must be one of float32, bool, uint8, packed, got 'rle'"),
    "threshold": ({"threshold": float("nan")}, ValueError, "threshold must be between"),
    "offset": ({"stability_offset": -1}, ValueError, "stability_offset must be between 0 and inf"),
    "gradient": ({"logits": torch.zeros(4, 4, requires_grad=True)}, ValueError, r"gradient.*logits\.detach"),
    "device": ({"logits": torch.zeros(4, 4, device="meta")}, None, ""),
}


@pytest.mark.parametrize("change", WRONG)
def test_wrong_calls(change):
    changes, error, match = WRONG[change]
    call = {"logits": X, "size": (4, 4)} | changes
    if error is None:
        assert fp.resize_masks(**call).masks.shape == (4, 4)
        return
    with pytest.raises(error, match=match):
        fp.resize_masks(**call)
