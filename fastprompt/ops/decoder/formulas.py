"""The operators of the decoder in torch: formulas, for gradients and for what no kernel takes, and the kernels for a
GPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt._later import Later

attention, heads_of_masks = Later("fastprompt.kernels.attention"), Later("fastprompt.kernels.decoder_head")
small_mlps, transformer = Later("fastprompt.kernels.decoder_mlps"), Later("fastprompt.kernels.decoder_two_way")

Maybe = Tensor | None
TOKENS = 64  # of a prompt, at most: what one block of the kernels holds


def mask_head(
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


def mask_head_gpu(image: Tensor, vectors: Tensor, *rest: Any) -> Any:
    """None unless the kernel holds the channels of a tile, as SAM's 64 and 32, and the second convolution's weights."""
    *arrays, eps = rest
    middle, depth = (max(16, 1 << (n - 1).bit_length()) for n in arrays[4].shape[:2])
    if 4 * middle > 512 or middle * depth > 4096:
        return None
    arrays = [x if x is None else x.contiguous() for x in (vectors, *arrays)]
    return heads_of_masks.mask_head(image, *arrays, eps)


def token_mlps(tokens: Tensor, rows: list[int], weights: list[Tensor], layers: int) -> list[Tensor]:
    found = []
    for k, row in enumerate(rows):
        x, own = tokens[:, row].float(), [w.float() for w in weights[2 * layers * k : 2 * layers * (k + 1)]]
        for n in range(layers):
            x = F.linear(x if n == 0 else x.relu(), own[2 * n], own[2 * n + 1])
        found.append(x.to(tokens.dtype))
    return found


def token_mlps_gpu(tokens: Tensor, rows: list[int], weights: list[Tensor], layers: int) -> Any:
    own = [weights[2 * layers * k : 2 * layers * (k + 1)] for k in range(len(rows))]
    alike = len({tuple(w.shape for w in mlp[: 2 * layers - 2]) for mlp in own}) == 1  # but for the outputs
    if layers < 2 or not alike:
        return None
    return small_mlps.token_mlps(tokens, rows, [w.contiguous() for w in weights], layers)


# ---------------------------------------------------------------- the two-way transformer


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


def two_way(
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


def supported(prompt: Tensor, heads: int, width: int, mlp: int) -> bool:
    """Whole tiles: sizes are powers of two from 16 on, the MLP a multiple of 16."""
    _, tokens, channels = prompt.shape
    powers = (channels, channels // heads, width)
    return tokens <= TOKENS and mlp % 16 == 0 and all(n >= 16 and n & (n - 1) == 0 for n in powers)


def two_way_gpu(prompt: Tensor, image: Tensor, position: Tensor, keys: Tensor, values: Tensor, *rest: Any) -> Any:
    _, _, heads, width, mlp, *_ = rest
    if not prompt.numel():
        return torch.empty_like(prompt), image.new_empty(prompt.shape[0], *image.shape[1:])
    if not supported(prompt, heads, width, mlp):
        return None
    if prompt.shape[1] > transformer.rows_of(attention.input_precision(image)):
        return None
    return transformer.two_way(prompt, image, position, keys, values, *rest)
