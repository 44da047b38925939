"""The mask head in torch: registration, shapes, gradient."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt.ops._library import define_with_formula
from fastprompt.ops.decoder import head as masks

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
    dtype, image, vectors = image.dtype, image.float(), vectors.float()
    conv1, bias1, norm_weight, norm_bias, conv2, bias2 = (
        x.float() for x in (conv1, bias1, norm_weight, norm_bias, conv2, bias2)
    )
    x = F.conv_transpose2d(image, conv1, bias1, stride=2)
    if detail1 is not None and detail2 is not None:
        x = x + detail1.repeat_interleave(image.shape[0] // detail1.shape[0], 0)
    x = F.layer_norm(x.movedim(1, -1), norm_weight.shape, norm_weight, norm_bias, eps).movedim(-1, 1)
    x = F.conv_transpose2d(F.gelu(x), conv2, bias2, stride=2)
    if detail1 is not None and detail2 is not None:
        x = x + detail2.repeat_interleave(image.shape[0] // detail2.shape[0], 0)
    return torch.einsum("bmd,bdyx->bmyx", vectors, F.gelu(x)).to(dtype)


def _head_gpu(*arguments: Any) -> Tensor | None:
    if not masks.fits_gpu(*arguments):
        return None
    from fastprompt.kernels import decoder_head as kernels

    image, *rest, eps = arguments
    found: Tensor = kernels.mask_head(image, *(x if x is None else x.contiguous() for x in rest), eps)
    return found


mask_head = define_with_formula(
    "mask_head",
    "Tensor image, Tensor vectors, Tensor conv1, Tensor bias1, Tensor norm_weight, Tensor norm_bias, Tensor conv2, "
    "Tensor bias2, Tensor? detail1, Tensor? detail2, float eps",
    formula=formula,
    launch=masks.launch,
    shape=masks.shape,
    gpu=_head_gpu,
    dtype=lambda image, *rest: image.dtype,
)
