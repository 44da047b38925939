"""A model with and without fastprompt, batch by batch: what its outputs differ by, and its times."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fastprompt._switches import disabled
from fastprompt._text import Progress, table


@dataclass
class Difference:
    """Of one output, over all batches."""

    name: str
    shape: tuple[int, ...]
    max_abs: float = 0.0  # largest |after - before|
    largest: float = 0.0  # largest |before|
    ious: list[float] = field(default_factory=list)  # of every mask; empty: it holds no masks
    cosines: list[float] = field(default_factory=list)  # of every image; empty: it holds no embeddings

    @property
    def relative(self) -> float:
        """``max_abs`` by the largest value of the model itself."""
        return self.max_abs / self.largest if self.largest else math.inf if self.max_abs else 0.0

    @property
    def iou(self) -> float | None:
        """Mean over the masks."""
        return sum(self.ious) / len(self.ious) if self.ious else None

    @property
    def cosine(self) -> float | None:
        """Mean over the images."""
        return sum(self.cosines) / len(self.cosines) if self.cosines else None


@dataclass
class Comparison:
    """What :func:`compare` found; ``print`` it."""

    outputs: list[Difference]
    before: list[float]  # ms of all batches, round by round, with the model itself
    after: list[float]  # and accelerated

    @property
    def ratio(self) -> float:
        """How many times sooner, of the minima."""
        return min(self.before) / min(self.after)

    def __str__(self) -> str:
        rows = [["output", "shape", "max |difference|", "relative", "IoU", "worst", "cosine"]]
        for x in self.outputs:
            numbers = [f"{x.max_abs:.2e}", f"{x.relative:.1e}"]
            numbers += [f"{x.iou:.4f}", f"{min(x.ious):.4f}"] if x.ious else ["", ""]
            rows.append([x.name or "(the output)", str(x.shape), *numbers, f"{x.cosine:.6f}" if x.cosines else ""])
        times = [["", "min ms", "median ms"]]
        for name, spent in (("before", self.before), ("after", self.after)):
            times.append([name, f"{min(spent):.1f}", f"{np.median(spent):.1f}"])
        text = table(rows, right=range(2, 7), indent=0), table(times, right=(1, 2), indent=0)
        return f"{text[0]}\n\n{text[1]}\n{self.ratio:.2f} times, {len(self.before)} rounds interleaved"


def compared(
    model: Any,
    batches: list[Any],
    call: Callable[[Any, Any], Any] | None,
    masks: Sequence[str],
    threshold: float,
    rounds: int,
) -> Comparison:
    call = call or called
    progress = Progress(len(batches) * (1 + rounds))
    try:
        outputs = differences(model, batches, call, masks, threshold, progress)
        before, after = times(model, batches, call, rounds, progress)
    finally:
        progress.close()
    return Comparison(outputs, before, after)


def called(model: Any, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple) else model(batch)


def run(model: Any, batch: Any, call: Callable[[Any, Any], Any], accelerated: bool) -> tuple[Any, float]:
    """The result, and ms."""
    with torch.no_grad(), contextlib.nullcontext() if accelerated else disabled():
        start = time.perf_counter()
        return call(model, batch), 1e3 * (time.perf_counter() - start)


def times(
    model: Any, batches: list[Any], call: Callable[[Any, Any], Any], rounds: int, progress: Progress
) -> tuple[list[float], list[float]]:
    spent: tuple[list[float], list[float]] = ([], [])
    for n in range(rounds):
        sums = [0.0, 0.0]
        for batch in batches:
            progress.step(f"round {n + 1}")
            for accelerated in (n % 2, 1 - n % 2):
                sums[accelerated] += run(model, batch, call, bool(accelerated))[1]
        for kind, total in zip(spent, sums, strict=True):
            kind.append(total)
    return spent


def differences(
    model: Any,
    batches: list[Any],
    call: Callable[[Any, Any], Any],
    masks: Sequence[str],
    threshold: float,
    progress: Progress,
) -> list[Difference]:
    found: dict[str, Difference] = {}
    for n, batch in enumerate(batches):
        progress.step(f"batch {n + 1}")
        both = [dict(tensors(run(model, batch, call, accelerated)[0])) for accelerated in (False, True)]
        before, after = ({name: tuple(x.shape) for name, x in side.items()} for side in both)
        if before != after or not before:
            raise ValueError(f"model must give the same tensors with and without fastprompt, got {before} and {after}")
        for name, a in both[0].items():
            add(found.setdefault(name, Difference(name, before[name])), a, both[1][name], masks, threshold)
    if missing := set(masks) - set(found):
        raise ValueError(f"masks must name outputs, of {sorted(found)}, got {sorted(missing)}")
    return list(found.values())


def tensors(x: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Those in nested dicts, dataclasses, lists and tuples, each with its way there as a name."""
    if isinstance(x, torch.Tensor):
        yield name, x.detach()
    elif isinstance(x, Mapping):
        for key, value in x.items():
            yield from tensors(value, f"{name}.{key}".lstrip("."))
    elif dataclasses.is_dataclass(x) and not isinstance(x, type):
        for key in dataclasses.fields(x):
            yield from tensors(getattr(x, key.name), f"{name}.{key.name}".lstrip("."))
    elif isinstance(x, (list, tuple)):
        for n, value in enumerate(x):
            yield from tensors(value, f"{name}[{n}]")


def add(to: Difference, before: Any, after: Any, masks: Sequence[str], threshold: float) -> None:
    """One more batch."""
    if not before.numel():
        return
    kind, last = before.dtype, to.name.rsplit(".", 1)[-1].lower()
    a, b = before.double(), after.double()
    gap = (b - a).abs().masked_fill(a == b, 0)  # inf - inf is none
    to.max_abs = float(max(to.max_abs, gap.max(), key=nan_first))
    to.largest = float(max(to.largest, a.abs().max(), key=nan_first))
    named = before.ndim >= 3 and ("mask" in last or "logit" in last)
    if before.ndim >= 2 and (to.name in masks or named or kind == torch.bool):
        a, b = ((x > (0 if kind == torch.bool else threshold)).flatten(0, -3).flatten(-2) for x in (a, b))
        union = (a | b).sum(-1)
        to.ious += ((a & b).sum(-1) / union.clamp(min=1)).where(union > 0, 1.0).flatten().tolist()
    elif kind.is_floating_point:
        rows = [x.reshape(before.shape[0] if before.ndim else 1, -1) for x in (a, b)]
        cosines = torch.nn.functional.cosine_similarity(*rows)
        to.cosines += cosines.where((rows[0] != rows[1]).any(1), 1.0).tolist()  # zeros too are what they were


def nan_first(x: Any) -> float:
    return math.inf if math.isnan(float(x)) else float(x)
