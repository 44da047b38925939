"""What SAM's mask decoders have in common, whatever library they come from."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastprompt.nn.parts.drop_in import CPU, DropIn
from fastprompt.nn.parts.image_cache import ImageCache, equal
from fastprompt.nn.parts.known import is_gelu
from fastprompt.nn.parts.mlp import same_layers, token_mlps
from fastprompt.ops.decoder import low_rank as low_rank
from fastprompt.ops.decoder import two_way_gpu as gpu
from fastprompt.ops.decoder.head import MaskHeadWeights, mask_head
from fastprompt.ops.decoder.operators import mask_decoder, two_way_transformer
from fastprompt.ops.decoder.two_way import TwoWayWeights, norm, prepare, two_way

is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # torch 2.7


Attended = Tensor | low_rank.LowRankTokens  # image tokens after the transformer: (B P, C, H, W) or for the head alone


class Decoder(DropIn):
    """Mixin of a host's mask decoder: the two-way transformer and the mask head in three kernels."""

    devices = ("cpu", "cuda")
    of_a_video = False  # most images are asked once: 55 ms instead of 97, which would make later clicks take 20, not 28
    transformer: Any
    iou_token: Any
    mask_tokens: Any
    num_mask_tokens: int
    output_hypernetworks_mlps: Any
    iou_prediction_head: Any

    @classmethod
    def unsupported(cls, host: Any) -> str | None:
        """Why a host cannot be replaced; None: it can."""
        head = cls.upscaling(host), cls.activations(host)
        return unsupported_transformer(host.transformer) or unsupported_head(*head)

    def decode(
        self, prompt: Tensor, image: Tensor, dense: Tensor, position: Tensor, first: int, wanted: slice,
        others: list[tuple[int, Any]], detail: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:  # fmt: skip
        """Tokens (B P, T, C) after the transformer, the ``wanted`` masks of the tokens from row ``first`` on, and
        ``mlp(tokens[:, row])`` of each of the others."""
        rows = range(first, first + self.num_mask_tokens)[wanted]
        mlps = same_layers(self.output_hypernetworks_mlps[wanted]) if is_exporting() else None
        if mlps is None:
            tokens, attended = self.attend_each(prompt, image, dense, position)
            vectors, found = self.read(tokens, first, wanted, others)
            return tokens, self.head(attended, vectors, detail), found
        # One node, which shares what prompts have in common: hosts expand it for each.
        image = image[:1] if image.stride(0) == 0 else image
        dense = dense[:1] if dense.stride(0) == 0 else dense
        dense = dense[:, :, :1, :1] if constant(dense) else dense
        w, (conv1, norm, conv2) = TwoWayWeights(self.transformer), self.upscaling()
        head = [conv1.weight, conv1.bias, norm.weight, norm.bias, conv2.weight, conv2.bias]
        given = (image, dense, position[:1], prompt, w.all, head, *(detail or (None, None)), mlps[0])
        tokens, masks = mask_decoder(*given, w.heads, w.width, w.depth, rows[0], mlps[1], [*w.eps, norm.eps])
        return tokens, masks, [self.from_token(tokens, row, mlp) for row, mlp in others]

    def attend_each(self, tokens: Tensor, image: Tensor, dense: Tensor, position: Tensor) -> tuple[Tensor, Attended]:
        """As :meth:`attend`; a host whose prompts may have dense prompts of their own says what that means."""
        return self.attend(tokens, image, dense, position)

    def attend(self, prompt: Tensor, image: Tensor, dense: Tensor, position: Tensor) -> tuple[Tensor, Attended]:
        """Tokens (B P, T, C) and image tokens for prompts (B P, T, C) and images (B, C, H, W).

        ``dense`` is added to the image: (B or 1, C, H, W), constant over H and W without a mask prompt.
        """
        weights, up = TwoWayWeights(self.transformer), self.upscaling()[0].weight
        if is_exporting():  # one node, and nothing whose layout depends on the machine
            return two_way_transformer(image + dense, position[:1], prompt, weights.all, *weights.numbers)
        images, channels, height, width = image.shape
        # Else the image is new at every call, or every prompt has its own.
        plain = constant(dense) and not torch.compiler.is_compiling() and (images == 1 or image.stride(0) > 0)

        def kept(form: str, parameters: list[Tensor], make: Callable[[], Any]) -> Any:
            cache = self.__dict__.setdefault(f"_fastprompt_{form}", ImageCache())
            return cache.get(image, [dense[:, :, 0, 0], position], parameters, make)

        if image.device != CPU:
            dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else weights.all[0].dtype
            get = lambda: gpu.prepare(image + dense, position[:1], weights, dtype)  # noqa: E731
            prepared = kept(f"image_{dtype}", weights.prepare, get) if plain else get()
            model = self.__dict__.setdefault(f"_fastprompt_model_{dtype}", ImageCache())
            first, *others = weights.all
            packed = model.get(first, [], others, lambda: gpu.packed(weights, dtype))
            prompt, tokens = gpu.two_way(prompt, prepared, packed, weights)
            return prompt, tokens.transpose(1, 2).unflatten(2, (height, width))
        sizes = low_rank.sizes_of(weights, up) if plain and not self.of_a_video else None
        if sizes and low_rank.pays(prompt.shape[1], channels, sizes):
            make = lambda: low_rank.prepare(image + dense, position[:1], weights, up)  # noqa: E731
            prepared = kept("low_rank_half" if sizes.half else "low_rank", [*weights.all, up], make)
            return low_rank.two_way(prompt, prepared, (images, height, width), weights, up)
        make = lambda: prepare(image + dense, position[:1], weights)  # noqa: E731
        prepared = kept("two_way", weights.prepare, make) if plain else make()
        prompt, image = two_way(prompt, prepared, images, height * width, weights)
        return prompt, image.unflatten(2, (height, width))

    def mask_vectors(self, tokens: Tensor, wanted: slice) -> Tensor:
        """(B P, K, D) of mask tokens (B P, M, C)."""
        rows = list(range(tokens.shape[1])[wanted])
        return torch.stack(token_mlps(tokens, rows, self.output_hypernetworks_mlps[wanted]), 1)

    def read(
        self, tokens: Tensor, first: int, wanted: slice, others: list[tuple[int, Any]]
    ) -> tuple[Tensor, list[Tensor]]:
        """Of tokens (B P, T, C): the vectors (B P, K, D) of the ``wanted`` mask tokens, the first of which is at
        ``first``, and ``mlp(tokens[:, row])`` of each of the others."""
        rows = [first + k for k in range(self.num_mask_tokens)[wanted]]
        mlps = [*self.output_hypernetworks_mlps[wanted], *(mlp for _, mlp in others)]
        found = token_mlps(tokens, [*rows, *(row for row, _ in others)], mlps)
        return torch.stack(found[: len(rows)], 1), found[len(rows) :]

    def head(self, image: Attended, vectors: Tensor, detail: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B P, K, 4 H, 4 W): products of the up-scaled image tokens with vectors (B P, K, D)."""
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

    def activations(self) -> list[Any]:
        """Those behind the LayerNorm and behind the second convolution."""
        raise NotImplementedError


class TransformersDecoder(Decoder):
    """Mixin of the decoders of transformers, whose up-scaling layers have names of their own."""

    upscale_conv1: Any
    upscale_conv2: Any
    upscale_layer_norm: Any
    activation: Any

    def upscaling(self) -> tuple[Any, Any, Any]:
        return self.upscale_conv1, self.upscale_layer_norm, self.upscale_conv2

    def activations(self) -> list[Any]:
        return [self.activation]

    def uncovered(
        self, attention_similarity: Any, target_embedding: Any, output_attentions: Any = None,
        output_hidden_states: Any = None, **unknown: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Of the arguments of a call, those that the host's path must see. The last two are for the model around the
        decoder, which collects the weights of the decoder's layers by hooks (see ``known.recorded``)."""
        return {"attention_similarity": attention_similarity, "target_embedding": target_embedding} | unknown


def unsupported_transformer(transformer: Any) -> str | None:
    if not len(transformer.layers):
        return "the transformer has no layers"
    for name, module in transformer.named_modules():  # adapters and quantised layers compute something else
        if hasattr(module, "weight") and type(module) not in (nn.Linear, nn.LayerNorm):
            return f"transformer.{name} must be Linear or LayerNorm, got {type(module).__name__}"
    channels, w = transformer.layers[0].self_attn.q_proj.in_features, TwoWayWeights(transformer)
    known = set(map(id, w.all))
    if others := [name for name, p in transformer.named_parameters() if id(p) not in known]:
        return f"the transformer has weights that are not its host's: {others[0]}"
    for name, module in transformer.named_modules():
        if hasattr(module, "q_proj") and not attends(module, w.heads):
            return f"transformer.{name} must have {w.heads} heads, and scale by the square root of their width"
    sizes = {"channels": channels, "channels of a head": channels // w.heads, "width of a head": w.width, "MLP": w.mlp}
    for name, size in sizes.items():
        if size % 16:
            return f"{name} must be a multiple of 16, got {size}"
    if transformer.final_attn_token_to_image.q_proj.out_features != w.heads * w.width:
        return "the attentions between tokens and image must have one width"
    for n, layer in enumerate(transformer.layers):
        if layer.skip_first_layer_pe != (n == 0):
            return "only the first layer may skip the positions"
        activation = getattr(layer.mlp, "act", None) or getattr(layer.mlp, "activation", None)
        if type(activation).__name__ not in ("ReLU", "ReLUActivation"):
            return f"the activation must be ReLU, got {type(activation).__name__}"
        if getattr(layer.mlp, "num_layers", 2) != 2 or len({norm(layer, k).eps for k in (1, 2, 3, 4)}) > 1:
            return "layers with an MLP of two layers and one eps only"
    return None


def attends(attention: Any, heads: int) -> bool:
    width = attention.q_proj.out_features // heads
    own = getattr(attention, "num_attention_heads", None) or attention.num_heads
    return own == heads and math.isclose(getattr(attention, "scaling", width**-0.5), width**-0.5)


CONVOLUTION: dict[str, Any] = {"kernel_size": (2, 2), "stride": (2, 2), "padding": (0, 0), "output_padding": (0, 0)}
CONVOLUTION |= {"dilation": (1, 1), "groups": 1}


def unsupported_head(layers: tuple[Any, Any, Any], activations: list[Any]) -> str | None:
    conv1, norm, conv2 = layers
    for conv in (conv1, conv2):
        plain = type(conv) is nn.ConvTranspose2d and conv.bias is not None
        if not plain or any(getattr(conv, name) != value for name, value in CONVOLUTION.items()):
            return f"the up-scaling must have transposed convolutions of 2 x 2, got {conv}"
    if getattr(norm, "data_format", "channels_first") != "channels_first":
        return "the LayerNorm of the up-scaling must be over the channels"
    if others := [act for act in activations if not is_gelu(act)]:
        return f"the up-scaling must have GELU, got {others[0]}"
    return None


def constant(dense: Tensor) -> bool:
    """Whether a dense prompt is one vector, expanded over the image: there is no mask prompt."""
    return dense.stride()[2:] == (0, 0)


def one_position(position: Tensor) -> bool:
    """Whether all images of a batch have the same positions."""
    return position.shape[0] == 1 or position.stride(0) == 0 or all(equal(p, position[0]) for p in position[1:])


__all__ = ["Attended", "Decoder", "TransformersDecoder", "constant", "one_position"]
