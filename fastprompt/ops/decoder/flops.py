"""Floating-point operations of the two-way transformer and of what belongs to it, by their shapes: as the host needs
them, in whatever form they are computed. Those of a prompt without what :func:`of_image` counts once."""

from math import prod
from typing import Any

from fastprompt.ops.decoder.layouts import MLP, Sizes


def of_image(image: Any, inner: int) -> int:
    """Keys, values and queries of the first layer, of images (B, C, H, W)."""
    return 2 * 3 * prod(image.shape) * inner


def of_prompts(prompt: Any, pixels: int, inner: int, mlp: int, depth: int) -> int:
    """All layers for prompts (B, T, C), but for :func:`of_image`."""
    batch, tokens, channels = prompt.shape
    across = 2 * tokens * channels * inner + 2 * tokens * pixels * inner  # two projections, two products
    itself = 4 * tokens * channels * channels + 2 * tokens * tokens * channels
    layer = itself + 2 * across + 2 * tokens * channels * mlp + 4 * pixels * channels * inner
    products = depth * layer + across + 2 * pixels * channels * inner
    return int(2 * batch * (products - 3 * pixels * channels * inner))


def two_way(prompt: Any, prepared: Any, w: Any, images: int, pixels: int, heads: int, width: int, mlp: int,
            depth: int, eps: Any) -> int:  # fmt: skip
    return of_prompts(prompt, pixels, heads * width, mlp, depth)


def two_way_transformer(image: Any, position: Any, prompt: Any, w: Any, heads: int, width: int, depth: int,
                        eps: Any) -> int:  # fmt: skip
    return of_image(image, heads * width) + of_prompts(prompt, prod(image.shape[2:]), heads * width, mlp_of(w), depth)


def low_rank_prepare(image: Any, position: Any, weights: Any, up: Any, sizes: Any, eps: Any) -> int:
    s = Sizes(*sizes)
    return of_image(image, s.heads * s.width)


def low_rank(prompt: Any, prepared: Any, weights: Any, up: Any, images: int, pixels: int, mlp: int, sizes: Any,
             eps: Any) -> int:  # fmt: skip
    s = Sizes(*sizes)
    return of_prompts(prompt, pixels, s.heads * s.width, mlp, s.depth)


def of_head(batch: int, pixels: int, vectors: int, conv1: Any, conv2: Any) -> int:
    """Two transposed convolutions of weights (in, out, 2, 2), and products with ``vectors`` vectors."""
    return int(2 * batch * pixels * (prod(conv1.shape) + 4 * prod(conv2.shape) + 16 * vectors * conv2.shape[1]))


def low_rank_masks(low_rank: Any, prepared: Any, vectors: Any, weights: Any, detail1: Any, detail2: Any, shape: Any,
                   *rest: Any) -> int:  # fmt: skip
    return of_head(vectors.shape[0], shape[2] * shape[3], vectors.shape[1], weights[0], weights[4])


def mask_decoder(image: Any, dense: Any, position: Any, prompt: Any, weights: Any, head: Any, detail1: Any,
                 detail2: Any, mlps: Any, heads: int, width: int, depth: int, *rest: Any) -> int:  # fmt: skip
    of_all = two_way_transformer(image, position, prompt, weights, heads, width, depth, None)
    batch, vectors = len(prompt), len(mlps) // (2 * rest[1])
    masks = of_head(batch, prod(image.shape[2:]), vectors, head[0], head[4])
    return of_all + masks + 2 * batch * sum(prod(w.shape) for w in mlps if len(w.shape) == 2)


def mlp_of(weights: Any) -> int:
    """The width of an MLP."""
    return int(weights[MLP].shape[0])
