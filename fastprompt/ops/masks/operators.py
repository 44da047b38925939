"""The mask operators in torch: registration, shapes, gradient."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt._runtime import current_backend
from fastprompt.ops._library import define
from fastprompt.ops.masks import resizing as masks
from fastprompt.ops.masks.taps import taps


def _resize_cpu(logits: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = masks.resized(logits.contiguous(), *arguments)
    return found


def _resize_fake(
    logits: Tensor, size: list[int], frame: list[int], crop: list[int], threshold: float, output: str, offset: float
) -> tuple[Tensor, ...]:
    count, width = logits.shape[0], (size[1] + 7) // 8 if output == "packed" else size[1]
    dtype = getattr(torch, masks.OUTPUTS[output][1])
    return (
        logits.new_empty((count, size[0], width), dtype=dtype),
        logits.new_empty((count,), dtype=torch.int64),
        logits.new_empty((count, 4), dtype=torch.int64),
        logits.new_empty((count,), dtype=torch.float32),
    )


def resize_formula(
    logits: Tensor, size: list[int], frame: list[int], crop: list[int], threshold: float, output: str, offset: float
) -> tuple[Tensor, ...]:
    """With the resizing of either axis as a matrix."""
    axes = []
    for k in (0, 1):
        pairs = taps(logits.shape[1 + k], frame[k] if frame else None, crop[k] if crop else None, size[k])
        index, weight = (torch.from_numpy(x.T.copy()).to(logits.device) for x in pairs)
        axes.append(logits.new_zeros(size[k], logits.shape[1 + k]).float().scatter_add_(1, index.long(), weight))
    full = axes[0] @ logits.float() @ axes[1].T
    inside = full > threshold
    area, above, below = (x.flatten(1).sum(1) for x in (inside, full > threshold + offset, full > threshold - offset))
    sides = []
    for axis in (1, 2):  # pixels of every column, of every row
        n, there = torch.arange(inside.shape[3 - axis], device=logits.device), inside.any(axis)
        sides += [torch.where(there, n, len(n)).amin(1), torch.where(there, n, 0).amax(1)]
    box = torch.where(area[:, None] > 0, torch.stack([sides[0], sides[2], sides[1], sides[3]], 1), 0)
    stability = (above.double() / below.double()).float()
    if output == "packed":
        bits = F.pad(inside, (0, -inside.shape[2] % 8)).unflatten(2, (-1, 8))
        return (bits << torch.arange(8, device=logits.device)).sum(3).to(torch.uint8), area, box, stability
    return full if output == "float32" else inside.to(getattr(torch, output)), area, box, stability


def _resize_gpu(*arguments: Any) -> tuple[Tensor, ...]:
    if current_backend() == "reference":
        return resize_formula(*arguments)
    from fastprompt.kernels import masks as kernels

    found: tuple[Tensor, ...] = kernels.resize_masks(*arguments)
    return found


_resize = define(
    "resize_masks(Tensor logits, int[] size, int[] frame, int[] crop, float threshold, str output, float offset) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    cpu=_resize_cpu,
    fake=_resize_fake,
    gpu=_resize_gpu,
)


def resize(logits: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    if logits.requires_grad and torch.is_grad_enabled():
        raise ValueError("logits must not require a gradient, which masks have not: call logits.detach()")
    found: tuple[Tensor, ...] = _resize(logits, *arguments)
    return found
