"""Calls of guidance maps for ``fastprompt doctor``."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastprompt._selftest.check import Check, compare

SIZE = (61, 97)  # ragged: a block of columns and a half, two bands of rows
ENCODINGS: dict[str, dict[str, Any]] = {
    "disk": {"radius": [3, 9]},
    "tanh": {},
    "euclidean": {"clip": 40, "normalize": "clip"},
    "gaussian": {"sigma": [4, 10], "normalize": "minmax"},
}


def checks() -> Iterator[Check]:
    rng = np.random.default_rng(0)
    points, labels = rng.uniform(-5, 100, (2, 12, 2)), rng.integers(-1, 2, (2, 12))
    for encoding, options in ENCODINGS.items():
        yield compare("click_map", encoding, points, labels, size=SIZE, encoding=encoding, **options)
    boxes = rng.uniform(-5, 100, (2, 3, 4))
    yield compare("box_map", "", boxes, size=SIZE)
    yield compare("box_distance_map", "", boxes, size=SIZE)
    strokes = [rng.uniform(-5, 100, (n, 2)) for n in (1, 4, 2)]
    yield compare("scribble_map", "", strokes, [1, 0, 1], size=SIZE, thickness=4)
    polygon = rng.uniform(-5, 100, (9, 2))
    for rule in ("even_odd", "non_zero"):
        yield compare("polygon_mask", rule, polygon, size=SIZE, rule=rule)
    yield compare("polygon_mask", "boundary", polygon, size=SIZE, boundary=True)
    inside = rng.integers(0, SIZE[0], (5, 2))
    yield compare("superpixel_map", "", np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) // 211, inside)
    yield compare("proposal_vote_map", "", rng.random((4, *SIZE)) < 0.4, inside)
    yield compare("prompt_unified_encoding", "", points, labels, size=SIZE)
    given = {"points": points, "labels": labels, "boxes": boxes, "previous_mask": rng.random((2, 1, *SIZE))}
    yield compare("compose_guidance", "", size=SIZE, **given)
