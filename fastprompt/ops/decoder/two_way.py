"""SAM's two-way transformer: its weights, what an image needs once, and what every prompt needs. No gradient."""

from typing import Any

from torch import Tensor

from fastprompt.ops.decoder import operators


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
    found: Tensor = operators.two_way_prepare(image, position, weights.prepare)
    return found


def two_way(prompt: Tensor, prepared: Tensor, images: int, pixels: int, w: TwoWayWeights) -> tuple[Tensor, Tensor]:
    """Prompt tokens (B, T, C) and image tokens (B, C, pixels) after all layers; B is a multiple of ``images``."""
    sizes = (w.heads, w.width, w.mlp, w.depth)
    found: tuple[Tensor, Tensor] = operators.two_way(prompt, prepared, w.all, images, pixels, *sizes, w.eps)
    return found
