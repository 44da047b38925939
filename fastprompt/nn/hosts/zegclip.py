"""ZegCLIP's decoder attention: drop-in for ``models.decode_heads.decode_seg`` of its repository."""

import importlib
from typing import Any

import torch
from torch import Tensor

from fastprompt.nn.parts.host_path import falls_back
from fastprompt.nn.parts.known import unknown
from fastprompt.nn.parts.signature import another_class
from fastprompt.ops.attention.prompts import prompt_to_image_attention
from fastprompt.ops.attention.weights import AttentionWeights

host: Any = importlib.import_module("models.decode_heads.decode_seg")  # the repository's own package is called models


class Attention(host.Attention):
    """``Attention(xq, xk, xv)``: the class embeddings read the patches; the masks are the mean of the heads' logits.

    With few classes the layers of keys and values are absorbed into the classes: half of the products and less. The
    mean over the heads of q_h . k_h is the product of all channels over the number of heads, one matrix, where the host
    makes, copies and adds one for each head. With many classes, or other values than keys, the host is as fast.
    """

    q: Any
    k: Any
    v: Any
    proj: Any
    proj_drop: Any
    attn_drop: Any
    num_heads: int
    scale: float

    @classmethod
    def unsupported(cls, module: Any) -> str | None:
        """Why a host cannot be replaced; None: it can."""
        names = ("q", "k", "v", "proj", "proj_drop", "attn_drop", "num_heads", "scale")
        return another_class(module, names, type(module).forward, ["xq", "xk", "xv"])

    def forward(self, xq: Tensor, xk: Tensor, xv: Tensor) -> Any:
        if not self._pays(xq, xk, xv) or falls_back(self, unknown(self, xq, xk, xv)):
            return super().forward(xq, xk, xv)
        patches = xk.transpose(1, 2)
        layers = (self.q, self.k, self.v, self.proj)
        weights = AttentionWeights(*(p for layer in layers for p in (layer.weight, layer.bias)))
        image = patches.reshape(len(xk), -1, 1, xk.shape[1])
        out = prompt_to_image_attention(xq, image, weights, heads=self.num_heads, scale=self.scale, form="absorbed")
        q = self.scale / self.num_heads * self.q(xq)
        logits = (q @ self.k.weight) @ patches
        if self.k.bias is not None:
            logits = logits + (q @ self.k.bias)[..., None]
        return self.proj_drop(out).transpose(0, 1), logits

    def _pays(self, xq: Tensor, xk: Tensor, xv: Tensor) -> bool:
        if xq.dtype != torch.float32 or xq.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return False
        same = xk is xv or (xk.data_ptr() == xv.data_ptr() and xk.shape == xv.shape and xk.stride() == xv.stride())
        few = 2 * xq.shape[1] * self.num_heads <= xq.shape[2]
        return same and few and not (self.training and self.attn_drop.p)
