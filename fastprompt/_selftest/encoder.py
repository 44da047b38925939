"""Calls of encoders' attention for ``fastprompt doctor``."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastprompt._selftest.check import Check, compare


def checks() -> Iterator[Check]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32)

    size, window = (13, 23), (5, 9)
    tokens, tables = [normal(1, 299, 2, 32) for _ in range(3)], (normal(25, 32), normal(45, 32))
    yield compare("relative_position_attention", "grid", *tokens, *tables, size=size)
    small, padding = (normal(9, 32), normal(17, 32)), (normal(2, 32), normal(2, 32))
    options = {"size": size, "window": window, "padding": padding}
    yield compare("relative_position_attention", "windows", *tokens, *small, **options)
    keep = np.flatnonzero(rng.random(299) < 0.5)
    places = np.stack([keep // 23, keep % 23], -1)
    kept = [x[:, keep] for x in tokens]
    yield compare("relative_position_attention", "list", *kept, *tables, size=size, coordinates=places)
