"""The mask operators in torch: registration, shapes, gradient."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt.ops import masks
from fastprompt.ops._library import define, define_with_formula

Maybe = Tensor | None


def formula(
    image: Tensor,
    vectors: Tensor,
    conv1: Tensor,
    bias1: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    conv2: Tensor,
    bias2: Tensor,
    detail1: Maybe,
    detail2: Maybe,
    eps: float,
) -> Tensor:
    x = F.conv_transpose2d(image, conv1, bias1, stride=2)
    if detail1 is not None and detail2 is not None:
        x = x + detail1.repeat_interleave(image.shape[0] // detail1.shape[0], 0)
    x = F.layer_norm(x.movedim(1, -1), norm_weight.shape, norm_weight, norm_bias, eps).movedim(-1, 1)
    x = F.conv_transpose2d(F.gelu(x), conv2, bias2, stride=2)
    if detail1 is not None and detail2 is not None:
        x = x + detail2.repeat_interleave(image.shape[0] // detail2.shape[0], 0)
    return torch.einsum("bmd,bdyx->bmyx", vectors, F.gelu(x))


mask_head = define_with_formula(
    "mask_head",
    "Tensor image, Tensor vectors, Tensor conv1, Tensor bias1, Tensor norm_weight, Tensor norm_bias, Tensor conv2, "
    "Tensor bias2, Tensor? detail1, Tensor? detail2, float eps",
    formula=formula,
    launch=masks.launch,
    shape=masks.shape,
)


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
        logits.new_empty((count,)),
    )


_resize = define(
    "resize_masks(Tensor logits, int[] size, int[] frame, int[] crop, float threshold, str output, float offset) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    cpu=_resize_cpu,
    fake=_resize_fake,
)


def resize(logits: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    if logits.requires_grad and torch.is_grad_enabled():
        raise ValueError("logits must not require a gradient, which masks have not: call logits.detach()")
    found: tuple[Tensor, ...] = _resize(logits, *arguments)
    return found
