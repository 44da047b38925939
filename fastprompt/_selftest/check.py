"""One check, and what checks of all families are made of."""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastprompt as fp
from fastprompt._runtime import Backend, backend

# The kernels equal the reference bit for bit where a compiler keeps the order of the additions; 1e-5 of the largest
# value leaves room for one that does not, and is far below what a wrong index or a lost lane gives.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Check:
    """One call. ``error()`` runs the kernel, at the instruction set and threads in force, and gives the largest
    difference to the reference, as a fraction of the largest value; inf where one has a value and the other none."""

    operator: str
    variant: str
    error: Callable[[], float]
    tolerance: float = TOLERANCE

    @property
    def name(self) -> str:
        return f"{self.operator}  {self.variant}".strip()


def compare(operator: str, variant: str, *arrays: Any, **options: Any) -> Check:
    def call(name: Backend) -> Any:
        with backend(name):
            return getattr(fp, operator)(*arrays, **options)

    wanted = functools.cache(lambda: call("reference"))  # the slow one: once, not for each instruction set
    return Check(operator, variant, lambda: difference(call("cpu"), wanted()))


def difference(got: Any, wanted: Any) -> float:
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    finite = np.isfinite(wanted)
    if got.shape != wanted.shape or not np.array_equal(got[~finite], wanted[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = max(float(np.abs(wanted[finite]).max()), 1e-30)
    error = float(np.abs(got[finite] - wanted[finite]).max()) / scale
    return error if error == error else float("inf")  # a NaN where the reference has a number


@functools.cache
def picture(*shape: int) -> tuple[Any, Any]:
    """Noise (C, ...), and two seed sets (2, ...) of three pixels each."""
    rng = np.random.default_rng(0)
    image = rng.random(shape, np.float32)
    seeds = np.zeros((2, *shape[1:]), bool)
    for k, _ in itertools.product(range(2), range(3)):
        seeds[(k, *(int(rng.integers(n)) for n in shape[1:]))] = True
    return image, seeds
