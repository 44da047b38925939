"""Many boxes: a tile looks at those that matter in it, with the bits of a look at all."""

import numpy as np
import pytest

import fastprompt as fp

FEW = 4  # boxes that the kernel looks at one after the other, see box.simd.cpp


def boxes_of(kind, rng, count, size):
    height, width = size
    scale = np.array([width, height] * 2)
    any_box = rng.uniform(-0.2, 1.2, (count, 4)) * scale
    centre = rng.uniform(-0.1, 1.1, (count, 2)) * scale[:2]
    half = rng.uniform(0, 0.05, (count, 2)) * scale[:2]
    small = np.concatenate([centre - half, centre + half], 1)
    return {
        "any": any_box,
        "small": small,
        "whole numbers": np.rint(any_box),
        "alike": np.array([0.3, 0.2, 0.7, 0.9]) * scale + rng.uniform(0, 2, (count, 4)),
        "the same": np.repeat(any_box[:1], count, 0),
        "nested": np.sort(any_box, 0)[:, [0, 1, 0, 1]] * [1, 1, -1, -1] + scale * [0, 0, 1, 1],
        "points": np.concatenate([centre, centre], 1),
        "next to a pixel": np.rint(small) + 1e-30 * rng.integers(-1, 2, (count, 4)),
        "far": any_box * 1e20,
        "without end": np.where(rng.random((count, 4)) < 0.2, np.inf * rng.choice([-1, 1], (count, 4)), small),
        "no boxes between": np.where(rng.random((count, 1)) < 0.5, np.nan, small),
    }[kind].astype(np.float32)


KINDS = ["any", "small", "whole numbers", "alike", "the same", "nested", "points", "next to a pixel", "far"]
KINDS += ["without end", "no boxes between"]


@pytest.mark.parametrize("size", [(1, 1), (3, 70), (75, 133), (140, 33)])
@pytest.mark.parametrize("kind", KINDS)
def test_many_boxes_are_the_union_of_few(kind, size, isa, rng):
    boxes = boxes_of(kind, rng, 90, size)
    groups = [boxes[k : k + FEW] for k in range(0, len(boxes), FEW)]
    inside = np.max([fp.box_map(few, size=size) for few in groups], 0)
    np.testing.assert_array_equal(fp.box_map(boxes, size=size), inside)
    options = {"size": size, "offset": 0, "clip": None}
    nearest = np.min([fp.box_distance_map(few, **options) for few in groups], 0)
    np.testing.assert_array_equal(fp.box_distance_map(boxes, **options), nearest)
