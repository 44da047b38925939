"""CRIS' decoder layer: drop-in for ``model.layers`` of its repository."""

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from fastprompt.nn.parts.host_path import falls_back
from fastprompt.nn.parts.known import unknown
from fastprompt.nn.parts.signature import another_class
from fastprompt.ops.memory.reading import memory_attention

host: Any = importlib.import_module("model.layers")


class TransformerDecoderLayer(host.TransformerDecoderLayer):
    """``TransformerDecoderLayer(vis, txt, vis_pos, txt_pos, pad_mask)``: pixels attend to pixels, then to words.

    The host asks its attentions for weights that it drops; here the pixels' own attention, N x N for every head, is one
    read that never has them in memory, and the words' is torch's without weights.
    """

    norm1: Any
    norm2: Any
    norm3: Any
    self_attn_norm: Any
    cross_attn_norm: Any
    self_attn: nn.MultiheadAttention
    multihead_attn: nn.MultiheadAttention
    ffn: Any
    dropout1: Any
    dropout2: Any
    dropout3: Any

    @classmethod
    def unsupported(cls, module: Any) -> str | None:
        """Why a host cannot be replaced; None: it can."""
        names = ("norm1", "norm2", "norm3", "self_attn_norm", "cross_attn_norm", "self_attn", "multihead_attn", "ffn")
        all_names = (*names, "dropout1", "dropout2", "dropout3")
        arguments = ["vis", "txt", "vis_pos", "txt_pos", "pad_mask"]
        if reason := another_class(module, all_names, type(module).forward, arguments):
            return reason
        plain = all(type(x) is nn.MultiheadAttention for x in (module.self_attn, module.multihead_attn))
        inner = plain and module.self_attn._qkv_same_embed_dim and module.self_attn.bias_k is None
        if not inner or module.self_attn.batch_first:
            return "its attention is not nn.MultiheadAttention's plain form"
        return None

    def forward(self, vis: Tensor, txt: Tensor, vis_pos: Any, txt_pos: Any, pad_mask: Any) -> Any:
        plain = vis.dtype == torch.float32 and vis.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        if not plain or (self.training and self.self_attn.dropout) or falls_back(self, unknown(self, vis, txt)):
            return super().forward(vis, txt, vis_pos, txt_pos, pad_mask)
        seen = self.norm1(vis)
        vis = vis + self.dropout1(self.self_attn_norm(own_attention(self.self_attn, placed(seen, vis_pos), seen)))
        query, key = placed(self.norm2(vis), vis_pos), placed(txt, txt_pos)
        found = self.multihead_attn(query, key, txt, key_padding_mask=pad_mask, need_weights=False)[0]
        vis = vis + self.dropout2(self.cross_attn_norm(found))
        return vis + self.dropout3(self.ffn(self.norm3(vis)))


def placed(x: Tensor, position: Any) -> Tensor:
    return x if position is None else x + position.to(x.device)


def own_attention(layer: nn.MultiheadAttention, x: Tensor, value: Tensor) -> Tensor:
    """Queries and keys of ``x`` (N, B, C), values of ``value``."""
    size = layer.embed_dim
    weight, bias = layer.in_proj_weight, layer.in_proj_bias
    rows = nn.functional.linear(x.transpose(0, 1), weight[: 2 * size], None if bias is None else bias[: 2 * size])
    v = nn.functional.linear(value.transpose(0, 1), weight[2 * size :], None if bias is None else bias[2 * size :])
    q, k, v = (y.unflatten(2, (layer.num_heads, -1)) for y in (*rows.chunk(2, 2), v))
    return layer.out_proj(memory_attention(q, k, v)).transpose(0, 1)
