"""The geodesic kernels of ``csrc/geodesic/cuda_*.cu`` on torch tensors: inputs as the kernels read them, memory for the
result and for their own use from torch, the current stream."""

import torch
from torch import Tensor

from fastprompt import _C, _gpu
from fastprompt.ops import geodesic
from fastprompt.ops._grid import Options

METHODS = ("exact", "raster")


def distance(image: Tensor, start: Tensor, walls: Tensor | None, kind: str, o: Options) -> Tensor:
    """Distances (B, K, D, H, W), bit-equal to the CPU's, of five-axis tensors on the current device."""
    check(o)
    out = solve(*plain(image, start, walls), kind, o)
    if not kind.startswith("signed_"):
        return out
    to_map, to_rest = out[:, ::2], out[:, 1::2]
    return torch.where(torch.isinf(to_map), to_map, to_map - to_rest)


def gradient(
    grad: Tensor, image: Tensor, start: Tensor, walls: Tensor | None, kind: str, o: Options
) -> tuple[Tensor, Tensor]:
    """dL/dimage and dL/dstart: the distances once more, then what flows along their shortest paths."""
    check(o)
    grad, (image, start, walls) = grad.float().contiguous(), plain(image, start, walls)
    distances = solve(image, start, walls, kind, o)
    grad_image, grad_start = torch.empty_like(image), torch.empty_like(distances)
    fields = geodesic.arguments(image, start, walls, kind, o)
    workspace = ints(_C.geodesic_distance_backward_cuda_workspace(*fields, 0), start)
    results = grad.data_ptr(), grad_image.data_ptr(), grad_start.data_ptr()
    _C.geodesic_distance_backward_cuda(*results, workspace.data_ptr(), _gpu.stream(), *fields, distances.data_ptr())
    return grad_image, grad_start


def solve(image: Tensor, start: Tensor, walls: Tensor | None, kind: str, o: Options) -> Tensor:
    """Distances (B, K, D, H, W) of plain tensors; both sides of each map, one after the other, if signed."""
    fields = geodesic.arguments(image, start, walls, kind, o)
    batch, sets, *pixels = start.shape
    sides = 2 if kind.startswith("signed_") else 1
    out = start.new_empty((batch, sides * sets, *pixels))
    workspace = ints(_C.geodesic_distance_cuda_workspace(*fields, 0), start)
    _C.geodesic_distance_cuda(workspace.data_ptr(), _gpu.stream(), *fields, out.data_ptr())
    return out


def ints(count: int, like: Tensor) -> Tensor:
    return torch.empty(count, dtype=torch.int32, device=like.device)


def check(o: Options) -> None:
    if why := _gpu.reason("cuda"):
        raise ValueError(f"fastprompt.geodesic_distance has no kernel for a GPU: {why}; {_gpu.fix('cuda')}")
    if o.method not in METHODS:
        raise ValueError(
            f"method must be one of {', '.join(METHODS)} for tensors on a GPU, got {o.method!r}, whose order of pixels "
            "is serial: move the tensors with .cpu()"
        )


def plain(image: Tensor, start: Tensor, walls: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """float32, barriers uint8, and contiguous."""
    return (
        image.float().contiguous(),
        start.float().contiguous(),
        None if walls is None else walls.to(torch.uint8).contiguous(),
    )


__all__ = ["distance", "gradient"]
