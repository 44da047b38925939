"""Calls of attention for ``fastprompt doctor``."""

from collections.abc import Iterator
from typing import Any

import numpy as np

import fastprompt as fp
from fastprompt._selftest.check import Check, compare


def checks() -> Iterator[Check]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32)

    prompt, image = normal(2, 7, 64), normal(1, 64, 7, 23)
    shapes = [(32, 64), (32,)] * 3 + [(64, 32), (64,)]
    weights = fp.AttentionWeights(*(0.2 * normal(*shape) for shape in shapes))
    for form in ("absorbed", "projected"):
        options = {"heads": 2, "form": form, "image_position": normal(1, 64, 7, 23)}
        yield compare("prompt_to_image_attention", form, prompt, image, weights, **options)
        options["norm"] = (normal(64), normal(64), 1e-6)
        yield compare("image_to_prompt_attention", form, image, prompt, weights, **options)
    words, mask = normal(2, 5, 48), np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    shapes = [(32, 64), (32,), *[(32, 48), (32,)] * 2, (64, 32), (64,)]
    weights = fp.AttentionWeights(*(0.2 * normal(*shape) for shape in shapes))
    yield compare("pixel_word_attention", "", normal(2, 64, 7, 23), words, weights, heads=2, mask=mask)
