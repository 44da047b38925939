"""Calls of the metrics that have kernels, for ``fastprompt doctor``."""

from collections.abc import Iterator
from typing import Any

import numpy as np

import fastprompt as fp
from fastprompt._runtime import Backend, backend
from fastprompt._selftest.check import Check, difference


def checks() -> Iterator[Check]:
    rng = np.random.default_rng(0)
    target, logits = rng.integers(0, 3, (4, 19, 70), np.uint8), rng.standard_normal((4, 19, 70), np.float32)
    yield compare_metric("overlap", "floats", logits, target, threshold=0.2, ignore=2)
    yield compare_metric("overlap", "bytes", np.full((2, 255, 65), 7, np.uint8), rng.random((2, 255, 65)) < 0.5)
    yield compare_metric("pairwise_iou", "", logits, target, threshold=0.2)
    labels = rng.integers(-1, 6, (2, 30, 40))
    yield compare_metric("mean_iou_per_class", "labels", labels, labels.swapaxes(0, 1).reshape(2, 30, 40), classes=5)


def compare_metric(name: str, variant: str, *arrays: Any, **options: Any) -> Check:
    def call(which: Backend) -> Any:
        with backend(which):
            return getattr(fp.metrics, name)(*arrays, **options)

    return Check(f"metrics.{name}", variant, lambda: difference(call("cpu"), call("reference")))
