"""The operators of guidance: shapes and kernels. None has a gradient."""

from typing import Any

from fastprompt._later import Later
from fastprompt._runtime import is_tensor
from fastprompt.ops._operator import Operator
from fastprompt.ops.guidance import call
from fastprompt.ops.guidance.gaussians import vector_fields, vector_size

reference = Later("fastprompt.reference.guidance")
maps, regions = Later("fastprompt.kernels.guidance"), Later("fastprompt.kernels.guidance_regions")


def check_real(*args: Any) -> None:
    """What the calls convert loses nothing but digits."""
    for x in args:
        if is_tensor(x) and x.is_complex():
            raise TypeError(f"tensors must hold real numbers, got {x.dtype}")


def check_clicks(*args: Any) -> None:
    check_real(*args)
    if not args[-1] >= 0:
        raise ValueError(f"missing must be a squared distance, at least 0, got {args[-1]}")


click_map = Operator(
    "click_map(Tensor points, Tensor labels, int[] channels, int[] size, int code, float[] scales, float clip, "
    "float divisor, bool stretch, float missing) -> Tensor",
    axes="points real: images clicks 2, labels whole: images clicks, size: 2",
    out=lambda points, labels, channels, size, code, scales, *rest: (
        (points.shape[0], len(channels) * len(scales), *size),
        "float32",
    ),
    call=call.clicks,
    check=check_clicks,
    reference=reference.click_map,
    gpu=maps.click_map,
)

box_map = Operator(
    "box_map(Tensor corners, int[] size, bool distance, float offset, float low, float high) -> Tensor",
    axes="corners real: _ _ 4, size: 2",
    out=lambda corners, size, *rest: ((corners.shape[0], 1, *size), "float32"),
    call=call.boxes,
    check=check_real,
    reference=reference.box_map,
    gpu=maps.box_map,
)

polygon_mask = Operator(
    "polygon_mask(Tensor points, int[] first, int[] size, bool non_zero, bool boundary) -> Tensor",
    axes="points real: _ _ 2, size: 2",
    out=lambda points, first, size, *rest: ((points.shape[0], *size), "bool"),
    call=call.polygons,
    check=check_real,
    reference=reference.polygon_mask,
)

scribble_map = Operator(
    "scribble_map(Tensor points, int[] first, Tensor labels, int[] channels, int[] size, float radius) -> Tensor",
    axes=lambda points, first, *rest: f"points real: _ 2, labels whole: {max(len(first) - 1, 0)}, size: 2",
    out=lambda points, first, labels, channels, size, radius: ((len(channels), *size), "float32"),
    call=call.scribbles,
    check=check_real,
    reference=reference.scribble_map,
)

superpixel_map = Operator(
    "superpixel_map(Tensor region, Tensor points, Tensor labels, int[] channels, float clip) -> Tensor",
    axes="region whole: images _ _, points real: images clicks 2, labels whole: images clicks",
    out=lambda region, points, labels, channels, clip: (
        (region.shape[0], len(channels), *region.shape[1:]),
        "float32",
    ),
    call=call.superpixels,
    check=check_real,
    reference=lambda region, *rest: reference.superpixel_map(call.check_superpixels(region), *rest),
    gpu=regions.superpixel_map,
)

proposal_vote_map = Operator(
    "proposal_vote_map(Tensor member, Tensor points, Tensor labels, int[] channels) -> Tensor",
    axes="member bytes: images _ _ _, points real: images clicks 2, labels whole: images clicks",
    out=lambda member, points, labels, channels: ((member.shape[0], len(channels), *member.shape[2:]), "float32"),
    call=call.proposals,
    check=check_real,
    reference=reference.proposal_vote_map,
    gpu=regions.proposal_vote_map,
)


def of_vectors(points: Any, labels: Any, extents: Any, size: Any, sigma: float, heighten: bool, *rest: Any) -> Any:
    return (*points.shape[:2], sum(vector_size(size, rest[0])) + 3), "float32"


def reference_vectors(points: Any, *rest: Any) -> Any:
    found = reference.prompt_vectors(**vector_fields(points, *rest))
    return found.reshape(*points.shape[:2], found.shape[1])


prompt_unified_encoding = Operator(
    "prompt_unified_encoding(Tensor points, Tensor labels, Tensor? extents, int[] size, float sigma, bool heighten, "
    "float scale, bool compat) -> Tensor",
    axes="points real: images clicks 2, labels whole: images clicks, extents real: images clicks 2, size: 2",
    out=of_vectors,
    call=call.vectors,
    check=check_real,
    reference=reference_vectors,
)
