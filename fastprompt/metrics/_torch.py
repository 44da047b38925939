"""The counts in torch: registration and shapes."""

import torch
from torch import Tensor

from fastprompt._runtime import current_backend
from fastprompt.metrics import _counts
from fastprompt.ops._library import define


def _fake(pred: Tensor, target: Tensor, threshold: float, ignore: int) -> Tensor:
    return pred.new_empty((pred.shape[0], 4), dtype=torch.int64)


def _cpu(pred: Tensor, target: Tensor, threshold: float, ignore: int) -> Tensor:
    if current_backend() == "reference":
        return torch.from_numpy(_counts.run(pred.numpy(), target.numpy(), threshold, ignore))
    out = _fake(pred, target, threshold, ignore)
    _counts.launch(pred.contiguous(), target.contiguous(), threshold, ignore, out)
    return out


# pred: (N, pixels) bool, uint8 or float32; target: the same shape, bool or uint8
overlap_counts = define(
    "overlap_counts(Tensor pred, Tensor target, float threshold, int ignore) -> Tensor", cpu=_cpu, fake=_fake
)
