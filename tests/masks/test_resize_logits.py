"""``resize_logits``, the operator behind the hosts' post-processing of masks: as torch enlarges, to its rounding."""

import numpy as np
import pytest
from field_faults import check, fields_of

from fastprompt.ops.masks import call, operators

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

SIZES = [(1024, 1024), (1080, 1920), (683, 1024), (97, 61), (64, 64), (5, 3), (1, 1), (65, 130)]


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", SIZES)
def test_as_torch(size):
    """Noise is the worst case: neighbours differ by 1.4 on average, and the places that torch rounds matter."""
    logits = draw(3, 64, 64)
    want = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]
    got = operators.resize_logits(logits, list(size), [], [])
    assert got.dtype == torch.float32
    assert float((got - want).abs().max()) < 2e-6
    assert np.array_equal(operators.resize_logits(logits.numpy(), list(size), [], []), got)


@pytest.mark.parametrize("crop", [(256, 256), (192, 256), (256, 131), (1, 1)])
@pytest.mark.parametrize("size", SIZES)
def test_by_way_of_a_frame(size, crop):
    logits = draw(2, 64, 48)
    frame = F.interpolate(logits[None], (256, 256), mode="bilinear", align_corners=False)[..., : crop[0], : crop[1]]
    want = F.interpolate(frame, size, mode="bilinear", align_corners=False)[0]
    got = operators.resize_logits(logits, list(size), [256, 256], list(crop))
    assert float((got - want).abs().max()) < 4e-6
    assert torch.equal(operators.resize_logits.formula(logits, list(size), [256, 256], list(crop)), want)


def test_no_masks():
    assert operators.resize_logits(draw(0, 4, 4), [5, 6], [], []).shape == (0, 5, 6)


def test_every_pixel_is_written_and_nothing_beyond():
    """Rows that are no whole vectors, at the end of the memory."""
    for width in (1, 7, 8, 15, 16, 17, 31, 33):
        room = np.full(2 * 5 * width + 64, np.nan, np.float32)
        out = room[: 2 * 5 * width].reshape(2, 5, width)
        operators.resize_logits.into(out, draw(2, 6, 5).numpy(), [5, width], [], [])
        assert not np.isnan(out).any()
        assert np.isnan(room[out.size :]).all()


def test_wrong_fields(monkeypatch):
    logits = draw(2, 6, 5).numpy()
    free = {("logits", 1), ("logits", 2)}  # how far they reach is what the indices are checked against
    check(*fields_of(monkeypatch, call, operators.resize_logits, logits, [9, 17], [], []), free)


@pytest.mark.parametrize(("size", "frame", "crop"), [([9], [], []), ([0, 9], [], []), ([9, 9], [8, 8], [9, 8])])
def test_wrong_sizes(size, frame, crop):
    with pytest.raises((ValueError, RuntimeError)):
        operators.resize_logits(draw(1, 4, 4), size, frame, crop)
