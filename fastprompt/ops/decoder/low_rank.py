"""SAM's two-way transformer and mask head for an image that is asked about again and again: as three operators.

What the image contributes is prepared once; a prompt then adds a matrix of low rank (``csrc/decoder/low_rank.h``) and
the image tokens are never written. The result of the second operator is for the third alone. No gradient.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fastprompt import _C
from fastprompt._runtime import get_num_threads, matmul_precision
from fastprompt.ops._arrays import address, addresses
from fastprompt.ops._library import define
from fastprompt.ops.decoder.head import MaskHeadWeights
from fastprompt.ops.decoder.two_way import TILE, TwoWayWeights

Maybe = Tensor | None


class Sizes(NamedTuple):
    """Of the transformer and the convolution behind it: heads, width of a head, layers, 4 x channels of the result.

    ``half``: what is prepared is kept in bfloat16.
    """

    heads: int
    width: int
    depth: int
    up: int
    half: int

    def prepared_rows(self) -> int:
        inner, rows = self.heads * self.width, self.up
        for n in range(self.depth + 1):
            rows += 2 * inner if n == 0 else (n + min(n, 2) + 3) * inner + n
        return rows

    def rank(self, tokens: int, layers: int) -> int:
        return self.depth - 1 + layers * self.heads * tokens

    def prompt_rows(self, tokens: int) -> int:
        return 1 + (self.rank(tokens, self.depth) + 15) // 16 * 16


def _tokens(pixels: int) -> int:
    return (pixels + TILE - 1) // TILE * TILE


def _prepare_fake(
    image: Tensor, position: Tensor, weights: list[Tensor], up: Tensor, sizes: list[int], eps: list[float]
) -> Tensor:
    images, _, height, width = image.shape
    s = Sizes(*sizes)
    dtype = torch.bfloat16 if s.half else torch.float32
    return image.new_empty(images * _tokens(height * width) * s.prepared_rows(), dtype=dtype)


def _prepare_cpu(
    image: Tensor, position: Tensor, weights: list[Tensor], up: Tensor, sizes: list[int], eps: list[float]
) -> Tensor:
    out = _prepare_fake(image, position, weights, up, sizes, eps)
    images, channels, height, width = image.shape
    image, position, up, weights = image.contiguous(), position.contiguous(), up.contiguous(), contiguous(weights)
    arrays = (address(image), address(position), addresses(weights), tuple(eps), address(up), address(out))
    _C.low_rank_prepare((images, channels, height * width), (0, *sizes), *arrays, get_num_threads())
    return out


def _low_rank_fake(
    prompt: Tensor, prepared: Tensor, weights: list[Tensor], up: Tensor, images: int, pixels: int, mlp: int,
    sizes: list[int], eps: list[float],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    s = Sizes(*sizes)
    size = s.prompt_rows(prompt.shape[1]) * (s.up + _tokens(pixels))
    return torch.empty_like(prompt), prompt.new_empty(prompt.shape[0], size)


def _low_rank_cpu(
    prompt: Tensor, prepared: Tensor, weights: list[Tensor], up: Tensor, images: int, pixels: int, mlp: int,
    sizes: list[int], eps: list[float],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    prompt, up, weights = prompt.contiguous(), up.contiguous(), contiguous(weights)
    out, tokens = _low_rank_fake(prompt, prepared, weights, up, images, pixels, mlp, sizes, eps)
    prompts, count, channels = prompt.shape
    heads, width, depth = sizes[:3]
    if prompts:
        size = (images, prompts, channels, pixels, count, heads, width, mlp, depth)
        arrays = (address(prompt), address(prepared), addresses(weights), tuple(eps), address(up))
        pair = (address(out), address(tokens))
        _C.low_rank(size, (count, *sizes), *arrays, pair, matmul_precision(), get_num_threads())
    return out, tokens


def _masks_fake(
    low_rank: Tensor, prepared: Tensor, vectors: Tensor, weights: list[Tensor], detail1: Maybe, detail2: Maybe,
    shape: list[int], sizes: list[int], eps: float,
) -> Tensor:  # fmt: skip
    _, _, height, width = shape
    return vectors.new_empty(vectors.shape[0], vectors.shape[1], 4 * height, 4 * width)


def _masks_cpu(
    low_rank: Tensor, prepared: Tensor, vectors: Tensor, weights: list[Tensor], detail1: Maybe, detail2: Maybe,
    shape: list[int], sizes: list[int], eps: float,
) -> Tensor:  # fmt: skip
    out = _masks_fake(low_rank, prepared, vectors, weights, detail1, detail2, shape, sizes, eps)
    vectors, weights = vectors.contiguous(), contiguous(weights)
    detail1, detail2 = (None if x is None else x.contiguous() for x in (detail1, detail2))
    images, tokens, height, width = shape
    channels, (middle, depth) = weights[0].shape[0], weights[4].shape[:2]
    if out.numel():
        size = (vectors.shape[0], vectors.shape[1], height, width, channels, middle, depth, images)
        order = (None, *weights, vectors, detail1, detail2, low_rank, prepared, out)
        _C.mask_head(size, addresses(order), eps, (tokens, *sizes), matmul_precision(), get_num_threads())
    return out


_prepare = define(
    "low_rank_prepare(Tensor image, Tensor position, Tensor[] weights, Tensor up, int[] sizes, float[] eps) -> Tensor",
    cpu=_prepare_cpu,
    fake=_prepare_fake,
)
_low_rank = define(
    "low_rank(Tensor prompt, Tensor prepared, Tensor[] weights, Tensor up, int images, int pixels, int mlp, "
    "int[] sizes, float[] eps) -> (Tensor, Tensor)",
    cpu=_low_rank_cpu,
    fake=_low_rank_fake,
)
_masks = define(
    "low_rank_masks(Tensor low_rank, Tensor prepared, Tensor vectors, Tensor[] weights, Tensor? detail1, "
    "Tensor? detail2, int[] shape, int[] sizes, float eps) -> Tensor",
    cpu=_masks_cpu,
    fake=_masks_fake,
)


def contiguous(tensors: list[Tensor]) -> list[Tensor]:
    return [x.contiguous() for x in tensors]


class LowRankTokens(NamedTuple):
    """Image tokens after the transformer: for :func:`masks` alone."""

    values: Tensor
    prepared: Tensor
    shape: tuple[int, int, int, int]  # images, prompt tokens, height, width
    sizes: Sizes

    def of_prompt(self, n: int) -> "LowRankTokens":
        """Of one prompt on the only image."""
        return self._replace(values=self.values[n : n + 1])


def sizes_of(w: TwoWayWeights, up: Tensor) -> Sizes:
    """With what is prepared in bfloat16 where all products with it are: the precision "medium"."""
    precision = matmul_precision()
    half = precision == 2 and _C.uses_bf16(precision)
    return Sizes(w.heads, w.width, w.depth, up[0].numel(), int(half))


def pays(tokens: int, channels: int, s: Sizes) -> bool:
    """Whether it takes fewer products of an image token than :func:`fastprompt.ops._torch_two_way.two_way` and a
    convolution of its result. For SAM it does up to some 20 prompt tokens."""
    inner, rows = s.heads * s.width, s.heads * tokens
    attention = min(2 * rows * channels, 2 * inner * (channels + tokens))
    direct = inner * tokens + rows * channels + (2 * s.depth - 1) * attention + s.up * channels
    low = s.up * s.rank(tokens, s.depth)
    for n in range(1, s.depth + 1):
        before, rank = s.rank(tokens, n - 1), s.rank(tokens, n)
        low += (n + 3) * inner * tokens + (rows * before if n > 1 else 0) + rank * rank // 2 + 2 * rows * rank
    return low < direct and s.up % 16 == 0


def prepare(image: Tensor, position: Tensor, w: TwoWayWeights, up: Tensor) -> Tensor:
    """Of images (B, C, H, W), their positions (1, C, H, W) and the first convolution of the mask head."""
    return _prepare(image, position, w.all, up, list(sizes_of(w, up)), w.eps)


def two_way(
    prompt: Tensor, prepared: Tensor, image_shape: tuple[int, int, int], w: TwoWayWeights, up: Tensor
) -> tuple[Tensor, LowRankTokens]:
    """Prompt tokens (B, T, C) after all layers, and image tokens; ``image_shape`` is (images, height, width)."""
    (images, height, width), sizes = image_shape, sizes_of(w, up)
    out, tokens = _low_rank(prompt, prepared, w.all, up, images, height * width, w.mlp, list(sizes), w.eps)
    return out, LowRankTokens(tokens, prepared, (images, prompt.shape[1], height, width), sizes)


def masks(
    tokens: LowRankTokens, vectors: Tensor, weights: MaskHeadWeights, eps: float, detail: tuple[Tensor, Tensor] | None
) -> Tensor:
    """As :func:`fastprompt.mask_head`."""
    first, second = detail or (None, None)
    arguments = (tokens.values, tokens.prepared, vectors, list(weights), first, second)
    return _masks(*arguments, list(tokens.shape), list(tokens.sizes), eps)
