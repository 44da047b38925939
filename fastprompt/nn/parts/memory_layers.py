"""The layers of memory attention: their parts, and whether they are what the drop-ins were written for."""

from typing import Any, NamedTuple

from torch import nn

from fastprompt.nn.parts.drop_in import DropIn
from fastprompt.nn.parts.known import other_parts
from fastprompt.nn.parts.relative import UNIT


class Attention(NamedTuple):
    """Of one head."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    scale: float  # of the logits


class Parts(NamedTuple):
    """Of a layer, in the order of their use."""

    norm1: nn.LayerNorm
    own: Attention
    norm2: nn.LayerNorm
    cross: Attention
    norm3: nn.LayerNorm
    mlp1: nn.Linear
    mlp2: nn.Linear


class MemoryLayers(DropIn):
    """Mixin: what a host calls its parts."""

    layers: Any
    final = "layer_norm"  # names of the host
    norms = "layer_norm1", "layer_norm2", "layer_norm3"
    attention_parts: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    mlp_parts: tuple[str, ...] = ("linear1", "linear2")
    layer_parts: tuple[str, ...] = ("dropout", "dropout1", "dropout2", "dropout3", "activation")
    host_parts: tuple[str, ...] = ("rotary_emb",)
    attentions: tuple[str, str] = ("RoPEAttention", "RoPEAttention")  # how the names of their classes end

    @classmethod
    def unsupported(cls, host: Any) -> str | None:
        """Why a host cannot be replaced; None: it can."""
        if not len(host.layers):
            return "it has no layers"
        reason = other_parts(host, "layers", cls.final, *cls.host_parts)
        norm = getattr(host, cls.final)
        if type(norm) is not nn.LayerNorm:
            return f"{cls.final} must be LayerNorm, got {type(norm).__name__}"
        return reason or next(filter(None, (cls.strange_layer(host, layer) for layer in host.layers)), None)

    @classmethod
    def strange_layer(cls, host: Any, layer: Any) -> str | None:
        if type(layer).__name__ != f"{type(host).__name__}Layer":
            return f"a layer is a {type(layer).__name__}"
        kinds = (layer.self_attn, layer.cross_attn_image)
        if reason := other_parts(layer, "self_attn", "cross_attn_image", *cls.norms, *cls.mlp_parts, *cls.layer_parts):
            return reason
        for kind, name in zip(kinds, cls.attentions, strict=True):
            if not type(kind).__name__.endswith(name):
                return f"an attention is a {type(kind).__name__}"
            if reason := other_parts(kind, *cls.attention_parts):
                return reason
            if cls.heads(kind) != 1:
                return f"attentions must have one head, got {cls.heads(kind)}"
        if not getattr(layer.cross_attn_image, "rope_k_repeat", True):
            return "the positions of keys must repeat from frame to frame"
        return cls.strange_parts(cls.parts(layer)) or cls.strange_options(layer)

    @classmethod
    def strange_parts(cls, parts: Parts) -> str | None:
        for norm in (parts.norm1, parts.norm2, parts.norm3):
            if type(norm) is not nn.LayerNorm or norm.weight is None or norm.bias is None:
                return f"norms must be LayerNorm with weight and bias, got {norm}"
        linears = [*parts.own[:4], *parts.cross[:4], parts.mlp1, parts.mlp2]
        for linear in linears:
            if type(linear) is not nn.Linear:
                return f"linear layers must be Linear, got {type(linear).__name__}"
            if linear.in_features % UNIT or linear.out_features % UNIT:
                return f"the sizes of linear layers must be multiples of {UNIT}"
        channels, width = parts.own.query.in_features, parts.own.query.out_features
        depth, hidden = parts.cross.key.in_features, parts.mlp1.out_features
        sizes = [(channels, width)] * 3 + [(width, channels), (channels, width)] + [(depth, width)] * 2
        sizes += [(width, channels), (channels, hidden), (hidden, channels)]
        if width % (2 * UNIT) or [(x.in_features, x.out_features) for x in linears] != sizes:
            return f"the sizes of its layers must fit each other, and the width of a head be a multiple of {2 * UNIT}"
        return None

    @classmethod
    def strange_options(cls, layer: Any) -> str | None:
        """Of what a host calls its activation, and its switches."""
        activation = cls.activation(layer)
        return None if type(activation) is nn.ReLU else f"the activation must be ReLU, got {activation}"

    @classmethod
    def heads(cls, attention: Any) -> int:
        heads: int = attention.num_attention_heads
        return heads

    @classmethod
    def scale(cls, attention: Any) -> float:
        return float(attention.scaling)

    @classmethod
    def activation(cls, layer: Any) -> Any:
        return layer.activation

    @classmethod
    def attention(cls, host: Any) -> Attention:
        query, key, value, out = (getattr(host, name) for name in cls.attention_parts)
        return Attention(query, key, value, out, cls.scale(host))

    @classmethod
    def parts(cls, layer: Any) -> Parts:
        own, cross = map(cls.attention, (layer.self_attn, layer.cross_attn_image))
        first, second, third = (getattr(layer, name) for name in cls.norms)
        mlp1, mlp2 = cls.mlp(layer)
        return Parts(first, own, second, cross, third, mlp1, mlp2)

    @classmethod
    def mlp(cls, layer: Any) -> tuple[Any, Any]:
        first, second = (getattr(layer, name) for name in cls.mlp_parts)
        return first, second


__all__ = ["Attention", "MemoryLayers", "Parts"]
