"""Metrics of a data set, gathered image by image and in any number of processes."""

import math
from typing import Any, ClassVar

from fastprompt._choices import choice

# NOTE: scores are added as integers of this unit: a sum does not depend on the order, so that any split over processes
# gives the same bits. A double between 2**-7 and 1 is a whole number of units.
UNIT = 2.0**60


class Accumulator:
    """Counts by name, plain integers, which merging adds. Subclasses define ``compute()`` and their options."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {}  # the options of published code

    @classmethod
    def preset(cls, name: str) -> Any:
        return cls(**cls.PRESETS[choice("preset", name, cls.PRESETS)])

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.counts: dict[str, int] = {}

    def add(self, **counts: Any) -> None:
        for name, n in counts.items():
            self.counts[name] = self.counts.get(name, 0) + int(n)

    def add_score(self, name: str, score: float) -> None:
        """One score in [0, 1]; NaN is counted apart and makes the mean NaN."""
        if math.isnan(score):
            self.add(**{f"{name} nan": 1})
        else:
            self.add(**{f"{name} sum": int(score * UNIT), f"{name} number": 1})

    def mean(self, name: str) -> float:
        """Of the scores; NaN without any."""
        number = self[f"{name} number"]
        return math.nan if self[f"{name} nan"] or not number else self[f"{name} sum"] / (number * int(UNIT))

    def __getitem__(self, name: str) -> int:
        return self.counts.get(name, 0)

    def merge(self, other: Any) -> Any:
        """Adds the counts of ``other``, which must have the same options; returns ``self``."""
        if type(other) is not type(self):
            raise TypeError(f"other must be a {type(self).__name__}, got {type(other).__name__}")
        if other.options != self.options:
            raise ValueError(f"other must have the same options {self.options}, got {other.options}")
        self.add(**other.counts)
        return self

    def __add__(self, other: Any) -> Any:
        both = type(self)(**self.options)
        return both.merge(self).merge(other)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{type(self).__name__}({options})"


def fraction(part: int, whole: int, empty: str, eps: float = 0.0) -> float:
    """A ratio of two counts; where the whole is 0, what ``empty`` says ("skip": NaN)."""
    if whole == 0:
        return {"one": 1.0, "zero": 0.0, "nan": math.nan, "skip": math.nan}[empty]
    return part / (whole + eps)


def check_thresholds(thresholds: Any, name: str = "thresholds") -> tuple[float, ...]:
    """Numbers in [0, 1], at least one."""
    values = tuple(float(x) for x in ([thresholds] if isinstance(thresholds, (int, float)) else thresholds))
    if not values or not all(0.0 <= x <= 1.0 for x in values):
        raise ValueError(f"{name} must be numbers in [0, 1], got {thresholds!r}")
    return values
