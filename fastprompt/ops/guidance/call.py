"""The calls into csrc/guidance. A graph may bring tensors of other dtypes and strides: they are made right here."""

from typing import Any

import numpy as np

from fastprompt import _C
from fastprompt.ops._arrays import contiguous
from fastprompt.ops._operator import Asked
from fastprompt.ops.guidance.click_sets import ENCODINGS, array, double, single, whole
from fastprompt.ops.guidance.gaussians import vector_fields

LARGEST: float = _C.largest_coordinate  # of a vertex


def clicks(
    points: Any,
    labels: Any,
    channels: Any,
    size: Any,
    code: int,
    scales: Any,
    clip: float,
    divisor: float,
    stretch: bool,
    missing: float,
    out: Any,  # (B, channels x scales, H, W), of contiguous images
) -> Asked:
    if not 0 <= code < len(ENCODINGS):
        raise ValueError(f"code must be 0 to {len(ENCODINGS) - 1}, got {code}")
    return _C.click_maps, dict(
        points=single(points), labels=whole(labels), of_labels=np.array(channels, np.int64),
        scale=np.array(scales, np.float32), encoding=ENCODINGS[code], clip=clip, divisor=divisor, missing=missing,
        stretch=stretch, out=out,
    )  # fmt: skip


def boxes(corners: Any, size: Any, distance: bool, offset: float, low: float, high: float, out: Any) -> Asked:
    given = {"corners": single(corners), "distance": distance, "offset": offset, "low": low, "high": high}
    return _C.box_maps, dict(**given, out=out)


def polygons(points: Any, first: Any, size: Any, non_zero: bool, boundary: bool, out: Any) -> Asked:
    check_finite("vertices", array(points))
    given = {"points": double(points), "first": np.array(first, np.int64), "non_zero": non_zero, "boundary": boundary}
    return _C.polygon_masks, dict(**given, out=out)


def scribbles(points: Any, first: Any, labels: Any, channels: Any, size: Any, radius: float, out: Any) -> Asked:
    check_finite("strokes", array(points))
    labels = array(labels)
    channel = np.full(len(labels), -1, np.int64)  # none
    for c, label in enumerate(channels):
        channel[labels == label] = c
    given = {"points": double(points), "first": np.array(first, np.int64), "channel": channel}
    return _C.scribble_map, dict(**given, radius=radius, out=out)


def check_finite(name: str, points: Any) -> None:
    """NumPy. Of tensors the operators ask, for a compiled graph cannot."""
    far = ~(np.abs(points.astype(np.float64, copy=False)) <= LARGEST)  # which float16 cannot hold
    if far.any():
        raise ValueError(f"{name} must be finite and at most {LARGEST:g}, got {points[far][0]:g}")


def superpixels(region: Any, points: Any, labels: Any, channels: Any, clip: float, out: Any) -> None:
    if 0 in out.shape:
        return
    check_superpixels(array(region))
    found = _C.superpixel_map(region=whole(region), **of_regions(points, labels, channels), clip=clip, out=out)
    check_inside(found, points, out)


def proposals(member: Any, points: Any, labels: Any, channels: Any, out: Any) -> None:
    found = _C.proposal_votes(member=contiguous(member), **of_regions(points, labels, channels), out=out)
    check_inside(found, points, out)


def check_superpixels(region: Any) -> Any:
    """NumPy; returned as it is."""
    if region.size == 0:
        return region
    low, high, pixels = int(region.min()), int(region.max()), region.shape[1] * region.shape[2]
    if low < 0 or high >= pixels:
        bad = low if low < 0 else high
        raise ValueError(f"superpixels must be between 0 and the number of pixels - 1 = {pixels - 1}, got {bad}")
    return region


def of_regions(points: Any, labels: Any, channels: Any) -> dict[str, Any]:
    return {"points": single(points), "labels": whole(labels), "of_labels": np.array(channels, np.int64)}


def check_inside(bad: int, points: Any, out: Any) -> None:
    if bad >= 0:
        b, k = divmod(bad, points.shape[1])
        x, y = (float(n) for n in points[b, k])
        height, width = out.shape[2:]
        raise ValueError(f"points must lie in the image of {width} x {height} pixels, got {x:g}, {y:g} in image {b}")


def vectors(*args: Any) -> Asked:
    *given, out = args
    fields = vector_fields(*map(array, given))
    height, width = fields.pop("size")
    return _C.prompt_vectors, dict(**fields, height=height, width=width, out=out.reshape(-1, out.shape[-1]))
