"""SAM's two-way transformer on a GPU: as one operator, after what a model and what an image need once. No gradient."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt._runtime import current_backend
from fastprompt.ops._library import define
from fastprompt.ops.decoder.two_way import TO_IMAGE_KEY_VALUE, TwoWayWeights

TOKENS = 64  # of a prompt, at most: what one block of the kernels holds
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


def supported(prompt: Tensor, heads: int, width: int, mlp: int) -> bool:
    """Whole tiles: sizes are powers of two from 16 on, the MLP a multiple of 16."""
    _, tokens, channels = prompt.shape
    powers = (channels, channels // heads, width)
    return tokens <= TOKENS and mlp % 16 == 0 and all(n >= 16 and n & (n - 1) == 0 for n in powers)


class Reader:
    """Takes matrices and vectors in their order."""

    def __init__(self, matrices: Tensor, vectors: Tensor, heads: int) -> None:
        self.matrices, self.vectors, self.heads = matrices, vectors, heads
        self.row = self.place = 0

    def numbers(self, count: int) -> Tensor:
        self.place += count
        return self.vectors[self.place - count : self.place]

    def linear(self, rows: int) -> tuple[Tensor, Tensor]:
        """Weight (rows, C) and bias (rows) of a projection that leads away from the channels."""
        self.row += rows
        return self.matrices[self.row - rows : self.row], self.numbers(rows)

    def back(self, rows: int) -> tuple[Tensor, Tensor]:
        """Weight (C, rows) and bias (C)."""
        self.row += rows
        return self.matrices[self.row - rows : self.row].T, self.numbers(self.matrices.shape[1])

    def attention(self, width: int, query: Tensor, key: Tensor, value: Tensor, known: Any = None) -> Tensor:
        """``known``: keys and values that are projected already."""
        split = lambda x: x.unflatten(2, (self.heads, -1)).transpose(1, 2)  # noqa: E731
        layers = [self.linear(width) for _ in range(3)]
        q, k, v = (split(linear(x, *layer)) for x, layer in zip((query, key, value), layers, strict=True))
        if known is not None:
            k, v = known
        p = (q @ k.transpose(2, 3) * (width // self.heads) ** -0.5).softmax(3)
        return linear((p @ v).transpose(1, 2).flatten(2), *self.back(width))

    def norm(self, x: Tensor, eps: float) -> Tensor:
        channels = self.matrices.shape[1]
        return F.layer_norm(x, (channels,), self.numbers(channels), self.numbers(channels), eps)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x @ weight.T.to(x.dtype) + bias


def formula(
    prompt: Tensor, image: Tensor, position: Tensor, keys: Tensor, values: Tensor, matrices: Tensor, vectors: Tensor,
    heads: int, width: int, mlp: int, depth: int, eps: list[float],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """In the type of the vectors, as the layers read."""
    given, like = Reader(matrices, vectors, heads), prompt.dtype
    wide = lambda x: x.to(vectors.dtype).repeat_interleave(len(prompt) // len(x), 0)  # noqa: E731
    asked, x, place = wide(prompt), wide(image), position.to(vectors.dtype)
    known, channels, t = (wide(keys), wide(values)), prompt.shape[2], wide(prompt)
    for layer in range(depth):
        q = t + asked if layer else t
        t = given.attention(channels, q, q, t) + (t if layer else 0)
        t = given.norm(t, eps[0])
        t = given.norm(t + given.attention(heads * width, t + asked, x + place, x, None if layer else known), eps[0])
        hidden = linear(t, *given.linear(mlp)).relu()
        t = given.norm(t + linear(hidden, *given.back(mlp)), eps[0])
        x = given.norm(x + given.attention(heads * width, x + place, t + asked, t), eps[0])
    t = given.norm(t + given.attention(heads * width, t + asked, x + place, x), eps[1])
    return t.to(like), x.to(image.dtype)


def _fake(prompt: Tensor, image: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(prompt), image.new_empty(prompt.shape[0], *image.shape[1:])


def _gpu(
    prompt: Tensor, image: Tensor, position: Tensor, keys: Tensor, values: Tensor, matrices: Tensor, vectors: Tensor,
    heads: int, width: int, mlp: int, depth: int, eps: list[float],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    arguments = (prompt, image, position, keys, values, matrices, vectors, heads, width, mlp, depth, eps)
    if current_backend() == "reference" or not supported(prompt, heads, width, mlp):
        return formula(*arguments)
    if not prompt.numel():
        return _fake(prompt, image)
    from fastprompt.kernels import attention
    from fastprompt.kernels import decoder_two_way as kernels

    if prompt.shape[1] > kernels.rows_of(attention.input_precision(image)):
        return formula(*arguments)
    found: tuple[Tensor, Tensor] = kernels.two_way(*arguments)
    return found


_two_way = define(
    "two_way_gpu(Tensor prompt, Tensor image, Tensor position, Tensor keys, Tensor values, Tensor matrices, "
    "Tensor vectors, int heads, int width, int mlp, int depth, float[] eps) -> (Tensor, Tensor)",
    cpu=formula,
    fake=_fake,
    gpu=_gpu,
)


def two_way(prompt: Tensor, image: Image, model: tuple[Tensor, Tensor], w: TwoWayWeights) -> tuple[Tensor, Tensor]:
    """Prompt tokens (B, T, C) and image tokens (B, N, C) after all layers; B is a multiple of the images. ``model`` is
    ``packed(w)``."""
    found: tuple[Tensor, Tensor] = _two_way(prompt, *image, *model, w.heads, w.width, w.mlp, w.depth, w.eps)
    return found
