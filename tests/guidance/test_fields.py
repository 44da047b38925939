"""The fields of the kernels of guidance: what does not fit is refused by name, through _C and through torch.ops."""

import math

import numpy as np
import pytest
from field_faults import check_array, check_fields, raises

import fastprompt as fp
from fastprompt import _C

FLOATS = np.float32


def clicks():
    points, labels = np.array([[[3, 4], [8, 2], [-1, -1]]] * 2, FLOATS), np.array([[1, 0, 1]] * 2)
    return {"points": points, "labels": labels, "of_labels": np.array([1, 0])}


def polygon():
    return {"points": np.random.default_rng(0).random((2, 5, 2)) * 9, "first": np.array([0, 3, 5])}


GOOD = {
    "click_maps": lambda: (
        clicks()
        | {
            "scale": np.array([25, 4, 9], FLOATS),
            "encoding": "disk",
            "clip": math.inf,
            "divisor": 1.0,
            "stretch": False,
        }
        | {"missing": math.inf, "out": np.zeros((2, 6, 5, 7), FLOATS), "threads": 1}
    ),
    "box_maps": lambda: (
        {"corners": np.ones((2, 3, 4), FLOATS), "distance": True, "offset": 1.0, "low": 0.0}
        | {"high": 9.0, "out": np.zeros((2, 1, 5, 7), FLOATS), "threads": 1}
    ),
    "polygon_masks": lambda: (
        polygon() | {"non_zero": False, "boundary": False, "out": np.zeros((2, 5, 7), bool), "threads": 1}
    ),
    "scribble_map": lambda: (
        {"points": polygon()["points"][0], "first": np.array([0, 3, 5])}
        | {"channel": np.array([0, 1]), "radius": 1.0, "out": np.zeros((2, 5, 7), FLOATS)}
    ),
    "superpixel_map": lambda: (
        clicks()
        | {"region": np.arange(2 * 45).reshape(2, 5, 9) % 7, "clip": 9.0, "out": np.zeros((2, 2, 5, 9), FLOATS)}
    ),
    "proposal_votes": lambda: clicks() | {"member": np.ones((2, 4, 5, 9), bool), "out": np.zeros((2, 2, 5, 9), FLOATS)},
    "prompt_vectors": lambda: (
        {"centre": np.ones((3, 2)), "radius": np.ones((3, 2), int), "sigma": np.ones((3, 2))}
        | {"bit": np.array([0, 1, 2]), "peak": np.ones(3, FLOATS), "height": 5, "width": 7}
        | {"out": np.zeros((3, 15), FLOATS)}
    ),
}
ANY_LENGTH = {("scribble_map", "points"), ("scribble_map", "out")}  # the others say what counts of them
ARRAYS = [(name, field) for name, make in GOOD.items() for field, x in make().items() if isinstance(x, np.ndarray)]


@pytest.mark.parametrize("name", GOOD)
def test_calls(name):
    check_fields(name, GOOD[name](), returned=(None, -1))


@pytest.mark.parametrize(("name", "field"), ARRAYS)
def test_arrays(name, field):
    check_array(name, GOOD[name](), field, None if (name, field) in ANY_LENGTH else ".* must")


NUMBERS = {  # what the kernels would follow out of the arrays
    "few_maps": ("click_maps", "out", np.zeros((2, 5, 5, 7), FLOATS), "out must have a map of every scale"),
    "encoding": ("click_maps", "encoding", "disc", "encoding must be one of disk"),
    "threads": ("click_maps", "threads", 0, "threads must be positive"),
    "falling_rings": ("polygon_masks", "first", np.array([0, 4, 3]), "first must rise"),
    "negative_ring": ("polygon_masks", "first", np.array([-1, 3, 5]), "first must rise"),
    "far_ring": ("polygon_masks", "first", np.array([0, 3, 6]), "first must rise"),
    "no_ring": ("polygon_masks", "first", np.zeros(0, int), "first must rise"),
    "nan_vertex": ("polygon_masks", "points", np.full((2, 5, 2), np.nan), "points must be finite"),
    "far_vertex": ("polygon_masks", "points", np.full((2, 5, 2), 2e9), "points must be finite and at most 1e9"),
    "far_stroke": ("scribble_map", "first", np.array([0, 3, 9]), "first must rise"),
    "infinite_stroke": ("scribble_map", "points", np.full((5, 2), np.inf), "points must be finite"),
    "pen": ("scribble_map", "radius", math.nan, "radius must be between"),
    "negative_region": ("superpixel_map", "region", np.full((2, 5, 9), -1), "region must be below"),
    "large_region": ("superpixel_map", "region", np.full((2, 5, 9), 45), "region must be below"),
    "bit": ("prompt_vectors", "bit", np.array([0, 1, 3]), "bit must be 0, 1 or 2"),
    "negative_bit": ("prompt_vectors", "bit", np.array([0, -9, 2]), "bit must be"),
    "nan_centre": ("prompt_vectors", "centre", np.full((3, 2), np.nan), "centre must be finite"),
    "width": ("prompt_vectors", "width", 8, "out must be width"),
    "negative_height": ("prompt_vectors", "height", -3, "out must be width"),
}


@pytest.mark.parametrize(("name", "field", "value", "match"), NUMBERS.values(), ids=NUMBERS)
def test_numbers(name, field, value, match):
    raises(name, GOOD[name](), ValueError, match, **{field: value})


def test_a_click_outside_has_a_number():
    points = clicks()["points"]
    points[1, 2] = 9, 0
    assert _C.superpixel_map(**(GOOD["superpixel_map"]() | {"points": points})) == 5
    assert _C.proposal_votes(**(GOOD["proposal_votes"]() | {"points": points})) == 5


def test_through_torch():
    torch = pytest.importorskip("torch")
    ops, size = torch.ops.fastprompt, [5, 7]
    points, labels, region = torch.ones(1, 3, 2), torch.ones(1, 3, dtype=torch.int64), torch.zeros(1, 5, 7).long()
    click = [1, 0], size, 0, [4.0], math.inf, 1.0, False, math.inf
    member = torch.ones(1, 4, 5, 7, dtype=torch.bool)
    for call, match in (
        (lambda: ops.click_map(points, labels[:, :2], *click), "labels must have shape"),
        (lambda: ops.click_map(points[..., :1], labels, *click), "points must have shape"),
        (lambda: ops.click_map(points, labels, [1], size, 9, *click[3:]), "code must be 0 to 3"),
        (lambda: ops.box_map(torch.ones(1, 2, 5), size, True, 0.0, 0.0, 1.0), "corners must have shape"),
        (lambda: ops.polygon_mask(points, [0, 4], size, True, False), "first must rise"),
        (lambda: ops.polygon_mask(points * math.nan, [0, 3], size, True, False), "vertices must be finite"),
        (lambda: ops.scribble_map(points[0], [0, 2], labels[0], [1], size, 1.0), "labels must have shape"),
        (lambda: ops.superpixel_map(region, points.repeat(2, 1, 1), labels, [1], 9.0), "points must have shape"),
        (lambda: ops.superpixel_map(region + 35, points, labels, [1], 9.0), "superpixels must be between 0"),
        (lambda: ops.proposal_vote_map(member, points, labels[:, :1], [1]), "labels must have shape"),
        (
            lambda: ops.prompt_unified_encoding(points, labels, None, [-5, 7], 3.0, True, 1.0, False),
            "size must be 2 numbers, not negative",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    got = ops.click_map(points.double(), labels.int().mT.contiguous().mT, *click)  # made right: dtypes and strides
    assert torch.equal(got, fp.click_map(points, labels, size=(5, 7), radius=2))
