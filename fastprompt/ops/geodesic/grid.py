"""Images on a grid: the checks of the geodesic family, and the way to the five axes (batch, channel, z, y, x)."""

import math
import numbers
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

from fastprompt import _C
from fastprompt._choices import choice
from fastprompt.ops._checks import check_number

Metric = Literal["fastgeodis", "geodistk", "geodistk_fm"]
Method = Literal["raster", "toivanen", "exact"]
COLOURS = 3  # channels of a picture, which is no volume
METRICS, METHODS = get_args(Metric), get_args(Method)
MOST_ITERATIONS: int = _C.most_iterations


class Options(NamedTuple):
    """The numbers of one call, checked, in the order of the operator; ``step_weight`` is 1 - lam unless a caller rounds
    it otherwise."""

    metric: Metric
    method: Method
    iterations: int
    lam: float
    step_weight: float
    spacing: tuple[float, ...]  # one per spatial axis
    v: float
    limit: float

    @property
    def dims(self) -> int:
        return len(self.spacing)


def check_options(
    image: Any,
    *,
    metric: Metric = "fastgeodis",
    lam: float = 1.0,
    method: Method = "exact",
    iterations: int | None = None,
    spacing: float | Sequence[float] = 1.0,
    v: float = math.inf,
    max_distance: float = math.inf,
    dims: int | None = None,
) -> Options:
    sizes = check_spacing(spacing, dims, image.ndim)
    check_how(metric, method)
    if iterations is None:
        iterations = 2 if len(sizes) == 2 else 4
    elif isinstance(iterations, bool) or not isinstance(iterations, numbers.Integral):
        raise TypeError(f"iterations must be an int, got {iterations!r}")
    check_iterations(iterations)
    lam = check_number("lam", lam, 0.0, 1.0)
    v = check_number("v", v, 0.0, math.inf)
    limit = check_number("max_distance", max_distance, 0.0, math.inf)
    return Options(metric, method, int(iterations), lam, 1.0 - lam, sizes, v, limit)


def check_how(metric: Any, method: Any) -> None:
    choice("metric", metric, METRICS)
    choice("method", method, METHODS)


def check_iterations(iterations: Any) -> None:
    if not 0 <= iterations <= MOST_ITERATIONS:
        raise ValueError(f"iterations must be between 0 and {MOST_ITERATIONS}, got {iterations}")


def check_settings(
    metric: str, method: str, iterations: int, lam: float, step_weight: float, spacing: Any, v: float, limit: float
) -> None:
    """Of the operators, by the rules of ``csrc/geodesic/check.h``: the reference has costs that fall for ever, too."""
    check_how(metric, method)
    check_iterations(iterations)
    for name, value, most in (("lam", lam, 1.0), ("step_weight", step_weight, 1.0), ("v", v, math.inf)):
        check_number(name, value, 0.0, most)
    check_number("limit", limit, 0.0, math.inf)
    check_sizes(spacing, (2, 3))


def check_sizes(spacing: Any, counts: tuple[int, ...]) -> Any:
    """``spacing`` of an operator, which is one number for each axis."""
    if len(spacing) not in counts:
        raise ValueError(f"spacing must be {' or '.join(map(str, counts))} numbers, got {len(spacing)}")
    if not all(0.0 < s < math.inf for s in spacing):
        raise ValueError(f"spacing must be positive and finite, got {spacing!r}")
    return spacing


def check_spacing(spacing: Any, dims: int | None, image_axes: int) -> tuple[float, ...]:
    """Pixel sizes, one per spatial axis; their number decides between 2-D and 3-D."""
    choice("dims", dims, (2, 3, None))
    if isinstance(spacing, numbers.Real):
        sizes = (float(spacing),) * (dims or (3 if image_axes == 5 else 2))
    else:
        try:
            sizes = tuple(float(s) for s in spacing)
        except (TypeError, ValueError):
            raise TypeError(f"spacing must be a number or a sequence of numbers, got {spacing!r}") from None
        if len(sizes) != (dims or len(sizes)) or len(sizes) not in (2, 3):
            hint = "; a volume needs dims=3" if dims == 2 and len(sizes) == 3 else ""
            raise ValueError(f"spacing must be one number or {dims or '2 or 3'} numbers, got {len(sizes)}{hint}")
    if not all(0.0 < s < math.inf for s in sizes):
        raise ValueError(f"spacing must be positive and finite, got {spacing!r}")
    return sizes


def warn_of_volume(image: Any, seeds: Any, *, dims: int | None = None, spacing: Any = 1.0, **others: Any) -> None:
    """Where image and seeds could be volumes as well as channels and seed sets, and nobody says which."""
    said = dims is not None or not isinstance(spacing, numbers.Real) or image.ndim not in (3, 4) or seeds.ndim < 3
    if said or image.shape[-3] <= COLOURS or tuple(image.shape[-3:]) != tuple(seeds.shape[-3:]):
        return
    torch = sys.modules.get("torch")
    if torch is not None and torch.compiler.is_compiling():  # a warning would break the graph
        return
    n = image.shape[-3]
    hint = "say dims=2, or dims=3 where they are volumes"
    warnings.warn(f"image {tuple(image.shape)} is taken for {n} channels and seeds for {n} sets: {hint}", stacklevel=3)


def five_axes(name: str, x: Any, dims: int) -> Any:
    """``x`` as (batch, channel, z, y, x): a missing batch, channel or z axis becomes one of size 1."""
    if not dims <= x.ndim <= dims + 2:
        axes = "[B,] [C,] H, W" if dims == 2 else "[B,] [C,] D, H, W"
        raise ValueError(f"{name} must have {dims} to {dims + 2} axes ({axes}), got shape {tuple(x.shape)}")
    x = x[(None,) * (dims + 2 - x.ndim)]
    return x if dims == 3 else x[:, :, None]


def check_shapes(image: Any, start: Any, walls: Any, name: str, dims: int) -> int:
    """Five-axis arrays must agree on the pixels; a batch of one fits every batch. Returns the batch size."""
    batch = image.shape[0]
    for other, x in ((name, start), ("barriers", walls)):
        if x is None:
            continue
        pixels, want = tuple(x.shape[5 - dims :]), tuple(image.shape[5 - dims :])
        if pixels != want:
            hint = "; channels come first, e.g. image.transpose(2, 0, 1)" if image.shape[-1] <= 4 < pixels[-1] else ""
            raise ValueError(f"{other} must have the image's {dims} spatial sizes {want}, got {pixels}{hint}")
        if batch == 1 and x is start:
            batch = x.shape[0]
        if x.shape[0] not in (1, batch):
            raise ValueError(f"{other} must have the image's batch size {batch} or 1, got {x.shape[0]}")
    if image.shape[1] == 0:
        raise ValueError(f"image must have at least one channel, got shape {tuple(image.shape)}")
    if walls is not None and walls.shape[1] != 1:
        raise ValueError(f"barriers must have one channel, got {walls.shape[1]}")
    return batch
