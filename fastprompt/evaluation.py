"""The standard evaluation of interactive segmentation: click until the mask is good enough, and count."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastprompt._runtime import is_tensor
from fastprompt._text import Progress
from fastprompt.metrics._accumulator import check_thresholds
from fastprompt.metrics._operators import overlap_counts
from fastprompt.metrics.clicks import ClickMetrics, check_clicks
from fastprompt.ops._arrays import as_array
from fastprompt.ops._binary import labelled, prediction
from fastprompt.ops._checks import check_number
from fastprompt.ops.clicks.operators import next_click
from fastprompt.ops.clicks.simulator import check_side, click_of

Predictor = Callable[..., Any]


@dataclass(frozen=True)
class ClickResults:
    """What :func:`evaluate_clicks` found, sample by sample in their order."""

    curves: list[Any]  # IoU after click 1, 2, …, float64
    clicks: list[Any]  # (n, 3) int64: x, y, label
    metrics: ClickMetrics  # compute() gives NoC and NoF; those of several processes can be added

    def compute(self, *, strict: bool = False) -> dict[str, float]:
        return self.metrics.compute(strict=strict)


@dataclass(frozen=True)
class Protocol:
    """The options that a curve depends on."""

    max_clicks: int
    min_clicks: int
    stop_at: float
    threshold: float
    ignore: int | None
    previous_mask: bool
    compat: bool


def evaluate_clicks(
    predictor: Predictor,
    samples: Iterable[tuple[Any, Any]],
    *,
    thresholds: Sequence[float] = (0.8, 0.85, 0.9, 0.95),
    max_clicks: int = 20,
    min_clicks: int = 1,
    stop_at: float | None = None,
    threshold: float = 0.49,
    ignore: int | None = None,
    previous_mask: bool = False,
    compat: bool = False,
    results: str | os.PathLike[str] | None = None,
    name: str = "",
    progress: bool = True,
) -> ClickResults:
    """Clicks on every sample as :func:`next_click` says until the mask reaches ``stop_at``, and counts the clicks.

    Args:
        predictor: ``predictor(image, points, labels)`` gives the mask (H, W), bool or integers, or its probability,
            floats, of an image after these clicks, NumPy or torch, on any device; leading axes of size 1 are dropped.
            ``points`` are all clicks so far, (n, 2) int64, x and y; ``labels`` (n,) int64, 1 positive, 0 negative.
        samples: pairs ``(image, target)``: the image goes to the predictor as it is; the target is (H, W), non-zero =
            inside, and not empty. Of a sequence, only those without results are read.
        thresholds: X of NoC@X and NoF@X.
        max_clicks: after them a sample is given up.
        min_clicks: clicks to make even if ``stop_at`` is reached sooner.
        stop_at: the IoU that ends a sample; default the largest threshold. Curves end there: nothing above it can be
            read from them.
        threshold: of a probability; published code takes 0.49.
        ignore: pixels with this value of the target are no errors and do not count.
        previous_mask: call ``predictor(image, points, labels, previous)`` with what it returned last, None at first.
        compat: where no error is left, go on with a negative click at (0, 0), as published code does, instead of ending
            the sample.
        results: a file (JSON lines) that gets each sample as soon as it is done, in one write. A run that was killed
            goes on from there; a torn last line is dropped.
        name: of model and data, kept in the file: results of another name or other options are refused.
        progress: a bar on stderr, which stays quiet where that is no terminal.

    Returns:
        :class:`ClickResults`. The same for the same predictor, resumed or not.

    Raises:
        ValueError, TypeError: naming the argument, or the sample, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> target = np.zeros((20, 30), bool); target[5:15, 5:25] = True
        >>> def disks(image, points, labels):
        ...     y, x = np.mgrid[:20, :30]
        ...     return np.any([(x - a) ** 2 + (y - b) ** 2 < 30 for (a, b), l in zip(points, labels) if l], axis=0)
        >>> found = fp.evaluate_clicks(disks, [(None, target)], thresholds=[0.7], max_clicks=5)
        >>> len(found.curves[0]), found.compute()["noc@0.7"]
        (2, 2.0)

    Source: RITM (Sofiiuk et al., 2022), ``evaluate_dataset`` and ``evaluate_sample``.
    """
    metrics = ClickMetrics(thresholds=thresholds, max_clicks=max_clicks)
    stop = max(metrics.options["thresholds"]) if stop_at is None else check_thresholds(stop_at, "stop_at")[0]
    bound = check_number("threshold", threshold, -np.inf, np.inf)
    most, first = check_clicks(max_clicks), check_clicks(min_clicks, "min_clicks")
    rules = Protocol(most, first, stop, bound, ignore, bool(previous_mask), bool(compat))
    file = None if results is None else ResultsFile(Path(results), {"name": name, **vars(rules)})
    done = {} if file is None else file.read()
    bar = Progress(len(samples)) if progress and isinstance(samples, Sized) else None
    try:
        number = 0
        for number, sample in enumerate(read(samples, done), 1):
            if bar:
                bar.step(f"sample {number}")
            if number - 1 in done:
                continue
            image, target = sample
            found = done[number - 1] = evaluate_one(predictor, image, target, rules, number - 1)
            if file:
                file.append(number - 1, *found)
    finally:
        if bar:
            bar.close()
    curves, made = [], []
    for k in range(number):
        curve, history = done[k]
        metrics.update(curve)
        curves.append(np.array(curve, np.float64))
        made.append(np.array(history, np.int64).reshape(-1, 3))
    return ClickResults(curves, made, metrics)


def read(samples: Any, done: dict[int, Any]) -> Iterator[Any]:
    """The samples; None for those of a sequence that are done."""
    if not (hasattr(samples, "__len__") and hasattr(samples, "__getitem__")):
        yield from samples
        return
    for k in range(len(samples)):
        yield None if k in done else samples[k]


def evaluate_one(predictor: Predictor, image: Any, target: Any, rules: Protocol, number: int) -> tuple[Any, Any]:
    """The IoU after each click, and the clicks."""
    labels, code, shape = check_target(target, rules.ignore, number)
    pred, bound, out = np.zeros(shape, bool), 0.0, None
    curve: list[float] = []
    made: list[list[int]] = []
    while len(curve) < rules.max_clicks:
        taken = np.array([click[:2] for click in made], np.int32).reshape(1, -1, 2)
        row = next_click(pred[None], labels[None], taken, bound, code)[0].tolist()
        click = click_of(row, rules.compat)
        if click is None:
            break
        made.append([click.x, click.y, click.label])
        history = np.array(made, np.int64)
        previous = (out,) if rules.previous_mask else ()
        out = predictor(image, history[:, :2].copy(), history[:, 2].copy(), *previous)
        pred, bound = check_output(out, rules.threshold, shape, number)
        counts = overlap_counts(pred.reshape(1, -1), labels.reshape(1, -1), bound, code)[0]
        both, in_pred, in_target, _ = counts.tolist()
        union = in_pred + in_target - both
        curve.append(both / union if union else 1.0)
        if curve[-1] >= rules.stop_at and len(curve) >= rules.min_clicks:
            break
    return curve, made


def check_target(target: Any, ignore: int | None, number: int) -> tuple[Any, int, tuple[int, ...]]:
    target = as_array("target", target)
    if is_tensor(target):
        target = target.detach().cpu().numpy()
    if target.ndim != 2:
        raise ValueError(f"the target of sample {number} must be (H, W), got shape {target.shape}")
    check_side(f"the target of sample {number}", target)
    labels, code = labelled(target, ignore)
    inside = labels != 0 if code < 0 else (labels != 0) & (labels != code)
    if not inside.any():
        raise ValueError(f"the target of sample {number} is empty: there is nothing to click on")
    return labels, code, target.shape


def check_output(out: Any, threshold: float, shape: tuple[int, ...], number: int) -> tuple[Any, float]:
    """A prediction as the kernels read it."""
    out = as_array("the prediction", out)
    if is_tensor(out):
        out = out.detach().cpu()
        out = (out.float() if out.dtype.itemsize < 4 and out.is_floating_point() else out).numpy()
    if out.shape[-2:] != shape or out.size != shape[0] * shape[1]:
        raise ValueError(f"the prediction for sample {number} must have shape {shape}, got {out.shape}")
    return prediction(out.reshape(shape), threshold if out.dtype.kind == "f" else None)


def check_result(sample: Any, curve: Any, made: Any, most: int) -> None:
    """What a file says of one sample."""
    if type(sample) is not int or sample < 0:
        raise ValueError(f"sample must be an integer of at least 0, got {sample!r}")
    if not isinstance(curve, list) or not 1 <= len(curve) <= most:
        raise ValueError(f"iou must be a list of 1 to {most} numbers, got {curve!r}")
    if not all(type(x) in (int, float) and 0 <= x <= 1 for x in curve):
        raise ValueError(f"iou must hold numbers from 0 to 1, got {curve!r}")
    if not isinstance(made, list) or len(made) != len(curve) or not all(map(is_click, made)):
        raise ValueError(f"clicks must be x, y and label (0 or 1) of each of {len(curve)} clicks, got {made!r}")


def is_click(x: Any) -> bool:
    return isinstance(x, list) and len(x) == 3 and all(type(n) is int and n >= 0 for n in x) and x[2] <= 1


class ResultsFile:
    """One line with the options, then one for each sample."""

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        self.path, self.options = path, json.loads(json.dumps(options))

    def read(self) -> dict[int, tuple[Any, Any]]:
        """What earlier runs found; makes the file, or cuts a torn end off it."""
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        lines = [self._parse(k, line) for k, line in enumerate(whole.splitlines(), 1)]
        if whole != data or not lines:
            self._replace(whole or json.dumps({"options": self.options}).encode() + b"\n")
        return {line["sample"]: (line["iou"], line["clicks"]) for line in lines[1:]}

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            found = json.loads(line.decode("utf-8"))
            if not ({"options"} if number == 1 else {"sample", "iou", "clicks"}) <= set(found):
                raise ValueError("fields are missing")
            if number > 1:
                check_result(found["sample"], found["iou"], found["clicks"], self.options["max_clicks"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"results: line {number} of {self.path} is no result: {error}") from None
        if number == 1 and found["options"] != self.options:
            said = found["options"]
            raise ValueError(f"results: {self.path} holds other options: {said}, expected {self.options}")
        return dict(found)

    def _replace(self, data: bytes) -> None:
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        new.write_bytes(data)
        os.replace(new, self.path)

    def append(self, number: int, curve: Any, made: Any) -> None:
        line = json.dumps({"sample": number, "iou": curve, "clicks": made}) + "\n"
        with open(self.path, "ab", buffering=0) as file:  # one write: a kill comes before or after it
            if file.write(line.encode()) != len(line):
                raise OSError(f"results: {self.path} is not writable any more")
