"""Calls of the click simulator for ``fastprompt doctor``."""

from collections.abc import Iterator

import numpy as np

from fastprompt._selftest.check import Check, compare


def checks() -> Iterator[Check]:
    rng = np.random.default_rng(0)
    target, logits = rng.integers(0, 3, (4, 19, 70), np.uint8), rng.standard_normal((4, 19, 70), np.float32)
    clicked = rng.integers(0, 19, (4, 3, 2))
    yield compare("next_click", "floats", target, logits, threshold=0.2, ignore=2, clicked=clicked)
    yield compare("next_click", "bytes", target, rng.integers(0, 2, target.shape, np.uint8))
