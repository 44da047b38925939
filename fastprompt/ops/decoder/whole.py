"""SAM's mask decoder as one operator, as an exported file has it: there the low-rank form needs no second operator.

Here it is its parts one after the other; what runs in a process with torch calls those. No gradient.
"""

import torch
from torch import Tensor

from fastprompt.ops._library import define
from fastprompt.ops.decoder.head_operator import mask_head
from fastprompt.ops.decoder.mlps import token_mlps
from fastprompt.ops.decoder.two_way import transformer

Maybe = Tensor | None
HEAD = 6  # weights: convolution, LayerNorm and convolution, each with its bias


def _fake(
    image: Tensor, dense: Tensor, position: Tensor, prompt: Tensor, weights: list[Tensor], head: list[Tensor],
    detail1: Maybe, detail2: Maybe, mlps: list[Tensor], heads: int, width: int, depth: int, first: int, layers: int,
    eps: list[float],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    _, _, height, columns = image.shape
    masks = len(mlps) // (2 * layers)
    return torch.empty_like(prompt), prompt.new_empty(prompt.shape[0], masks, 4 * height, 4 * columns)


def _cpu(
    image: Tensor, dense: Tensor, position: Tensor, prompt: Tensor, weights: list[Tensor], head: list[Tensor],
    detail1: Maybe, detail2: Maybe, mlps: list[Tensor], heads: int, width: int, depth: int, first: int, layers: int,
    eps: list[float],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    images, masks = max(len(image), len(dense)), len(mlps) // (2 * layers)
    if images != len(image):
        image = image.repeat_interleave(images // len(image), 0)
    summed = image + dense.repeat_interleave(images // len(dense), 0)
    tokens, attended = transformer(summed, position, prompt, weights, heads, width, depth, eps[:2])
    vectors = torch.stack(token_mlps(tokens, list(range(first, first + masks)), mlps, layers), 1)
    return tokens, mask_head(attended, vectors, *head, detail1, detail2, eps[2])


decoder = define(
    "mask_decoder(Tensor image, Tensor dense, Tensor position, Tensor prompt, Tensor[] weights, Tensor[] head, "
    "Tensor? detail1, Tensor? detail2, Tensor[] mlps, int heads, int width, int depth, int first, int layers, "
    "float[] eps) -> (Tensor, Tensor)",
    cpu=_cpu,
    fake=_fake,
)
