"""The fields of the kernels of metrics and of the click simulator: what does not fit is refused by name, through _C and
through torch.ops."""

import numpy as np
import pytest

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
        "second": longer(WORDS),
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


def longer(x):
    return np.concatenate([x, x[:1]])


def refused(name, error, match, **changes):
    with pytest.raises(error, match=match):
        getattr(_C, name)(**(GOOD[name]() | changes))


@pytest.mark.parametrize("name", GOOD)
def test_good_calls(name):
    given = GOOD[name]()
    assert getattr(_C, name)(**given) is None
    for field in given:
        with pytest.raises(TypeError, match=f"^{name}: {field} is missing"):
            getattr(_C, name)(**{k: x for k, x in given.items() if k != field})
    refused(name, TypeError, f"^{name}: there is no field colour", colour=1)
    out = given["out"]
    out.flags.writeable = False
    refused(name, ValueError, f"^{name}: out must be writeable", out=out)


@pytest.mark.parametrize(("name", "field"), [pair for pair in ARRAYS if pair[1] in GOOD[pair[0]]()])
def test_arrays(name, field):
    x = GOOD[name]()[field]
    refused(name, TypeError, f"^{name}: {field} must hold", **{field: x.astype(np.float16)})
    refused(name, TypeError, f"^{name}: {field} must be an array", **{field: x.tolist()})
    refused(name, ValueError, f"^{name}: {field} must have shape", **{field: x[None]})
    refused(name, ValueError, f"^{name}: {field} must be contiguous", **{field: np.repeat(x, 2, -1)[..., ::2]})
    if (name, field) not in ANY_LENGTH:
        refused(name, ValueError, f"^{name}: .* must have shape", **{field: longer(x)})


def test_what_must_agree():
    refused("class_counts", TypeError, "^class_counts: target must hold int64", target=np.ones(9, np.uint8))
    refused("overlap_counts", ValueError, "^overlap_counts: ignore must be a byte", ignore=256)
    wide = np.zeros((1, 1, _C.largest_click_side + 1), bool)
    given = {"pred": wide, "target": wide, "clicked": np.zeros((1, 0, 2), np.int32), "out": np.zeros((1, 4), np.int64)}
    refused("next_click", ValueError, "^next_click: pred must have at most 32766", **given)


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
