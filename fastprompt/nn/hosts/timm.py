"""``timm``: a vision transformer that drops tokens before one of its blocks."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.models import vision_transformer as host
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fastprompt._pruning import Prune, Pruned
from fastprompt.nn.parts.pruned import PrunedEncoder, at_is_too_high, convolution_weights, linear_weights, scores
from fastprompt.ops.pruning.selection import prune_tokens


class VisionTransformer(PrunedEncoder, host.VisionTransformer):
    """``VisionTransformer`` whose later blocks see the class token, the registers and the best of the patches.

    ``forward_features`` gives all tokens, normalised, in their places: those that were dropped have the value that they
    had before block ``at``. A head that pools the patches averages over these as well.
    """

    _pos_embed: Any
    blocks: Any
    embed_dim: int
    grad_checkpointing: bool
    has_class_token: bool
    norm: Any
    norm_pre: Any
    num_prefix_tokens: int
    patch_drop: Any
    patch_embed: Any

    @classmethod
    def unsupported(cls, model: Any, prune: Prune) -> str | None:
        if prune.score == "cls" and not model.has_class_token:
            return 'score="cls" needs a class token'
        return at_is_too_high(prune, model.blocks)

    def forward_features(self, x: Tensor, *masks: Any, **more: Any) -> Tensor:
        reasons = {
            "an attention mask is given": any(m is not None and m is not False for m in (*masks, *more.values())),
            "patches are dropped in training": self.training and isinstance(self.patch_drop, host.PatchDropout),
        }
        if self.falls_back(x, reasons):
            return super().forward_features(x, *masks, **more)
        at, size = self._fastprompt_prune.at, self.patch_embed.dynamic_feat_size(tuple(x.shape[-2:]))
        x = self.norm_pre(self.patch_drop(self._pos_embed(self.patch_embed(x))))
        x = self.through(self.blocks[:at], x)
        kept, restore = self.select(x, size)
        return self.norm(restore(self.through(self.blocks[at:], kept)))

    def forward_intermediates(self, x: Tensor, *arguments: Any, **more: Any) -> Any:
        self.falls_back(x, {"intermediate features are those of all tokens": True})
        return super().forward_intermediates(x, *arguments, **more)

    def through(self, blocks: Any, x: Tensor) -> Tensor:
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.grad_checkpointing else block(x)
        return x

    def select(self, x: Tensor, size: tuple[int, int]) -> Any:
        """The tokens that stay, and the way back to all of them."""
        prune, prefix = self._fastprompt_prune, self.num_prefix_tokens
        patches, cls = x[:, prefix:], x[:, :1] if self.has_class_token else None
        found = scores(prune, patches, size, self.patch_embed.feat_ratio(as_scalar=False), cls)
        always = torch.arange(x.shape[1], device=x.device) < prefix
        count = prefix + prune.count(patches.shape[1])
        return prune_tokens(x, F.pad(found, (prefix, 0)), count=count, always_keep=always)

    def pruned(self) -> Pruned:
        prune, patches, prefix = self._fastprompt_prune, self.patch_embed.num_patches, self.num_prefix_tokens
        all_tokens, kept = prefix + patches, prefix + prune.count(patches)
        tokens = tuple(all_tokens if n < prune.at else kept for n in range(len(self.blocks)))
        per_token = [linear_weights(block) for block in self.blocks]

        def work(counts: tuple[int, ...]) -> int:
            blocks = (n * w + 2 * n * n * self.embed_dim for n, w in zip(counts, per_token, strict=True))
            return patches * convolution_weights(self.patch_embed) + sum(blocks)

        return Pruned(prune, tokens, None, work(tokens) / work((all_tokens,) * len(tokens)))
