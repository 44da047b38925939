"""The kernels of ``csrc/geodesic/cuda_*.cu`` on torch tensors: inputs as the kernels read them, memory for the result
and for their own use from torch, the current stream."""

from typing import Any

import torch
from torch import Tensor

from fastprompt import _C, _gpu
from fastprompt.ops.geodesic.call import fields

METHODS = ("exact", "raster")


def distance(image: Tensor, start: Tensor, walls: Tensor | None, kind: str, *settings: Any) -> Tensor:
    """Distances (B, K, D, H, W), bit-equal to the CPU's, of five-axis tensors on the current device."""
    out = solve(fields(*plain(image, start, walls), kind, *checked(settings)))
    if not kind.startswith("signed_"):
        return out
    to_map, to_rest = out[:, ::2], out[:, 1::2]
    return torch.where(torch.isinf(to_map), to_map, to_map - to_rest)


def distance_backward(
    grad: Tensor, image: Tensor, start: Tensor, walls: Tensor | None, kind: str, *settings: Any
) -> tuple[Tensor, Tensor]:
    """dL/dimage and dL/dstart: the distances once more, then what flows along their shortest paths."""
    given = fields(*plain(image, start, walls), kind, *checked(settings))
    distances = solve(given)
    results = {"grad_image": torch.empty_like(given["image"]), "grad_start": torch.empty_like(distances)}
    workspace = ints(_C.geodesic_distance_backward_cuda_workspace(**given), start)
    launch = {"grad": grad.float().contiguous(), "distances": distances, "workspace": workspace}
    _C.geodesic_distance_backward_cuda(**given, **launch, **results, stream=_gpu.stream())
    return results["grad_image"], results["grad_start"]


def solve(given: dict[str, Any]) -> Tensor:
    """Distances (B, K, D, H, W); both sides of each map, one after the other, if signed."""
    start = given["start"]
    batch, sets, *pixels = start.shape
    out: Tensor = start.new_empty((batch, (2 if given["two_sided"] else 1) * sets, *pixels))
    workspace = ints(_C.geodesic_distance_cuda_workspace(**given), start)
    _C.geodesic_distance_cuda(**given, workspace=workspace, out=out, stream=_gpu.stream())
    return out


def ints(count: int, like: Tensor) -> Tensor:
    return torch.empty(count, dtype=torch.int32, device=like.device)


def checked(settings: tuple[Any, ...]) -> tuple[Any, ...]:
    """metric, method, …"""
    if why := _gpu.reason("cuda"):
        raise ValueError(f"fastprompt.geodesic_distance has no kernel for a GPU: {why}; {_gpu.fix('cuda')}")
    if settings[1] not in METHODS:
        raise ValueError(
            f"method must be one of {', '.join(METHODS)} for tensors on a GPU, got {settings[1]!r}, whose order of "
            "pixels is serial: move the tensors with .cpu()"
        )
    return settings


def plain(image: Tensor, start: Tensor, walls: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """float32, barriers uint8, and contiguous."""
    return (
        image.float().contiguous(),
        start.float().contiguous(),
        None if walls is None else walls.to(torch.uint8).contiguous(),
    )


def euclidean(mask: Tensor, spacing: list[float]) -> Tensor:
    if not hasattr(_C, "euclidean_distance_transform_cuda"):
        raise ValueError(f"seeds are on a GPU, and this build has no CUDA kernels: {_gpu.BUILD}, or call seeds.cpu()")
    *_, rows, _ = sizes = mask.shape
    if rows > _C.euclidean_cuda_rows or max(sizes[2:]) > _C.euclidean_cuda_line:
        limits = f"{_C.euclidean_cuda_rows} rows and {_C.euclidean_cuda_line} pixels on a side"
        raise ValueError(f"seeds on a GPU must have at most {limits}, got shape {tuple(sizes[2:])}: call seeds.cpu()")
    mask, out = mask.contiguous(), mask.new_empty(mask.shape, dtype=torch.float32)
    workspace = out.new_empty(_C.euclidean_cuda_workspace(mask=mask))
    given = {"mask": mask, "out": out, "workspace": workspace, "spacing": tuple(spacing)}
    _C.euclidean_distance_transform_cuda(**given, stream=_gpu.stream())
    return out
