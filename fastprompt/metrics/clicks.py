"""Metrics of interactive segmentation: numbers of clicks."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from fastprompt.metrics._accumulator import Accumulator, check_thresholds
from fastprompt.ops._arrays import as_array

__all__ = ["ClickMetrics", "Failures", "noc", "nof"]


class Failures(NamedTuple):
    """Of :func:`nof`."""

    number: int
    rate: float  # of the samples; NaN without any


def clicks_needed(curve: Any, threshold: float, max_clicks: int) -> int:
    """The first click with IoU >= threshold, from 1; 0 if none of the first ``max_clicks`` reaches it."""
    values = np.asarray(as_array("a curve", curve), np.float64)
    if values.ndim != 1:
        raise ValueError(f"a curve must be the IoU after each click, one axis, got shape {values.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"a curve must hold IoUs from 0 to 1, got {values.tolist()}")
    reached = np.flatnonzero(values[:max_clicks] >= threshold)
    return int(reached[0]) + 1 if len(reached) else 0


def listed(curves: Any) -> list[Any]:
    try:
        return list(curves)
    except TypeError:
        raise TypeError(f"curves must be a curve for every sample, got {curves!r}") from None


def check_clicks(clicks: Any, name: str = "max_clicks") -> int:
    if isinstance(clicks, bool) or not isinstance(clicks, (int, np.integer)) or clicks < 1:
        raise ValueError(f"{name} must be a positive int, got {clicks!r}")
    return int(clicks)


def noc(curves: Iterable[Any], threshold: float, *, max_clicks: int = 20) -> Any:
    r"""Number of clicks NoC@X of every sample, capped as in all published code.

    .. math:: \mathrm{NoC} = \min\bigl(\{n : \mathrm{IoU}_n \ge X\} \cup \{n_{\max}\}\bigr)

    A curve that was stopped at a lower IoU does not know when X would have been reached: it gets the cap.

    Args:
        curves: for every sample the IoU after click 1, 2, …, of any lengths.
        threshold: X, e.g. 0.9.
        max_clicks: the cap; later clicks do not count.

    Returns:
        int64, one for each curve; their mean is the metric.

    Raises:
        ValueError: naming the argument, what it was and what is expected.

    Example:
        >>> import fastprompt as fp
        >>> fp.metrics.noc([[0.5, 0.92, 0.9], [0.6, 0.7]], 0.9)
        array([ 2, 20])

    Source: RITM (2022), ``compute_noc_metric``.
    """
    x, cap = check_thresholds(threshold)[0], check_clicks(max_clicks)
    return np.array([clicks_needed(curve, x, cap) or cap for curve in listed(curves)], np.int64)


def nof(curves: Iterable[Any], threshold: float, *, max_clicks: int = 20, strict: bool = False) -> Failures:
    """Number of failures NoF@X, and its share of the samples.

    Published code counts NoC = max_clicks, so also the samples that succeed with the very last click; figures in
    papers are of that kind, and it is the default. ``strict=True`` counts those that never reach X.
    Arguments: :func:`noc`.

    Example:
        >>> import fastprompt as fp
        >>> curves = [[0.5, 0.92], [0.6, 0.7], [0.9, 0.9]]
        >>> fp.metrics.nof(curves, 0.9, max_clicks=2), fp.metrics.nof(curves, 0.9, max_clicks=2, strict=True).number
        (Failures(number=2, rate=0.6666666666666666), 1)
    """
    x, cap = check_thresholds(threshold)[0], check_clicks(max_clicks)
    needed = [clicks_needed(curve, x, cap) for curve in listed(curves)]
    number = sum(n == 0 or (n == cap and not strict) for n in needed)
    return Failures(number, number / len(needed) if needed else math.nan)


class ClickMetrics(Accumulator):
    """NoC@X and NoF@X of curves that come one by one, mergeable.

    Args:
        thresholds: X, several.
        max_clicks: the cap, see :func:`noc`.

    Example:
        >>> import fastprompt as fp
        >>> metrics = fp.metrics.ClickMetrics(thresholds=(0.9,))
        >>> metrics.update([0.5, 0.92])
        >>> metrics.compute()
        {'noc@0.9': 2.0, 'nof@0.9': 0.0, 'failures@0.9': 0}
    """

    def __init__(self, *, thresholds: Any = (0.8, 0.85, 0.9, 0.95), max_clicks: int = 20) -> None:
        super().__init__(thresholds=check_thresholds(thresholds), max_clicks=check_clicks(max_clicks))

    def update(self, curve: Any) -> None:
        """The IoU of one sample after click 1, 2, …"""
        cap = self.options["max_clicks"]
        self.add(samples=1)
        for x in self.options["thresholds"]:
            n = clicks_needed(curve, x, cap)
            self.add(**{f"clicks {x}": n or cap, f"last {x}": n == cap, f"never {x}": n == 0})

    def compute(self, *, strict: bool = False) -> dict[str, float]:
        """``noc@X``, ``nof@X`` (a rate) and ``failures@X`` (their number) of each X; ``strict``: see :func:`nof`."""
        found: dict[str, float] = {}
        samples = self["samples"]
        for x in self.options["thresholds"]:
            failures = self[f"never {x}"] + (0 if strict else self[f"last {x}"])
            found[f"noc@{x}"] = self[f"clicks {x}"] / samples if samples else math.nan
            found[f"nof@{x}"] = failures / samples if samples else math.nan
            found[f"failures@{x}"] = failures
        return found
