"""Drop-ins for ``timm.models.hieradet_sam2``."""

from typing import Any

from timm.layers import LayerNorm
from timm.models import hieradet_sam2 as host
from torch import Tensor, nn

from fastprompt.nn.parts.encoder import Parts
from fastprompt.nn.parts.hiera import HieraLayer, HieraPatches


class HieraPatchEmbed(HieraPatches, host.HieraPatchEmbed):
    """``HieraPatchEmbed`` that leaves the channels of a token side by side."""


class MultiScaleBlock(HieraLayer, host.MultiScaleBlock):
    """``MultiScaleBlock`` in three operators, its windows where they are."""

    pooled = "q_stride"
    further = "proj", "pool", "drop_path1", "drop_path2", "ls1", "ls2"
    mlp_parts = "fc1", "fc2", "act", "norm", "drop1", "drop2"
    layer_norms = LayerNorm, nn.LayerNorm

    @classmethod
    def unsupported(cls, layer: Any) -> str | None:
        plain = type(layer.ls1), type(layer.ls2), type(layer.mlp.norm)
        if plain != (nn.Identity,) * 3:
            return "it scales its branches, or has a norm in its MLP"
        if getattr(layer.norm1, "_fast_norm", False) or getattr(layer.norm2, "_fast_norm", False):
            return "its norms are the fast ones"
        return super().unsupported(layer)

    @classmethod
    def parts(cls, layer: Any) -> Parts:
        attention, mlp = layer.attn, layer.mlp
        return Parts(layer.norm1, attention.qkv, attention.proj, layer.norm2, mlp.fc1, mlp.fc2)

    def drops(self) -> bool:
        return True

    def forward(self, x: Tensor) -> Any:
        found = self.run(x)
        return super().forward(x) if found is None else found
