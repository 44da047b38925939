"""The call into csrc/clicks."""

from typing import Any

from fastprompt import _C
from fastprompt.ops._arrays import contiguous
from fastprompt.ops._operator import Asked

LARGEST_SIDE: int = _C.largest_click_side  # pixels


def next_click(pred: Any, target: Any, clicked: Any, threshold: float, ignore: int, out: Any) -> Asked:
    pred, target, clicked = contiguous(pred), contiguous(target), contiguous(clicked)
    given = {"pred": pred, "target": target, "clicked": clicked, "threshold": threshold, "ignore": ignore}
    return _C.next_click, dict(**given, out=out)
