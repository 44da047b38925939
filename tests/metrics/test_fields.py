"""The fields of the kernels of metrics and of the click simulator: what does not fit is refused by name, through _C and
through torch.ops."""

import numpy as np
import pytest
from field_faults import check_array, check_fields, longer, raises

from fastprompt import _C

FLOATS = np.float32
WORDS = np.ones((2, 3), np.uint64)
GOOD = {
    "overlap_counts": lambda: (
        {"pred": np.ones((2, 9), FLOATS), "threshold": 0.5, "target": np.ones((2, 9), bool)}
        | {"ignore": -1, "out": np.zeros((2, 4), np.int64), "threads": 1}
    ),
    "class_counts": lambda: (
        {"pred": np.zeros(9, np.int64), "target": np.ones(9, np.int64), "ignore": -1}
        | {"out": np.zeros((3, 3), np.int64)}
    ),
    "pair_counts": lambda: {
        "first": WORDS.copy(),
        "second": longer(WORDS, 0),
        "out": np.zeros((2, 3), np.int64),
        "threads": 1,
    },
    "next_click": lambda: (
        {"pred": np.zeros((2, 5, 7), bool), "threshold": 0.0, "target": np.ones((2, 5, 7), np.uint8)}
        | {"clicked": np.zeros((2, 3, 2), np.int32), "ignore": 255, "out": np.zeros((2, 4), np.int64), "threads": 1}
    ),
}
ARRAYS = [(name, field) for name in GOOD for field in ("pred", "target", "first", "second", "clicked", "out")]
ANY_LENGTH = {("class_counts", "out")}  # it says how many classes there are


@pytest.mark.parametrize("name", GOOD)
def test_calls(name):
    check_fields(name, GOOD[name]())


@pytest.mark.parametrize(("name", "field"), [pair for pair in ARRAYS if pair[1] in GOOD[pair[0]]()])
def test_arrays(name, field):
    check_array(name, GOOD[name](), field, None if (name, field) in ANY_LENGTH else ".* must have shape")


def test_what_must_agree():
    raises("class_counts", GOOD["class_counts"](), TypeError, "target must hold int64", target=np.ones(9, np.uint8))
    raises("overlap_counts", GOOD["overlap_counts"](), ValueError, "ignore must be a byte", ignore=256)
    wide = np.zeros((1, 1, _C.largest_click_side + 1), bool)
    given = {"pred": wide, "target": wide, "clicked": np.zeros((1, 0, 2), np.int32), "out": np.zeros((1, 4), np.int64)}
    raises("next_click", GOOD["next_click"](), ValueError, "pred must have at most 32766", **given)


def test_through_torch():
    torch = pytest.importorskip("torch")
    ops, mask = torch.ops.fastprompt, torch.ones(2, 5, 7, dtype=torch.bool)
    none = torch.zeros(2, 0, 2, dtype=torch.int32)
    for call, error, match in (
        (lambda: ops.overlap_counts(mask[0], mask[0, :3], 0.0, -1), ValueError, "target must have shape"),
        (lambda: ops.overlap_counts(mask[0].double(), mask[0], 0.0, -1), TypeError, "pred must hold"),
        (lambda: ops.next_click(mask, mask[:1], none, 0.0, -1), ValueError, "target must have shape"),
        (lambda: ops.next_click(mask, mask, none[:1], 0.0, -1), ValueError, "clicked must have shape"),
        (lambda: ops.next_click(mask, mask, none.long(), 0.0, -1), TypeError, "clicked must hold int32"),
    ):
        with pytest.raises(error, match=match):
            call()
    assert not hasattr(ops, "class_counts"), "NumPy's alone"
