"""The Euclidean distance transform in torch: registration and shapes."""

import torch
from torch import Tensor

from fastprompt._runtime import current_backend
from fastprompt.ops import euclidean
from fastprompt.ops._library import define


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


_transform = define("euclidean_distance_transform(Tensor mask, float[] spacing) -> Tensor", cpu=_cpu, fake=_fake)
