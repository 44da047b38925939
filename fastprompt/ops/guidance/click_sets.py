"""Clicks on their way to a kernel: sets of any size, their labels, and the encoding that is asked for."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from fastprompt._choices import choice
from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array, in_order, integers
from fastprompt.ops._checks import check_devices, check_number

ClickEncoding = Literal["disk", "tanh", "euclidean", "gaussian"]
SigmaUnit = Literal["std", "fwhm", "relative"]
Normalization = Literal["clip", "minmax"]
Rounding = Literal["ritm_cython"]

ENCODINGS = ("disk", "euclidean", "tanh", "gaussian")  # what operators number
BOTH = (1, 0)  # channels: positive, negative
NO_LABEL = -1  # which no channel shows


class Clicks(NamedTuple):
    points: Any  # (B, N, 2) float32, contiguous: x, y; NaN, or both negative = no click
    labels: Any  # (B, N) int64, contiguous
    channels: tuple[int, ...]  # the label that each channel shows
    batched: bool  # whether the caller gave a batch axis


class Encoding(NamedTuple):
    code: int
    scales: tuple[float, ...]  # one map of each for every channel; csrc/guidance/click.h says of what
    clip: float = math.inf
    divisor: float = 1.0
    stretch: bool = False


def arguments(c: Clicks, e: Encoding, size: tuple[int, int], missing: float = math.inf) -> tuple[Any, ...]:
    """Of the operator ``click_map``."""
    return c.points, c.labels, list(c.channels), list(size), e.code, list(e.scales), *e[2:], missing


def check_clicks(points: Any, labels: Any, channels: Any = None, rounding: str | None = None) -> Clicks:
    if is_ragged(points):
        points, labels = padded(points, labels)
    points = as_array("points", points)
    if not is_tensor(points) and points.size == 0 and points.ndim < 3:  # no click at all: []
        points = points.reshape(0, 2)
    if points.ndim not in (2, 3) or points.shape[-1] != 2:
        raise ValueError(f"points must be ([B,] N, 2) of x, y, got shape {tuple(points.shape)}")
    if labels is None:
        if channels is not None:
            raise ValueError("channels needs labels: without labels all clicks go to one channel")
        check_devices(points=points)
        labels, channels = (points.new_zeros if is_tensor(points) else np.zeros)(tuple(points.shape[:-1])), (0,)
    else:
        labels, channels = check_labels(points, labels), check_channels(BOTH if channels is None else channels)
    if is_tensor(points) and points.requires_grad:
        raise ValueError("points must not require a gradient, which the maps have not: call points.detach()")
    choice("rounding", rounding, (*get_args(Rounding), None))
    points = single(points)
    if rounding:
        points = as_the_cython_path(points)
    batched = points.ndim == 3
    full = tuple(points.shape) if batched else (1, *points.shape)
    return Clicks(points.reshape(full), whole(labels).reshape(full[:2]), channels, batched)


def is_ragged(points: Any) -> bool:
    """A list of one (N, 2) set an image."""
    return isinstance(points, (list, tuple)) and any(axes(p) == 2 or shape(p) == (0,) for p in points)


def axes(x: Any) -> int:
    return len(shape(x))


def shape(x: Any) -> tuple[int, ...]:
    """() of nested lists that are no array: somebody else says so."""
    try:
        return tuple(np.shape(x))
    except ValueError:
        return ()


def padded(points: Sequence[Any], labels: Any) -> tuple[Any, Any]:
    """Sets of an image each, as one array with NaN behind the shorter ones, and label -1 there."""
    sets = [as_array(f"points[{b}]", p) for b, p in enumerate(points)]
    sets = [p.reshape(0, 2) if not is_tensor(p) and p.size == 0 else p for p in sets]
    check_devices(**{f"points[{b}]": p for b, p in enumerate(sets)})
    for b, p in enumerate(sets):
        if p.ndim != 2 or p.shape[1] != 2:
            raise ValueError(f"points[{b}] must be (N, 2) of x, y, got shape {tuple(p.shape)}")
    longest = max(len(p) for p in sets)
    out = stacked(sets, longest, math.nan)
    if labels is None:
        return out, None
    if not hasattr(labels, "__len__") or len(labels) != len(sets):
        raise ValueError(f"labels must be one array for each of the {len(sets)} sets of points, got {labels!r}")
    kinds = [check_labels(p, x, f"[{b}]") for b, (p, x) in enumerate(zip(sets, labels, strict=True))]
    return out, stacked([whole(x) for x in kinds], longest, NO_LABEL)


def stacked(arrays: list[Any], longest: int, rest: float) -> Any:
    if is_tensor(arrays[0]):
        import torch

        return torch.nn.utils.rnn.pad_sequence(arrays, batch_first=True, padding_value=rest)
    dtype = np.int64 if rest == NO_LABEL else np.float32
    out = np.full((len(arrays), longest, *arrays[0].shape[1:]), rest, dtype)
    for b, x in enumerate(arrays):
        out[b, : len(x)] = x
    return out


def check_labels(points: Any, labels: Any, which: str = "") -> Any:
    labels = as_array(f"labels{which}", labels)
    check_devices(**{f"points{which}": points, f"labels{which}": labels})
    if tuple(labels.shape) != tuple(points.shape[:-1]):
        want = tuple(points.shape[:-1])
        raise ValueError(f"labels{which} must have one label a point, shape {want}, got {tuple(labels.shape)}")
    return integers(f"labels{which}", labels, NO_LABEL)


def check_channels(channels: Any) -> tuple[int, ...]:
    numbers = tuple(channels) if isinstance(channels, (list, tuple)) else ()
    if not numbers or not all(isinstance(n, (int, np.integer)) for n in numbers):
        raise ValueError(f"channels must be a sequence of labels, one for each channel, got {channels!r}")
    return tuple(int(n) for n in numbers)


def check_size(size: Any) -> tuple[int, int]:
    numbers = tuple(size) if isinstance(size, (tuple, list)) else ()
    if len(numbers) != 2 or not all(isinstance(n, (int, np.integer)) and n >= 0 for n in numbers):
        raise ValueError(f"size must be two integers (height, width), got {size!r}")
    return int(numbers[0]), int(numbers[1])


def single(x: Any) -> Any:
    """float32, contiguous."""
    return x.float().contiguous() if is_tensor(x) else in_order(x, np.float32)


def whole(x: Any) -> Any:
    """int64, contiguous."""
    return x.long().contiguous() if is_tensor(x) else in_order(x, np.int64)


def double(x: Any) -> Any:
    """float64, contiguous."""
    return x.double().contiguous() if is_tensor(x) else in_order(x, np.float64)


def array(x: Any) -> Any:
    """A tensor as NumPy has it."""
    return x.detach().cpu().numpy() if is_tensor(x) else x


def as_the_cython_path(points: Any) -> Any:
    """Half to even, as Python's round, and a slot is empty where the rounded row is negative, whatever the column."""
    if is_tensor(points):
        rounded = points.round()
        return rounded.masked_fill(~(rounded[..., 1:] >= 0), math.nan)
    rounded = np.rint(points)
    return np.where(rounded[..., 1:] >= 0, rounded, np.float32(math.nan))


def check_encoding(
    encoding: str, size: tuple[int, int], radius: Any, sigma: Any, sigma_unit: Any, clip: Any, normalize: Any
) -> Encoding:
    choice("encoding", encoding, ENCODINGS)
    choice("normalize", normalize, (*get_args(Normalization), None))
    choice("sigma_unit", sigma_unit, (*get_args(SigmaUnit), None))
    takes = {"radius": ("disk", "tanh"), "sigma": ("gaussian",), "sigma_unit": ("gaussian",), "clip": ("euclidean",)}
    takes["normalize"] = ("euclidean", "gaussian")
    given = {"radius": radius, "sigma": sigma, "sigma_unit": sigma_unit, "clip": clip, "normalize": normalize}
    for name, value in given.items():
        if value is not None and encoding not in takes[name]:
            raise ValueError(f"{name} is an option of encoding {' and '.join(takes[name])}, not of {encoding!r}")
    code = ENCODINGS.index(encoding)
    if encoding == "disk":
        return Encoding(
            code, tuple(r * r for r in check_positive("radius", 5.0 if radius is None else radius, zero=True))
        )
    if encoding == "tanh":
        return Encoding(code, tuple(2 / r for r in check_positive("radius", 260.0 if radius is None else radius)))
    stretch = normalize == "minmax"
    if encoding == "gaussian":
        if normalize == "clip":
            raise ValueError("normalize must be None or 'minmax' with encoding 'gaussian', got 'clip'")
        return Encoding(
            code, gaussian_factors(10.0 if sigma is None else sigma, sigma_unit or "std", size), stretch=stretch
        )
    if clip is None:
        if normalize == "clip":
            raise ValueError("normalize='clip' divides by clip, which is not given")
        return Encoding(code, (1.0,), stretch=stretch)
    limit = check_positive("clip", clip)[0]
    return Encoding(code, (1.0,), limit, limit if normalize == "clip" else 1.0, stretch)


def gaussian_factors(sigma: Any, unit: str, size: tuple[int, int]) -> tuple[float, ...]:
    widths = check_positive("sigma", sigma)
    if unit == "fwhm":
        return tuple(4 * math.log(2) / w**2 for w in widths)
    side = max(min(size), 1) if unit == "relative" else 1
    return tuple(1 / (2 * (w * side) ** 2) for w in widths)


def check_positive(name: str, value: Any, zero: bool = False) -> tuple[float, ...]:
    """One number or a sequence of them, each > 0 (or 0) and below 1e9, whose square is far from the end of floats."""
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not values:
        raise ValueError(f"{name} must be a number or a sequence of at least one, got {value!r}")
    return tuple(check_number(name, v, 0.0 if zero else 1e-9, 1e9) for v in values)
