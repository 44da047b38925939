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
    inputs = plain(image, start, walls)
    fields = geodesic.arguments(*inputs, kind, o)
    signed = kind.startswith("signed_")
    batch, sets, *pixels = start.shape
    out = torch.empty((batch, 2 * sets if signed else sets, *pixels), dtype=torch.float32, device=start.device)
    ints = _C.geodesic_distance_cuda_workspace(*fields, 0)
    workspace = torch.empty(ints, dtype=torch.int32, device=start.device)
    _C.geodesic_distance_cuda(workspace.data_ptr(), _gpu.stream(), *fields, out.data_ptr())
    if not signed:
        return out
    to_map, to_rest = out[:, ::2], out[:, 1::2]
    return torch.where(torch.isinf(to_map), to_map, to_map - to_rest)


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


__all__ = ["check", "distance", "plain"]
