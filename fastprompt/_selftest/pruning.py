"""Calls of pruning for ``fastprompt doctor``."""

from collections.abc import Iterator
from typing import Any

import numpy as np

import fastprompt as fp
from fastprompt._runtime import Backend, backend
from fastprompt._selftest.check import Check, compare, difference


def checks() -> Iterator[Check]:
    rng = np.random.default_rng(0)
    tokens, prompts = rng.standard_normal((2, 91, 35), np.float32), rng.standard_normal((1, 5, 35), np.float32)
    place = {"points": np.array([[[30.0, 50.0]]]), "grid": (7, 13), "points_weight": 0.01}
    yield compare("token_scores", "", tokens, prompts=prompts, **place)
    scores = rng.integers(0, 9, (2, 91)).astype(np.float32)  # ties

    def pruned(name: Backend) -> Any:
        with backend(name):
            kept, restore = fp.prune_tokens(tokens, scores, keep=0.45, stride_mix=0.2)
            return restore(-kept)

    def merged(name: Backend) -> Any:
        with backend(name):
            kept, _, unmerge = fp.merge_tokens(tokens, r=30, protected=1)
            return unmerge(kept)

    yield Check("prune_tokens", "", lambda: difference(pruned("cpu"), pruned("reference")))
    yield Check("merge_tokens", "", lambda: difference(merged("cpu"), merged("reference")))
