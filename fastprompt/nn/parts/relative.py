"""Attention with decomposed relative position, whatever library it comes from."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastprompt import _gpu
from fastprompt.nn.parts.host_path import falls_back
from fastprompt.nn.parts.image_cache import Seen
from fastprompt.nn.parts.known import collecting, other_parts, unknown
from fastprompt.ops.encoder.operators import normalised_linear
from fastprompt.ops.encoder.relative import relative_position_attention


class RelativeAttention(nn.Module):
    """Mixin of a host's attention: ``qkv`` and ``proj`` stay layers of the host, all between them is one operator."""

    qkv: Any
    proj: Any
    rel_pos_h: Tensor
    rel_pos_w: Tensor
    scale: float
    dropout: float = 0.0

    @classmethod
    def unsupported(cls, host: Any) -> str | None:
        """Why a host cannot be replaced; None: it can."""
        used = getattr(host, "use_rel_pos", True) and getattr(host, "use_relative_position_embeddings", True)
        if not used or not hasattr(host, "rel_pos_h"):
            return "it has no relative position"
        heads = getattr(host, "num_attention_heads", None) or host.num_heads
        if not math.isclose(host.scale, (host.proj.in_features // heads) ** -0.5):  # sdpa hosts do not look at it
            return "its scale must be one by the square root of the width of a head"
        return other_parts(host, "qkv", "proj")

    def falls_back(self, x: Tensor, output_attentions: Any = None) -> bool:
        reason = unknown(self, x) or refusal(x, self.rel_pos_h, output_attentions)
        if self.training and self.dropout:
            reason = reason or "attention dropout in training"
        return falls_back(self, reason)

    def attend(self, x: Tensor, heads: int) -> Tensor:
        """(B, h, w, C) to the same."""
        batch, height, width, _ = x.shape
        q, k, v = linear(self.qkv, x).view(batch, height * width, 3, heads, -1).unbind(2)
        tables = self.table("rel_pos_h", height), self.table("rel_pos_w", width)
        out = relative_position_attention(q, k, v, *tables, size=(height, width), scale=self.scale)
        return linear(self.proj, out.view(batch, height, width, -1))

    def table(self, name: str, size: int) -> Tensor:
        """The parameter, interpolated to ``size``: once for each value that it has."""
        rel: Tensor = getattr(self, name)
        if rel.shape[0] == 2 * size - 1:
            return rel
        if torch.compiler.is_compiling() or (torch.is_grad_enabled() and rel.requires_grad) or rel.is_inference():
            return interpolated(rel, size)
        kept = self.__dict__.setdefault("_fastprompt_tables", Tables())
        mark, found = (size, torch.is_inference_mode_enabled()), kept.get(name)
        if found is None or found[0] != mark or not found[1].are([rel]):
            found = kept[name] = mark, Seen([rel]), interpolated(rel.detach(), size)
        return found[2]


def refusal(x: Tensor, rel_pos: Tensor, output_attentions: Any) -> str | None:
    """Why a call is not covered by any of our attentions; None: it is."""
    if output_attentions or "attentions" in collecting():
        return "the weights are asked for"
    if x.device.type not in ("cpu", "cuda"):
        return "there is no kernel for this device"
    if _gpu.is_cuda(x):
        why = None if torch.compiler.is_compiling() else _gpu.triton_reason()
        return why or (None if {x.dtype, rel_pos.dtype} <= FLOATS else f"its dtype is {x.dtype}")
    if x.dtype != torch.float32 or rel_pos.dtype != torch.float32:
        return "it computes in float32 only"
    return None


FLOATS = {torch.float32, torch.float16, torch.bfloat16}
UNIT = 16  # the sizes of a linear layer that our operators take are multiples of it


def linear(layer: Any, x: Tensor) -> Any:
    """``layer(x)``, on the CPU by our operator where it does the same."""
    plain = x.device.type == "cpu" and type(layer) is nn.Linear and fits(layer)
    if not plain or not x.dtype == layer.weight.dtype == torch.float32:
        return layer(x)
    if torch.is_autocast_enabled("cpu"):  # of which the host's layer takes its dtype
        return layer(x)
    if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in layer.parameters())):
        return layer(x)
    return normalised_linear(x, [], 0.0, weights(layer))


def fits(layer: nn.Linear | nn.LayerNorm) -> bool:
    return not any(n % UNIT for n in layer.weight.shape)


def weights(layer: nn.Linear) -> list[Tensor]:
    bias: Any = layer.bias  # may be None
    return [layer.weight, layer.weight.new_zeros(layer.out_features) if bias is None else bias]


class Tables(dict[str, Any]):
    """Interpolated tables of a module, each with the mark of the parameter that it was made of. Copies and pickles of
    the module are empty of them."""

    def __reduce__(self) -> Any:
        return Tables, ()


def interpolated(rel: Tensor, size: int) -> Tensor:
    """As the hosts do it."""
    return F.interpolate(rel.T[None], size=2 * size - 1, mode="linear")[0].T


class TransformersAttention(RelativeAttention):
    """Mixin of the attentions of transformers, which return their weights as well: None here, and in sdpa hosts."""

    num_attention_heads: int

    def forward(self, hidden_states: Tensor, output_attentions: bool | None = None) -> Any:
        if self.falls_back(hidden_states, output_attentions):
            return super().forward(hidden_states, output_attentions)
        return self.attend(hidden_states, self.num_attention_heads), None


class SegmentAnythingAttention(RelativeAttention):
    """Mixin of ``image_encoder.Attention`` of segment-anything's own code."""

    num_heads: int

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) if self.falls_back(x) else self.attend(x, self.num_heads)
