"""The click simulator in torch: registration and shapes."""

import torch
from torch import Tensor

from fastprompt import _gpu
from fastprompt._runtime import current_backend
from fastprompt.ops._library import define, or_reference
from fastprompt.ops.clicks import simulator as clicks


def _fake(pred: Tensor, target: Tensor, clicked: Tensor, threshold: float, ignore: int) -> Tensor:
    return pred.new_empty((pred.shape[0], 4), dtype=torch.int64)


def _cpu(pred: Tensor, target: Tensor, clicked: Tensor, threshold: float, ignore: int) -> Tensor:
    if current_backend() == "reference" or 0 in pred.shape:
        return torch.from_numpy(clicks.run(pred.numpy(), target.numpy(), clicked.numpy(), threshold, ignore))
    out = _fake(pred, target, clicked, threshold, ignore)
    clicks.launch(pred.contiguous(), target.contiguous(), clicked.contiguous(), threshold, ignore, out)
    return out


def _bytes(mask: Tensor) -> Tensor:
    return mask.view(torch.uint8) if mask.dtype == torch.bool else mask


def _on_gpu(pred: Tensor, target: Tensor, clicked: Tensor, threshold: float, ignore: int) -> Tensor:
    masks = _bytes(pred.contiguous()), _bytes(target.contiguous())
    return _gpu.kernels("clicks").next_click(*masks, clicked.contiguous(), threshold, ignore)


# pred: (B, H, W) bool, uint8 or float32; target: the same shape, bool or uint8; clicked: (B, K, 2) int32
next_click = define(
    "next_click(Tensor pred, Tensor target, Tensor clicked, float threshold, int ignore) -> Tensor",
    cpu=_cpu,
    fake=_fake,
    gpu=or_reference(_cpu, _on_gpu),
)
