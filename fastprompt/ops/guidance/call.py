"""The calls into csrc/guidance and, on a GPU, kernels/guidance.py: each fills maps that somebody else has made, NumPy
arrays and torch tensors alike."""

import math
import sys
from typing import Any

import numpy as np

from fastprompt import _C, _gpu
from fastprompt._runtime import current_backend, get_num_threads, is_tensor
from fastprompt.ops._arrays import address
from fastprompt.ops.guidance.click_sets import Clicks, Encoding, single


def image_stride(out: Any) -> int:
    """Floats from image to image of ``out`` (B, C, H, W), whose images are contiguous."""
    return int(out.stride(0) if is_tensor(out) else out.strides[0] // out.itemsize)


def array(x: Any) -> Any:
    return x.detach().cpu().numpy() if is_tensor(x) else x


def put(out: Any, values: Any) -> None:
    """For the references, which compute a new array."""
    if is_tensor(out):
        out.copy_(out.new_tensor(values))
    else:
        out[...] = values


def clicks(c: Clicks, encoding: Encoding, out: Any, missing: float = math.inf) -> None:
    """``out``: (B, channels x scales, H, W)."""
    if current_backend() == "reference":
        from fastprompt.reference import guidance as reference

        put(out, reference.click_map(array(c.points), array(c.labels), c.channels, encoding, out.shape[2:], missing))
        return
    if _gpu.is_cuda(out):
        with sys.modules["torch"].cuda.device_of(out):
            return clicks_on_gpu(c, encoding, out, missing)
    labels, scales = np.array(c.channels, np.int64), np.array(encoding.scales, np.float32)
    arrays = address(c.points), address(c.labels), address(labels), address(scales), address(out)
    sizes = *c.points.shape[:2], len(labels), len(scales), *out.shape[2:], image_stride(out)
    numbers = encoding.code, encoding.clip, encoding.divisor, missing, encoding.stretch
    _C.click_maps(sizes, arrays, *numbers, get_num_threads())


def clicks_on_gpu(c: Clicks, e: Encoding, out: Any, missing: float = math.inf) -> None:
    options = e.code, e.scales, e.clip, e.divisor, e.stretch, missing
    _gpu.kernels("guidance").click_maps(single(c.points), rows(c.labels), c.channels, out, *options)


def rows(labels: Any) -> Any:
    """Labels whose last axis is contiguous: a kernel takes one row for all images."""
    return labels if labels.stride(1) == 1 or labels.shape[1] <= 1 else labels.contiguous()


def boxes(corners: Any, distance: bool, offset: float, low: float, high: float, out: Any) -> None:
    """``corners`` (B, N, 4) float32, contiguous; ``out`` (B, 1, H, W)."""
    if current_backend() == "reference":
        from fastprompt.reference import guidance as reference

        put(out, reference.box_map(array(corners), distance, offset, low, high, out.shape[2:]))
        return
    if _gpu.is_cuda(out):
        with sys.modules["torch"].cuda.device_of(out):
            return boxes_on_gpu(corners, distance, offset, low, high, out)
    sizes = *corners.shape[:2], *out.shape[2:], image_stride(out)
    _C.box_maps(sizes, (address(corners), address(out)), distance, (offset, low, high), get_num_threads())


def boxes_on_gpu(corners: Any, distance: bool, offset: float, low: float, high: float, out: Any) -> None:
    _gpu.kernels("guidance").box_maps(single(corners), out, distance, offset, low, high)


def polygons(vertices: Any, first: Any, non_zero: bool, boundary: bool, out: Any) -> None:
    """``vertices`` (B, V, 2) float64 and ``first`` (rings + 1) int64, contiguous; ``out`` (B, H, W) bool."""
    if current_backend() == "reference":
        from fastprompt.reference import guidance as reference

        put(out, reference.polygon_mask(array(vertices), array(first), non_zero, boundary, out.shape[1:]))
        return
    sizes = *vertices.shape[:2], len(first) - 1, *out.shape[1:]
    arrays = address(vertices), address(first), address(out)
    _C.polygon_masks(sizes, arrays, non_zero, boundary, get_num_threads())


def scribbles(points: Any, first: Any, channel: Any, radius: float, out: Any) -> None:
    """``points`` (P, 2) float64, ``first`` (strokes + 1) and ``channel`` (strokes) int64; ``out`` (C, H, W)."""
    if current_backend() == "reference":
        from fastprompt.reference import guidance as reference

        put(out, reference.scribble_map(array(points), array(first), array(channel), radius, out.shape))
        return
    arrays = address(points), address(first), address(channel), address(out)
    _C.scribble_map((len(channel), *out.shape), arrays, radius)


def superpixels(region: Any, count: int, c: Clicks, clip: float, out: Any) -> None:
    """``region`` (B, H, W) int64 in [0, count); ``out`` (B, C, H, W), contiguous."""
    for b in range(len(out)):
        check_inside(superpixel_image(region[b], count, c, b, clip, out[b]), c, b, out)


def superpixel_image(region: Any, count: int, c: Clicks, b: int, clip: float, out: Any) -> int:
    if current_backend() == "reference":
        from fastprompt.reference import guidance as reference

        return reference.superpixel_map(array(region), *one(c, b), clip, array(out))
    arrays, numbers, _keep = click_arrays(c, b)
    sizes = count, *out.shape[1:]
    return int(_C.superpixel_map(numbers, arrays, sizes, (address(region), address(out)), clip))


def proposals(member: Any, c: Clicks, out: Any) -> None:
    """``member`` (B, P, H, W) uint8 or bool; ``out`` (B, C, H, W), contiguous."""
    for b in range(len(out)):
        check_inside(proposal_image(member[b], c, b, out[b]), c, b, out)


def proposal_image(member: Any, c: Clicks, b: int, out: Any) -> int:
    if current_backend() == "reference":
        from fastprompt.reference import guidance as reference

        return reference.proposal_vote_map(array(member), *one(c, b), array(out))
    arrays, numbers, _keep = click_arrays(c, b)
    return int(_C.proposal_votes(numbers, arrays, tuple(member.shape), (address(member), address(out))))


def one(c: Clicks, b: int) -> tuple[Any, Any, tuple[int, ...]]:
    return array(c.points[b]), array(c.labels[b]), c.channels


def click_arrays(c: Clicks, b: int) -> tuple[tuple[int, ...], tuple[int, int], Any]:
    labels = np.array(c.channels, np.int64)
    points, own = c.points[b], c.labels[b]
    return (address(points), address(own), address(labels)), (len(own), len(labels)), (points, own, labels)


def check_inside(bad: int, c: Clicks, b: int, out: Any) -> None:
    if bad >= 0:
        x, y = (float(n) for n in c.points[b, bad])
        height, width = out.shape[2:]
        raise ValueError(f"points must lie in the image of {width} x {height} pixels, got {x:g}, {y:g} in image {b}")


def vectors(centre: Any, radius: Any, sigma: Any, bit: Any, peak: Any, size: tuple[int, int], out: Any) -> None:
    """NumPy: (M, 2) float64, int64, float64, (M) int64 and float32; ``out`` (M, width + height + 3) float32."""
    if current_backend() == "reference":
        from fastprompt.reference import guidance as reference

        out[...] = reference.prompt_vectors(centre, radius, sigma, bit, peak, size)
        return
    dtypes = np.float64, np.int64, np.float64, np.int64, np.float32
    arrays = [np.ascontiguousarray(x, d) for x, d in zip((centre, radius, sigma, bit, peak), dtypes, strict=True)]
    _C.prompt_vectors((len(out), *size), (*(address(x) for x in arrays), address(out)))
