"""The mask operator in torch: the formula, and the kernel for a GPU."""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt._later import Later
from fastprompt.ops.masks.taps import of_axes

kernels = Later("fastprompt.kernels.masks")

Pairs = tuple[Tensor, Tensor]  # indices and weights


@functools.lru_cache(maxsize=64)
def cached_taps(shape: Any, size: Any, frame: Any, crop: Any, device: torch.device) -> tuple[Pairs, Pairs]:
    """Copied there at the first call with these sizes, which a CUDA graph cannot hold."""
    rows, columns = (tuple(torch.from_numpy(x.copy()).to(device) for x in p) for p in of_axes(shape, size, frame, crop))
    return rows, columns  # type: ignore[return-value]


def taps_on(logits: Tensor, size: list[int], frame: list[int], crop: list[int]) -> tuple[Pairs, Pairs]:
    return cached_taps(tuple(logits.shape[1:]), tuple(size), tuple(frame), tuple(crop), logits.device)


def resize_masks(
    logits: Tensor, size: list[int], frame: list[int], crop: list[int], threshold: float, output: str, offset: float
) -> tuple[Tensor, ...]:
    """With the resizing of either axis as a matrix."""
    axes = []
    for (index, weight), inputs in zip(taps_on(logits, size, frame, crop), logits.shape[1:], strict=True):
        zeros = torch.zeros(index.shape[1], inputs, device=logits.device)
        axes.append(zeros.scatter_add_(1, index.T.long(), weight.T))
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


def resize_logits(logits: Tensor, size: list[int], frame: list[int], crop: list[int]) -> Tensor:
    full = logits[None]
    for place in ([frame] if frame else []) + [size]:
        full = F.interpolate(full, place, mode="bilinear", align_corners=False)
        full = full[..., : crop[0], : crop[1]] if crop and place is frame else full
    return full[0]


def resize_masks_gpu(
    logits: Tensor, size: list[int], frame: list[int], crop: list[int], threshold: float, output: str, offset: float
) -> Any:
    return kernels.resize_masks(logits, *taps_on(logits, size, frame, crop), threshold, output, offset)
