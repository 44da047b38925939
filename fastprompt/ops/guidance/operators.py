"""The guidance operators in torch: registration and shapes. None has a gradient."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastprompt import _gpu
from fastprompt.ops._library import define, or_reference
from fastprompt.ops.guidance import call as _guidance
from fastprompt.ops.guidance import regions as regions
from fastprompt.ops.guidance import strokes as strokes
from fastprompt.ops.guidance import vectors as prompt_vectors
from fastprompt.ops.guidance.click_sets import Clicks, Encoding, single, whole

# ---------------------------------------------------------------- clicks


def _clicks_fake(
    points: Tensor, labels: Tensor, channels: list[int], size: list[int], code: int, scales: list[float], *rest: Any
) -> Tensor:
    return points.new_empty((points.shape[0], len(channels) * len(scales), *size), dtype=torch.float32)


def _clicks_cpu(
    points: Tensor, labels: Tensor, channels: list[int], size: list[int], code: int, scales: list[float], *rest: Any
) -> Tensor:
    clip, divisor, stretch, missing = rest
    out = _clicks_fake(points, labels, channels, size, code, scales)
    c = Clicks(single(points), whole(labels), tuple(channels), True)
    _guidance.clicks(c, Encoding(code, tuple(scales), clip, divisor, stretch), out, missing)
    return out


def _clicks_gpu(
    points: Tensor, labels: Tensor, channels: list[int], size: list[int], code: int, scales: list[float], *rest: Any
) -> Tensor:
    clip, divisor, stretch, missing = rest
    out = _clicks_fake(points, labels, channels, size, code, scales)
    c = Clicks(points, labels, tuple(channels), True)
    _guidance.clicks_on_gpu(c, Encoding(code, tuple(scales), clip, divisor, stretch), out, missing)
    return out


_click_map = define(
    "click_map(Tensor points, Tensor labels, int[] channels, int[] size, int code, float[] scales, float clip, "
    "float divisor, bool stretch, float missing) -> Tensor",
    cpu=_clicks_cpu,
    fake=_clicks_fake,
    gpu=or_reference(_clicks_cpu, _clicks_gpu),
)


def clicks(c: Clicks, encoding: Encoding, size: tuple[int, int], missing: float) -> Tensor:
    e, channels = encoding, list(c.channels)
    options = e.code, list(e.scales), e.clip, e.divisor, e.stretch, missing
    return _click_map(c.points, c.labels, channels, list(size), *options)


# ---------------------------------------------------------------- boxes


def _boxes_fake(corners: Tensor, size: list[int], *options: Any) -> Tensor:
    return corners.new_empty((corners.shape[0], 1, *size), dtype=torch.float32)


def _boxes_cpu(corners: Tensor, size: list[int], distance: bool, offset: float, low: float, high: float) -> Tensor:
    out = _boxes_fake(corners, size)
    _guidance.boxes(single(corners), distance, offset, low, high, out)
    return out


def _boxes_gpu(corners: Tensor, size: list[int], distance: bool, offset: float, low: float, high: float) -> Tensor:
    out = _boxes_fake(corners, size)
    _guidance.boxes_on_gpu(corners, distance, offset, low, high, out)
    return out


box_map = define(
    "box_map(Tensor corners, int[] size, bool distance, float offset, float low, float high) -> Tensor",
    cpu=_boxes_cpu,
    fake=_boxes_fake,
    gpu=or_reference(_boxes_cpu, _boxes_gpu),
)

# ---------------------------------------------------------------- strokes


def _polygons_fake(points: Tensor, first: list[int], size: list[int], *options: Any) -> Tensor:
    return points.new_empty((points.shape[0], *size), dtype=torch.bool)


def _polygons_cpu(points: Tensor, first: list[int], size: list[int], non_zero: bool, boundary: bool) -> Tensor:
    strokes.check_finite("vertices", points.numpy())
    out = _polygons_fake(points, first, size)
    _guidance.polygons(points.double().contiguous(), np.array(first, np.int64), non_zero, boundary, out)
    return out


polygons = define(
    "polygon_mask(Tensor points, int[] first, int[] size, bool non_zero, bool boundary) -> Tensor",
    cpu=_polygons_cpu,
    fake=_polygons_fake,
)


def _scribbles_fake(
    points: Tensor, first: list[int], labels: Tensor, channels: list[int], size: list[int], radius: float
) -> Tensor:
    return points.new_empty((len(channels), *size), dtype=torch.float32)


def _scribbles_cpu(
    points: Tensor, first: list[int], labels: Tensor, channels: list[int], size: list[int], radius: float
) -> Tensor:
    strokes.check_finite("strokes", points.numpy())
    out = _scribbles_fake(points, first, labels, channels, size, radius)
    strokes.draw(points.double().contiguous(), first, labels, tuple(channels), radius, out)
    return out


_scribble_map = define(
    "scribble_map(Tensor points, int[] first, Tensor labels, int[] channels, int[] size, float radius) -> Tensor",
    cpu=_scribbles_cpu,
    fake=_scribbles_fake,
)


def scribbles(points: Tensor, first: list[int], labels: Any, channels: Any, size: Any, radius: float) -> Tensor:
    return _scribble_map(points, first, torch.as_tensor(labels), list(channels), list(size), radius)


# ---------------------------------------------------------------- regions


def _superpixels_fake(region: Tensor, points: Tensor, labels: Tensor, channels: list[int], clip: float) -> Tensor:
    return region.new_empty((region.shape[0], len(channels), *region.shape[1:]), dtype=torch.float32)


def _superpixels_cpu(region: Tensor, points: Tensor, labels: Tensor, channels: list[int], clip: float) -> Tensor:
    out = _superpixels_fake(region, points, labels, channels, clip)
    c = Clicks(single(points), whole(labels), tuple(channels), True)
    regions.fill_superpixels(whole(region), c, clip, out)
    return out


def _superpixels_gpu(region: Tensor, points: Tensor, labels: Tensor, channels: list[int], clip: float) -> Tensor:
    kernels = _gpu.kernels("guidance_regions")
    return kernels.superpixel_map(whole(region), single(points), whole(labels), channels, clip)


_superpixel_map = define(
    "superpixel_map(Tensor region, Tensor points, Tensor labels, int[] channels, float clip) -> Tensor",
    cpu=_superpixels_cpu,
    fake=_superpixels_fake,
    gpu=or_reference(_superpixels_cpu, _superpixels_gpu),
)


def superpixels(region: Tensor, c: Clicks, clip: float) -> Tensor:
    return _superpixel_map(region, c.points, c.labels, list(c.channels), clip)


def _proposals_fake(member: Tensor, points: Tensor, labels: Tensor, channels: list[int]) -> Tensor:
    return member.new_empty((member.shape[0], len(channels), *member.shape[2:]), dtype=torch.float32)


def _proposals_cpu(member: Tensor, points: Tensor, labels: Tensor, channels: list[int]) -> Tensor:
    out = _proposals_fake(member, points, labels, channels)
    c = Clicks(single(points), whole(labels), tuple(channels), True)
    _guidance.proposals(member.contiguous(), c, out)
    return out


def _proposals_gpu(member: Tensor, points: Tensor, labels: Tensor, channels: list[int]) -> Tensor:
    kernels = _gpu.kernels("guidance_regions")
    masks = member.contiguous().view(torch.uint8)
    return kernels.proposal_vote_map(masks, single(points), whole(labels), channels)


_proposal_vote_map = define(
    "proposal_vote_map(Tensor member, Tensor points, Tensor labels, int[] channels) -> Tensor",
    cpu=_proposals_cpu,
    fake=_proposals_fake,
    gpu=or_reference(_proposals_cpu, _proposals_gpu),
)


def proposals(member: Tensor, c: Clicks) -> Tensor:
    return _proposal_vote_map(member, c.points, c.labels, list(c.channels))


# ---------------------------------------------------------------- vectors


def _vectors_fake(
    points: Tensor, labels: Tensor, extents: Tensor | None, size: list[int], sigma: float, heighten: bool, scale: float,
    compat: bool,
) -> Tensor:  # fmt: skip
    length = sum(prompt_vectors.vector_size((size[0], size[1]), scale)) + 3
    return points.new_empty((*points.shape[:2], length), dtype=torch.float32)


def _vectors_cpu(points: Tensor, labels: Tensor, extents: Tensor | None, *options: Any) -> Tensor:
    arrays: list[Any] = [None if x is None else x.numpy() for x in (points, labels, extents)]
    found: Any = prompt_vectors.vectors(*arrays, *options)
    return torch.from_numpy(found)


vectors = define(
    "prompt_unified_encoding(Tensor points, Tensor labels, Tensor? extents, int[] size, float sigma, bool heighten, "
    "float scale, bool compat) -> Tensor",
    cpu=_vectors_cpu,
    fake=_vectors_fake,
)
