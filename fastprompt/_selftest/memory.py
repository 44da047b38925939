"""Calls of memory reads for ``fastprompt doctor``."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastprompt._selftest.check import Check, compare


def checks() -> Iterator[Check]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32)

    yield compare("memory_attention", "", normal(2, 35, 2, 20), normal(2, 291, 2, 20), normal(2, 291, 2, 33))
    angles = rng.random((35, 20), np.float32)
    turning = {"rotation": (np.cos(angles), np.sin(angles)), "unrotated": 11}
    query, key, value = normal(2, 35, 2, 20), normal(2, 291, 2, 20), normal(2, 291, 2, 33)
    yield compare("memory_attention", "turned", query, key, value, **turning)
