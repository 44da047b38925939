"""The mask decoder of SAM-HQ, which transformers and its own package write in two ways."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt.nn.parts.decoder import Attended, Decoder
from fastprompt.nn.parts.image_cache import ImageCache
from fastprompt.nn.parts.known import parameters

Three = tuple[Any, Any, Any]  # convolution, LayerNorm and convolution, with a GELU before the last


class HqLayers(NamedTuple):
    """The layers that SAM-HQ adds."""

    token: Any
    mlp: Any
    encode: Three  # of the image
    compress: Three  # of the encoder's early features
    refine: Three  # of the up-scaled embedding


class HqDecoder(Decoder):
    """Mixin: as SAM's, and one more mask, of the up-scaled embedding refined by two 3 x 3 convolutions plus features
    of the image at that scale."""

    def hq(self) -> HqLayers:
        raise NotImplementedError

    def own_tokens(self) -> Tensor:
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight, self.hq().token.weight])

    def vectors(self, tokens: Tensor, wanted: slice) -> tuple[Tensor, Tensor]:
        """(B P, K, D) of the wanted masks of SAM, (B P, 1, D) of that of HQ, whose token is the last of the masks'."""
        count = self.num_mask_tokens - 1
        return self.mask_vectors(tokens[:, 1 : 1 + count], wanted), self.hq().mlp(tokens[:, 1 + count : 2 + count])

    def upscaled(self, image: Attended) -> Tensor:
        """(B, D, 4 H, 4 W): the embedding itself, as the masks of unit vectors."""
        like = image if isinstance(image, Tensor) else image.values
        unit = torch.eye(self.upscaling()[2].out_channels, dtype=like.dtype, device=like.device)
        return self.head(image, unit.expand(len(like), -1, -1))

    def features(self, image: Tensor, early: Tensor | None) -> Tensor:
        """(B, D, 4 H, 4 W) of images (B, C, H, W) and the encoder's early features (B, H, W, C')."""
        found = between(image, self.hq().encode)
        return found if early is None else found + between(early.permute(0, 3, 1, 2), self.hq().compress)

    def once(self, image: Tensor, others: list[Tensor | None], layers: Any, make: Callable[[], Any]) -> Any:
        """``make()``, for all prompts of an image and for the next click."""
        cache = self.__dict__.setdefault("_fastprompt_features", ImageCache())
        watched = [p for layer in layers for p in parameters(layer)]
        return cache.get(image, [x for x in others if x is not None], watched, make)


def between(x: Tensor, layers: Three) -> Tensor:
    first, norm, last = layers
    return last(F.gelu(normed(first(x), norm)))


def normed(x: Tensor, norm: Any) -> Tensor:
    """LayerNorm over the channels, which lie together in the result: the next product reads them so, and torch's own
    kernel takes them so, in a tenth of the time of a mean and a variance over axis 1."""
    x = x.permute(0, 2, 3, 1)
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps).permute(0, 3, 1, 2)


def product(up: Tensor, vector: Tensor, layers: Three) -> Tensor:
    """(H, W): the vector times ``between(up, layers)`` of one image. The vector goes into the last convolution, which
    then has one output channel: a product with its nine taps, and their sum, a sixth of the time of all channels."""
    first, norm, last = layers
    middle = F.gelu(normed(first(up.contiguous(memory_format=torch.channels_last)), norm))
    taps = torch.tensordot(vector, last.weight, 1).flip(1, 2).flatten(1)  # (C, 9)
    planes = taps.T @ middle.permute(0, 2, 3, 1).reshape(-1, middle.shape[1]).T
    return F.fold(planes, middle.shape[2:], 3, padding=1)[0] + vector @ last.bias


__all__ = ["HqDecoder", "HqLayers", "between", "product"]
