"""Calls of the mask decoder for ``fastprompt doctor``."""

from collections.abc import Iterator

import numpy as np

import fastprompt as fp
from fastprompt._selftest.check import Check, compare


def checks() -> Iterator[Check]:
    rng = np.random.default_rng(0)
    shapes = ((32, 16, 2, 2), (16,), (16,), (16,), (16, 8, 2, 2), (8,))
    weights = fp.MaskHeadWeights(*(0.2 * rng.standard_normal(s, np.float32) for s in shapes))
    image, vectors = rng.standard_normal((2, 32, 3, 23), np.float32), rng.standard_normal((2, 3, 8), np.float32)
    yield compare("mask_head", "", image, vectors, weights)
