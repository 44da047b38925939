"""SAM's two-way transformer on a GPU: what a model and what an image need once, and one operator. No gradient."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt.ops.decoder.layouts import TO_IMAGE_KEY_VALUE
from fastprompt.ops.decoder.operators import two_way_gpu as operator
from fastprompt.ops.decoder.two_way import TwoWayWeights

BACK = (3, 7, 9, 13)  # matrices of a layer, 14 in all, that lead back to the channels: they are kept transposed


class Image(NamedTuple):
    """What images and their positions give before there is a prompt."""

    tokens: Tensor  # (B, N, C)
    position: Tensor  # (N, C)
    keys: Tensor  # (B, H, N, D), of the first attention to the image
    values: Tensor


def packed(w: TwoWayWeights, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """All matrices one below the other, (.., C) in ``dtype``, and all biases and LayerNorms one after the other in
    float32, in the order of ``w.all``."""
    matrices = [x.detach().to(dtype) for x in w.all if x.ndim == 2]
    matrices = [x.T if n % 14 in BACK else x for n, x in enumerate(matrices)]
    return torch.cat(matrices), torch.cat([x.detach().float() for x in w.all if x.ndim == 1])


def prepare(image: Tensor, position: Tensor, w: TwoWayWeights, dtype: torch.dtype) -> Image:
    """Of images (B, C, H, W) and their positions (1, C, H, W)."""
    tokens, place = (x.to(dtype).flatten(2).transpose(1, 2).contiguous() for x in (image, position))
    key, _, value, bias = (x.detach().to(dtype) for x in w.all[TO_IMAGE_KEY_VALUE])  # the keys' bias: alike for all
    pair = F.linear(tokens + place, key), F.linear(tokens, value, bias)
    keys, values = (x.unflatten(2, (w.heads, -1)).transpose(1, 2).contiguous() for x in pair)
    return Image(tokens, place[0], keys, values)


def two_way(prompt: Tensor, image: Image, model: tuple[Tensor, Tensor], w: TwoWayWeights) -> tuple[Tensor, Tensor]:
    """Prompt tokens (B, T, C) and image tokens (B, N, C) after all layers; B is a multiple of the images. ``model`` is
    ``packed(w)``."""
    found: tuple[Tensor, Tensor] = operator(prompt, *image, *model, w.heads, w.width, w.mlp, w.depth, w.eps)
    return found
