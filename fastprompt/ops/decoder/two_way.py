"""SAM's two-way transformer as two operators: what an image needs once, and what every prompt needs. No gradient."""

from typing import Any

import torch
from torch import Tensor

from fastprompt import _C
from fastprompt._runtime import get_num_threads
from fastprompt.ops._arrays import address, addresses
from fastprompt.ops._library import define

TILE = 64  # image tokens of the largest tile of any instruction set


def _prepare_fake(image: Tensor, position: Tensor, weights: list[Tensor]) -> Tensor:
    images, channels, height, width = image.shape
    tokens = (height * width + TILE - 1) // TILE * TILE
    return image.new_empty(images * tokens * (2 * channels + 3 * weights[0].shape[0]))


def _prepare_cpu(image: Tensor, position: Tensor, weights: list[Tensor]) -> Tensor:
    out = _prepare_fake(image, position, weights)
    images, channels, height, width = image.shape
    image, position, weights = image.contiguous(), position.contiguous(), [w.contiguous() for w in weights]
    size = (images, channels, height * width, weights[0].shape[0])
    arrays = (address(image), address(position), addresses(weights), address(out))
    _C.two_way_prepare(size, *arrays, get_num_threads())
    return out


def _two_way_fake(
    prompt: Tensor, prepared: Tensor, weights: list[Tensor], images: int, pixels: int, heads: int, width: int, mlp: int,
    depth: int, eps: list[float],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(prompt), prompt.new_empty(prompt.shape[0], prompt.shape[2], pixels)


def _two_way_cpu(
    prompt: Tensor, prepared: Tensor, weights: list[Tensor], images: int, pixels: int, heads: int, width: int, mlp: int,
    depth: int, eps: list[float],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    prompt, weights = prompt.contiguous(), [w.contiguous() for w in weights]
    prompts, tokens, channels = prompt.shape
    out, image = _two_way_fake(prompt, prepared, weights, images, pixels, heads, width, mlp, depth, eps)
    if prompts:
        size = (images, prompts, channels, pixels, tokens, heads, width, mlp, depth)
        pair = (address(out), address(image))
        _C.two_way(size, address(prompt), address(prepared), addresses(weights), tuple(eps), pair, get_num_threads())
    return out, image


_prepare = define(
    "two_way_prepare(Tensor image, Tensor position, Tensor[] weights) -> Tensor", cpu=_prepare_cpu, fake=_prepare_fake
)
_two_way = define(
    "two_way(Tensor prompt, Tensor prepared, Tensor[] weights, int images, int pixels, int heads, int width, int mlp, "
    "int depth, float[] eps) -> (Tensor, Tensor)",
    cpu=_two_way_cpu,
    fake=_two_way_fake,
)


# ---------------------------------------------------------------- both in one, as an exported file has them

# Where those of the first layer stand in ``TwoWayWeights.all``: see of_layer.
TO_IMAGE_KEY_VALUE, MLP, TO_PROMPT_QUERY = slice(12, 16), 20, slice(26, 28)


def _transformer_fake(
    image: Tensor, position: Tensor, prompt: Tensor, weights: list[Tensor], heads: int, width: int, depth: int,
    eps: list[float],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(prompt), image.new_empty(prompt.shape[0], *image.shape[1:])


def _transformer_cpu(
    image: Tensor, position: Tensor, prompt: Tensor, weights: list[Tensor], heads: int, width: int, depth: int,
    eps: list[float],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    prepared = _prepare(image, position, [*weights[TO_IMAGE_KEY_VALUE], *weights[TO_PROMPT_QUERY]])
    images, pixels, mlp = image.shape[0], image[0, 0].numel(), weights[MLP].shape[0]
    prompt, out = _two_way(prompt, prepared, weights, images, pixels, heads, width, mlp, depth, eps)
    return prompt, out.unflatten(2, image.shape[2:])


transformer = define(
    "two_way_transformer(Tensor image, Tensor position, Tensor prompt, Tensor[] weights, int heads, int width, "
    "int depth, float[] eps) -> (Tensor, Tensor)",
    cpu=_transformer_cpu,
    fake=_transformer_fake,
)


class TwoWayWeights:
    """The parameters of a two-way transformer of transformers, segment-anything or sam2, in the kernel's order."""

    def __init__(self, transformer: Any) -> None:
        first = transformer.layers[0]
        last = getattr(transformer, "layer_norm_final_attn", None) or transformer.norm_final_attn
        to_image, to_prompt = first.cross_attn_token_to_image, first.cross_attn_image_to_token
        self.heads = int(getattr(to_image, "num_attention_heads", 0) or to_image.num_heads)
        self.width = to_image.q_proj.out_features // self.heads
        self.depth = len(transformer.layers)
        self.mlp = mlp_layers(first.mlp)[0].out_features
        self.eps = [norm(first, 1).eps, last.eps]
        self.numbers = self.heads, self.width, self.depth, self.eps
        self.prepare = pair(to_image.k_proj) + pair(to_image.v_proj) + pair(to_prompt.q_proj)
        self.all = [x for layer in transformer.layers for x in of_layer(layer)]
        self.all += projections(transformer.final_attn_token_to_image) + pair(last)


def pair(layer: Any) -> list[Tensor]:
    return [layer.weight, layer.bias]


def projections(attention: Any) -> list[Tensor]:
    out = attention.out_proj if hasattr(attention, "out_proj") else attention.o_proj
    return [x for layer in (attention.q_proj, attention.k_proj, attention.v_proj, out) for x in pair(layer)]


def norm(layer: Any, n: int) -> Any:
    return getattr(layer, f"layer_norm{n}", None) or getattr(layer, f"norm{n}")


def mlp_layers(mlp: Any) -> tuple[Any, Any]:
    if hasattr(mlp, "lin1"):
        return mlp.lin1, mlp.lin2
    return (mlp.proj_in, mlp.proj_out) if hasattr(mlp, "proj_in") else (mlp.layers[0], mlp.layers[-1])


def of_layer(layer: Any) -> list[Tensor]:
    first, second = mlp_layers(layer.mlp)
    return [
        *projections(layer.self_attn),
        *pair(norm(layer, 1)),
        *projections(layer.cross_attn_token_to_image),
        *pair(norm(layer, 2)),
        *pair(first),
        *pair(second),
        *pair(norm(layer, 3)),
        *projections(layer.cross_attn_image_to_token),
        *pair(norm(layer, 4)),
    ]


def prepare(image: Tensor, position: Tensor, weights: TwoWayWeights) -> Tensor:
    """What the first layer needs of the images (B, C, H, W) and their positions (1, C, H, W)."""
    return _prepare(image, position, weights.prepare)


def two_way(prompt: Tensor, prepared: Tensor, images: int, pixels: int, w: TwoWayWeights) -> tuple[Tensor, Tensor]:
    """Prompt tokens (B, T, C) and image tokens (B, C, pixels) after all layers; B is a multiple of ``images``."""
    return _two_way(prompt, prepared, w.all, images, pixels, w.heads, w.width, w.mlp, w.depth, w.eps)
