"""The calls into csrc/metrics."""

from typing import Any

from fastprompt import _C
from fastprompt.ops._arrays import contiguous
from fastprompt.ops._operator import Asked


def overlap_counts(pred: Any, target: Any, threshold: float, ignore: int, out: Any) -> Asked:
    given = {"pred": contiguous(pred), "target": contiguous(target), "threshold": threshold, "ignore": ignore}
    return _C.overlap_counts, dict(**given, out=out)


def class_counts(pred: Any, target: Any, classes: int, ignore: int, out: Any) -> Asked:
    return _C.class_counts, dict(pred=pred, target=target, ignore=ignore, out=out)


def pair_counts(first: Any, second: Any, out: Any) -> Asked:
    return _C.pair_counts, dict(first=first, second=second, out=out)
