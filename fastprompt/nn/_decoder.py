"""What SAM's mask decoders have in common, whatever library they come from."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastprompt.models import is_disabled
from fastprompt.nn._image_cache import ImageCache, equal
from fastprompt.ops import MaskHeadWeights, mask_head
from fastprompt.ops import _torch_low_rank as low_rank
from fastprompt.ops._torch_mlp import token_mlps
from fastprompt.ops._torch_two_way import TwoWayWeights, norm, prepare, two_way


class DropIn(nn.Module):
    """Mixin of a host's module."""

    def falls_back(self, *tensors: Tensor | None, **unused: Any) -> bool:
        """Whether this call takes the host's path; the reason is said once."""
        given = [x for x in tensors if x is not None]
        reason = None
        if is_disabled():
            return True
        for name, value in unused.items():
            if value is not None and value is not False:
                reason = f"{name} is given"
        if any(x.device.type != "cpu" for x in given):
            reason = "there is no kernel for this device"
        elif any(x.dtype != torch.float32 for x in (*given, next(self.parameters()))):
            reason = "the decoder computes in float32 only"
        elif torch.is_grad_enabled() and any(x.requires_grad for x in (*given, *self.parameters())):
            reason = "gradients are enabled (wrap the call in torch.no_grad())"
        if reason:
            say_once(f"fastprompt: {type(self).__name__} takes the host's path: {reason}")
        return reason is not None


class Decoder(DropIn):
    """Mixin of a host's mask decoder: the two-way transformer and the mask head in three kernels."""

    transformer: Any
    iou_token: Any
    mask_tokens: Any
    num_mask_tokens: int
    output_hypernetworks_mlps: Any
    iou_prediction_head: Any

    @classmethod
    def unsupported(cls, host: Any) -> str | None:
        """Why a host cannot be replaced; None: it can."""
        return unsupported_transformer(host.transformer)

    def attend(
        self, prompt: Tensor, image: Tensor, dense: Tensor, position: Tensor
    ) -> tuple[Tensor, Tensor | low_rank.LowRankTokens]:
        """Tokens (B P, T, C) and image tokens for prompts (B P, T, C) and images (B, C, H, W).

        ``dense`` is added to the image: (B or 1, C, H, W), constant over H and W without a mask prompt.
        """
        weights, up = TwoWayWeights(self.transformer), self.upscaling()[0].weight
        images, channels, height, width = image.shape
        plain = constant(dense) and not torch.compiler.is_compiling()  # else the image is new at every call

        def kept(form: str, parameters: list[Tensor], make: Callable[[], Tensor]) -> Tensor:
            cache = self.__dict__.setdefault(f"_fastprompt_{form}", ImageCache())
            result: Tensor = cache.get(image, [dense[:, :, 0, 0], position], parameters, make)
            return result

        if plain and low_rank.pays(prompt.shape[1], channels, low_rank.sizes_of(weights, up)):
            make = lambda: low_rank.prepare(image + dense, position[:1], weights, up)  # noqa: E731
            prepared = kept("low_rank", [*weights.all, up], make)
            return low_rank.two_way(prompt, prepared, (images, height, width), weights, up)
        make = lambda: prepare(image + dense, position[:1], weights)  # noqa: E731
        prepared = kept("two_way", weights.prepare, make) if plain else make()
        prompt, image = two_way(prompt, prepared, images, height * width, weights)
        return prompt, image.unflatten(2, (height, width))

    def masks(
        self,
        image: Tensor | low_rank.LowRankTokens,
        tokens: Tensor,
        wanted: slice,
        detail: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """(B P, K, 4 H, 4 W): the ``wanted`` masks of the mask tokens (B P, M, C)."""
        count = range(tokens.shape[1])[wanted]
        vectors = torch.stack(token_mlps(tokens, list(count), self.output_hypernetworks_mlps[wanted]), 1)
        conv1, norm, conv2 = self.upscaling()
        weights = MaskHeadWeights(conv1.weight, conv1.bias, norm.weight, norm.bias, conv2.weight, conv2.bias)
        if isinstance(image, low_rank.LowRankTokens):
            return low_rank.masks(image, vectors, weights, norm.eps, detail)
        return mask_head(image, vectors, weights, eps=norm.eps, detail=detail)

    def from_token(self, tokens: Tensor, row: int, mlp: Any) -> Tensor:
        """``mlp(tokens[:, row])``"""
        return token_mlps(tokens, [row], [mlp])[0]

    def upscaling(self) -> tuple[Any, Any, Any]:
        """The two transposed convolutions and the LayerNorm between them, in their order."""
        raise NotImplementedError


class Transformer(DropIn):
    """Mixin of a two-way transformer of transformers, for decoders that are their host's but for it.

    The decoder repeats the image for every prompt, so nothing is shared and nothing kept."""

    @classmethod
    def unsupported(cls, host: Any) -> str | None:
        """Why a host cannot be replaced; None: it can."""
        return unsupported_transformer(host)

    def forward(
        self,
        point_embeddings: Tensor,
        image_embeddings: Tensor,
        image_positional_embeddings: Tensor,
        attention_similarity: Tensor | None = None,
        target_embedding: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        inputs = (point_embeddings, image_embeddings, image_positional_embeddings)
        unused = {"attention_similarity": attention_similarity, "target_embedding": target_embedding, **kwargs}
        if self.falls_back(*inputs, **unused) or not one_position(image_positional_embeddings):
            return super().forward(*inputs, attention_similarity, target_embedding, **kwargs)
        weights, pixels = TwoWayWeights(self), image_embeddings.shape[2] * image_embeddings.shape[3]
        prepared = prepare(image_embeddings, image_positional_embeddings[:1], weights)
        prompt, image = two_way(point_embeddings.flatten(0, 1), prepared, len(image_embeddings), pixels, weights)
        return prompt.view_as(point_embeddings), image.transpose(1, 2).unsqueeze(1)


class TransformersDecoder(Decoder):
    """Mixin of the decoders of transformers, whose up-scaling layers have names of their own."""

    upscale_conv1: Any
    upscale_conv2: Any
    upscale_layer_norm: Any

    def upscaling(self) -> tuple[Any, Any, Any]:
        return self.upscale_conv1, self.upscale_layer_norm, self.upscale_conv2


def unsupported_transformer(transformer: Any) -> str | None:
    if not len(transformer.layers):
        return "the transformer has no layers"
    channels, w = transformer.layers[0].self_attn.q_proj.in_features, TwoWayWeights(transformer)
    sizes = {"channels": channels, "channels of a head": channels // w.heads, "width of a head": w.width, "MLP": w.mlp}
    for name, size in sizes.items():
        if size % 16:
            return f"{name} must be a multiple of 16, got {size}"
    for n, layer in enumerate(transformer.layers):
        if layer.skip_first_layer_pe != (n == 0):
            return "only the first layer may skip the positions"
        activation = getattr(layer.mlp, "act", None) or getattr(layer.mlp, "activation", None)
        if type(activation).__name__ not in ("ReLU", "ReLUActivation"):
            return f"the activation must be ReLU, got {type(activation).__name__}"
        if getattr(layer.mlp, "num_layers", 2) != 2 or len({norm(layer, k).eps for k in (1, 2, 3, 4)}) > 1:
            return "layers with an MLP of two layers and one eps only"
    return None


def constant(dense: Tensor) -> bool:
    """Whether a dense prompt is one vector, expanded over the image: there is no mask prompt."""
    return dense.stride()[2:] == (0, 0)


def one_position(position: Tensor) -> bool:
    """Whether all images of a batch have the same positions."""
    return position.shape[0] == 1 or position.stride(0) == 0 or all(equal(p, position[0]) for p in position[1:])


_said: set[str] = set()


def say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        warnings.warn(text, stacklevel=4)


__all__ = ["Decoder", "Transformer", "TransformersDecoder", "constant", "one_position"]
