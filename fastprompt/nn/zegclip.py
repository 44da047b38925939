"""ZegCLIP's decoder attention: drop-in for ``models.decode_heads.decode_seg`` of its repository."""

import importlib
from typing import Any

import torch
from torch import Tensor

from fastprompt.models import is_disabled
from fastprompt.ops import memory_attention

host: Any = importlib.import_module("models.decode_heads.decode_seg")  # the repository's own package is called models


class Attention(host.Attention):
    """``Attention(xq, xk, xv)``: the class embeddings read the patches; the masks are the mean of the heads' logits.

    The mean over the heads of q_h . k_h is the product of all channels over the number of heads: one matrix, where the
    host makes, copies and adds one for each head. The weights are never in memory.
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
        missing = [name for name in names if not hasattr(module, name)]
        return f"it is another class of that name: it has no {missing[0]}" if missing else None

    def forward(self, xq: Tensor, xk: Tensor, xv: Tensor) -> Any:
        plain = xq.dtype == torch.float32 and xq.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        if is_disabled() or not plain or (self.training and self.attn_drop.p):
            return super().forward(xq, xk, xv)
        q, k, v = self.q(xq), self.k(xk), self.v(xv)
        logits = (self.scale / self.num_heads * q) @ k.transpose(1, 2)
        heads = (x.unflatten(2, (self.num_heads, -1)) for x in (q, k, v))
        out = self.proj_drop(self.proj(memory_attention(*heads, scale=self.scale)))
        return out.transpose(0, 1), logits
