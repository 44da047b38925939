"""The calls into csrc/metrics."""

from typing import Any

from fastprompt import _C
from fastprompt._runtime import get_num_threads
from fastprompt.ops._arrays import contiguous


def overlap_counts(pred: Any, target: Any, threshold: float, ignore: int, out: Any) -> None:
    given = {"pred": contiguous(pred), "target": contiguous(target), "threshold": threshold, "ignore": ignore}
    _C.overlap_counts(**given, out=out, threads=get_num_threads())


def class_counts(pred: Any, target: Any, classes: int, ignore: int, out: Any) -> None:
    _C.class_counts(pred=pred, target=target, ignore=ignore, out=out)


def pair_counts(first: Any, second: Any, out: Any) -> None:
    _C.pair_counts(first=first, second=second, out=out, threads=get_num_threads())
