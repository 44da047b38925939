"""The Euclidean distance transform in torch: registration and shapes."""

import torch
from torch import Tensor

from fastprompt import _C, _gpu
from fastprompt._runtime import current_backend
from fastprompt.ops import euclidean
from fastprompt.ops._library import define, or_reference


def solve(seeds: Tensor, mask: Tensor, spacing: euclidean.Spacing) -> Tensor:
    """Distances (B, 1, D, H, W) for ``mask`` (B, 1, D, H, W), which was made of ``seeds``."""
    if torch.is_grad_enabled() and seeds.requires_grad:
        raise ValueError("seeds must not require a gradient: the distance has none; call seeds.detach()")
    return _transform(mask, list(spacing))


def _fake(mask: Tensor, spacing: list[float]) -> Tensor:
    return mask.new_empty(mask.shape, dtype=torch.float32)


def _cpu(mask: Tensor, spacing: list[float]) -> Tensor:
    z, y, x = spacing
    if current_backend() == "reference":
        return torch.from_numpy(euclidean.run(mask.numpy(), (z, y, x)))
    out = _fake(mask, spacing)
    euclidean.launch(mask, (z, y, x), out)
    return out


def _cuda(mask: Tensor, spacing: list[float]) -> Tensor:
    if not hasattr(_C, "euclidean_distance_transform_cuda"):
        raise ValueError(f"seeds are on a GPU, and this build has no CUDA kernels: {_gpu.BUILD}, or call seeds.cpu()")
    *_, rows, _ = sizes = mask.shape
    if rows > _C.euclidean_cuda_rows or max(sizes[2:]) > _C.euclidean_cuda_line:
        limits = f"{_C.euclidean_cuda_rows} rows and {_C.euclidean_cuda_line} pixels on a side"
        raise ValueError(f"seeds on a GPU must have at most {limits}, got shape {tuple(sizes[2:])}: call seeds.cpu()")
    shape = sizes[0], *sizes[2:]
    mask, out = mask.contiguous(), _fake(mask, spacing)
    workspace = out.new_empty(_C.euclidean_cuda_workspace(shape))
    arrays = mask.data_ptr(), out.data_ptr(), workspace.data_ptr()
    _C.euclidean_distance_transform_cuda(*arrays, shape, tuple(spacing), torch.cuda.current_stream().cuda_stream)
    return out


_transform = define(
    "euclidean_distance_transform(Tensor mask, float[] spacing) -> Tensor",
    cpu=_cpu,
    fake=_fake,
    gpu=or_reference(_cpu, _cuda),
)
