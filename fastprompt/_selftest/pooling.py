"""Calls of the pooling family for ``fastprompt doctor``."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastprompt._selftest.check import Check, compare
from fastprompt.ops.pooling.means import PRESETS


def checks() -> Iterator[Check]:
    """Ragged sizes; the reference enlarges the features and writes the similarities."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32)

    features, masks = normal(2, 37, 7, 11), rng.random((2, 7, 35, 44)) < 0.3
    masks[0, 3] = False
    for preset in PRESETS:
        yield compare("masked_average_pool", preset, features, masks, preset=preset)
    yield compare("masked_average_pool", "soft", features, masks * rng.random(masks.shape), resize="mask")
    yield compare("cosine_prototype_map", "few", features, normal(2, 3, 37))
    yield compare("cosine_prototype_map", "many", features, normal(19, 37))
    for reduce in ("none", "softmax", "argmax"):
        options = {"reduce": reduce, "temperature": 9.0, "denoise": 0.3}
        yield compare("text_similarity_map", reduce, features, normal(12, 37), **options)
    yield compare("prior_mask", "", np.abs(features), np.abs(normal(2, 37, 7, 11)), masks[:, 0], size=(13, 15))
    yield compare("film", "channels first", features, normal(2, 37), normal(2, 37))
    yield compare("film", "channels last", features[:1], normal(3, 11), normal(3, 11), axis=-1)
