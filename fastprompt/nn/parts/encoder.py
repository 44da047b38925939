"""Layers of image encoders, whatever library they come from."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastprompt import _gpu
from fastprompt.nn.parts.host_path import falls_back
from fastprompt.nn.parts.known import is_gelu, other_parts, own_parameters, unknown
from fastprompt.nn.parts.relative import UNIT, RelativeAttention, fits, refusal, weights
from fastprompt.ops.encoder.operators import normalised_linear, residual_mlp
from fastprompt.ops.encoder.relative import relative_position_attention


class Parts(NamedTuple):
    """Of a layer, in the order of their use."""

    norm1: nn.LayerNorm
    qkv: nn.Linear
    project: nn.Linear
    norm2: nn.LayerNorm
    mlp1: nn.Linear
    mlp2: nn.Linear


class EncoderLayer(nn.Module):
    """Mixin of a host's layer: LayerNorms, linears, GELU and residuals in two operators, the attention in a third.
    Windows stay where they are in the image; nothing is partitioned or padded."""

    attention_name = "attn"  # names of the host
    norms = "norm1", "norm2"
    heads = "num_heads"
    further: tuple[str, ...] = ("drop_path",)  # modules that are asked for in training, or called as they are
    mlp_parts: tuple[str, ...] = ("lin1", "lin2", "act")
    activation_name = "act"
    layer_norms: tuple[Any, ...] = (nn.LayerNorm,)
    mlp: Any

    @classmethod
    def unsupported(cls, host: Any) -> str | None:
        """Why a host cannot be replaced; None: it can."""
        attention = getattr(host, cls.attention_name)
        found = cls.parts(host)
        parts = (*cls.norms, cls.attention_name, "mlp", *cls.further)
        reason = other_parts(host, *parts) or cls.unsupported_attention(attention)
        if reason := reason or other_parts(host.mlp, *cls.mlp_parts):
            return reason
        for name, part in found._asdict().items():
            want = cls.layer_norms if name.startswith("norm") else (nn.Linear,)
            if type(part) not in want:  # adapters and quantised layers compute something else
                return f"{name} must be {want[-1].__name__}, got {type(part).__name__}"
            if part.weight is None or not fits(part):
                return f"the sizes of {name} must be multiples of {UNIT}"
        activation = getattr(host.mlp, cls.activation_name)
        return None if is_gelu(activation) else f"the activation must be GELU, got {activation}"

    @classmethod
    def unsupported_attention(cls, attention: Any) -> str | None:
        raise NotImplementedError

    @classmethod
    def parts(cls, host: Any) -> Parts:
        attention = getattr(host, cls.attention_name)
        first, second = (getattr(host, name) for name in cls.norms)
        return Parts(first, attention.qkv, attention.proj, second, host.mlp.lin1, host.mlp.lin2)

    def refusal(self, x: Tensor, output_attentions: Any = None) -> str | None:
        """Why a call is not covered; None: it is."""
        if reason := unknown(self, x):
            return reason
        gradient = torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in own_parameters(self)))
        if gradient and not _gpu.is_cuda(x):
            return "gradients are enabled (its attention has one; wrap the call in torch.no_grad())"
        if self.training and self.drops():
            return "it is in training"
        return refusal(x, self.parts(self).qkv.weight, output_attentions)

    def drops(self) -> bool:
        """Whether something is left out at random in training."""
        return bool(getattr(getattr(self, self.attention_name), "dropout", False)) or hasattr(self, "drop_path")

    def queries_keys_values(self, x: Tensor) -> Tensor:
        """(…, 3, heads, width) of the layer's input (…, C)."""
        norm, qkv = self.parts(self)[:2]
        heads: int = getattr(getattr(self, self.attention_name), self.heads)
        if _gpu.is_cuda(x):  # cuBLAS is at its limit
            return qkv(norm(x)).unflatten(-1, (3, heads, -1))
        rows: Tensor = normalised_linear(x, [norm.weight, norm.bias], norm.eps, weights(qkv))
        return rows.unflatten(-1, (3, heads, -1))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of the layer: projection, residual, MLP, residual."""
        _, _, project, norm, mlp1, mlp2 = self.parts(self)
        if _gpu.is_cuda(x):
            x = x + project(attended)
            return x + self.mlp(norm(x))
        mlp = [*weights(mlp1), *weights(mlp2)]
        out: Tensor = residual_mlp(x, attended, weights(project), [norm.weight, norm.bias], norm.eps, mlp, "gelu")
        return out


class RelativeLayer(EncoderLayer):
    """With relative position; on a GPU the host's own modules and the attention."""

    window_size: int = 0

    @classmethod
    def unsupported_attention(cls, attention: Any) -> str | None:
        return RelativeAttention.unsupported(attention)

    def attend(self, x: Tensor) -> Tensor:
        """Attention of the layer's input (B, h, w, C), before its projection."""
        attention: Any = getattr(self, self.attention_name)
        height, width = x.shape[1:3]
        rows = self.queries_keys_values(x.flatten(1, 2))
        window = (self.window_size, self.window_size) if self.window_size else None
        cell = window or (height, width)
        tables = [RelativeAttention.table(attention, f"rel_pos_{axis}", n) for axis, n in zip("hw", cell, strict=True)]
        # Key and value of zeros, which the host pads with.
        padding = tuple(weights(attention.qkv)[1].view(rows.shape[2:])[1:]) if window else None
        place: Any = {"size": (height, width), "window": window, "padding": padding, "scale": attention.scale}
        out = relative_position_attention(*rows.unbind(2), *tables, **place)
        return out.view(x.shape)


class TransformersLayer(RelativeLayer):
    """Mixin of the layers of transformers' Sam and SamHQ."""

    norms = "layer_norm1", "layer_norm2"
    heads = "num_attention_heads"

    def forward(self, hidden_states: Tensor) -> Any:
        if falls_back(self, self.refusal(hidden_states)):
            return super().forward(hidden_states)
        return self.finish(hidden_states, self.attend(hidden_states))


class SegmentAnythingLayer(RelativeLayer):
    """Mixin of ``image_encoder.Block`` of segment-anything's own code."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) if falls_back(self, self.refusal(x)) else self.finish(x, self.attend(x))
