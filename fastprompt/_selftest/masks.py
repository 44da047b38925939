"""Calls of ``resize_masks`` for ``fastprompt doctor``."""

from collections.abc import Iterator
from typing import Any

import numpy as np

import fastprompt as fp
from fastprompt._runtime import Backend, backend
from fastprompt._selftest.check import Check, difference

BOTH: tuple[Backend, Backend] = ("cpu", "reference")


def checks() -> Iterator[Check]:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 16, 16), np.float32)
    full = {"frame": (64, 64), "crop": (48, 64), "output": "float32"}
    yield Check("resize_masks", "", lambda: difference(*(resized(logits, full, name) for name in BOTH)))


def resized(logits: Any, options: dict[str, Any], name: Backend) -> Any:
    with backend(name):
        return fp.resize_masks(logits, (100, 133), **options).masks
