"""A measurement on a GPU: what runs, its peers, and the work that no implementation can avoid."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Run = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """``make()`` returns ``ours``, the peers by name, and what ours must give (None: the first peer's result)."""

    operator: str
    shape: str
    make: Callable[[], tuple[Run, dict[str, Run], Any]]
    bytes: float  # each input read once, each output written once
    flops: float
    launches: int
    tolerance: float = 0.0  # of the largest value


def error(got: Any, expected: Any) -> float:
    """Largest difference, as a share of the largest finite value."""
    got, expected = got.double().cpu(), expected.double().cpu()
    finite = expected.isfinite()
    if not bool((finite == got.isfinite()).all()):
        return float("inf")
    scale = float(expected[finite].abs().max()) if bool(finite.any()) else 1.0
    return float((got - expected)[finite].abs().max()) / (scale or 1.0) if bool(finite.any()) else 0.0


def graph_of(call: Run) -> Run:
    """The replay of ``call`` in a CUDA graph: without the gaps between launches."""
    import torch

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def times(calls: dict[str, Run], rounds: int = 20, seconds: float = 1.5) -> dict[str, list[float]]:
    """Microseconds by name, by CUDA events: all calls in turn, round by round, a slow one less often in a row."""
    import time

    import torch

    def measure(call: Run, repeat: int) -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(repeat):
            call()
        end.record()
        end.synchronize()
        return 1e3 * start.elapsed_time(end) / repeat

    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, min(50, int(2000 / max(1.0, min(measure(call, 1) for _ in range(2))))))
    spent: dict[str, list[float]] = {name: [] for name in calls}
    begin = time.perf_counter()
    for n in range(rounds):
        for name in list(calls)[:: -1 if n % 2 else 1]:
            spent[name].append(measure(calls[name], repeats[name]))
        if n >= 2 and time.perf_counter() - begin > seconds:
            break
    return spent


def middle(spent: list[float]) -> float:
    return statistics.median(spent)
