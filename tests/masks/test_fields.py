"""The binding of resize_masks: a wrong size, dtype, stride or field is an error, through ``_C`` and through torch."""

import numpy as np
import pytest
from field_faults import check, fields_of, refused

from fastprompt.ops.masks import call, operators

LOGITS = np.random.default_rng(0).standard_normal((2, 6, 5)).astype(np.float32)


@pytest.mark.parametrize("output", ["bool", "packed", "float32"])
def test_wrong_fields(monkeypatch, output):
    check(*fields_of(monkeypatch, call, operators.resize_masks, LOGITS, [9, 17], [], [], 0.0, output, 1.0), FREE)


# How far the logits reach is what the indices are checked against.
FREE = {("logits", 1), ("logits", 2)}


@pytest.mark.parametrize("axis", ["rows", "columns"])
@pytest.mark.parametrize("place", [-1, 6, 10**9])
def test_places_out_of_the_logits(monkeypatch, axis, place):
    function, given = fields_of(monkeypatch, call, operators.resize_masks, LOGITS, [9, 17], [], [], 0.0, "bool", 1.0)
    index = given[f"{axis}_index"].copy()
    index[-1, -1] = place
    assert "must be places in the logits" in refused(function, given | {f"{axis}_index": index})


def test_wrong_tensors():
    torch = pytest.importorskip("torch")
    x, rest = torch.from_numpy(LOGITS), (0.0, "bool", 1.0)
    for args in [
        (x.double(), [9, 17], [], [], *rest),
        (x, [9], [], [], *rest),
        (x, [0, 17], [], [], *rest),
        (x, [9, 17], [8], [], *rest),
        (x, [9, 17], [8, 8], [9, 9], *rest),
        (x, [9, 17], [], [4, 4], *rest),
        (x, [9, 17], [], [], 0.0, "rle", 1.0),
        (x[0], [9, 17], [], [], *rest),
    ]:
        with pytest.raises((ValueError, TypeError, IndexError)):
            operators.resize_masks.torch(*args)
