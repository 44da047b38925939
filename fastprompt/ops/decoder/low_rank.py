"""SAM's two-way transformer and mask head for an image that is asked about again and again.

What the image contributes is prepared once; a prompt then adds a matrix of low rank (``csrc/decoder/low_rank.h``) and
the image tokens are never written. No gradient.
"""

from typing import NamedTuple

from torch import Tensor

from fastprompt import _C
from fastprompt._runtime import matmul_precision
from fastprompt.ops.decoder import operators
from fastprompt.ops.decoder.head import MaskHeadWeights
from fastprompt.ops.decoder.layouts import Sizes
from fastprompt.ops.decoder.two_way import TwoWayWeights


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
    """Whether it takes fewer products of an image token than :func:`fastprompt.ops.decoder.two_way.two_way` and a
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
    found: Tensor = operators.low_rank_prepare(image, position, w.all, up, list(sizes_of(w, up)), w.eps)
    return found


def two_way(
    prompt: Tensor, prepared: Tensor, image_shape: tuple[int, int, int], w: TwoWayWeights, up: Tensor
) -> tuple[Tensor, LowRankTokens]:
    """Prompt tokens (B, T, C) after all layers, and image tokens; ``image_shape`` is (images, height, width)."""
    (images, height, width), sizes = image_shape, sizes_of(w, up)
    numbers = (images, height * width, w.mlp, list(sizes), w.eps)
    out, tokens = operators.low_rank(prompt, prepared, w.all, up, *numbers)
    return out, LowRankTokens(tokens, prepared, (images, prompt.shape[1], height, width), sizes)


def masks(
    tokens: LowRankTokens, vectors: Tensor, weights: MaskHeadWeights, eps: float, detail: tuple[Tensor, Tensor] | None
) -> Tensor:
    """As :func:`fastprompt.mask_head`."""
    first, second = detail or (None, None)
    arguments = (tokens.values, tokens.prepared, vectors, list(weights), first, second)
    found: Tensor = operators.low_rank_masks(*arguments, list(tokens.shape), list(tokens.sizes), eps)
    return found
