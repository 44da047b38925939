"""Hiera, the image encoder of SAM 2, whatever library it comes from."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastprompt import _gpu
from fastprompt._switches import is_disabled
from fastprompt.nn.parts.encoder import EncoderLayer
from fastprompt.nn.parts.host_path import falls_back
from fastprompt.nn.parts.known import other_parts
from fastprompt.nn.parts.positions import Positions
from fastprompt.nn.parts.relative import fits, weights
from fastprompt.ops.encoder.operators import grid_attention, grid_layer


class HieraLayer(EncoderLayer):
    """Mixin of a block: one operator, windows where they lie, queries pooled as they are read, no padding; on a GPU
    the host's own layers and the attention."""

    pooled = "query_stride"  # name of the host: None, or the sides of a pool
    further: tuple[str, ...] = ("proj",)
    dim: int
    dim_out: int
    window_size: Any
    attn: Any
    proj: Any

    @classmethod
    def unsupported(cls, host: Any) -> str | None:
        if reason := super().unsupported(host):
            return reason
        pool, window = cls.pool_of(host), cls.window_of(host)
        if (host.dim == host.dim_out) != (pool == 1):
            return "channels must grow where queries are pooled, and only there"
        if pool > 1 and (type(host.proj) is not nn.Linear or not fits(host.proj)):
            return f"proj must be a Linear with sizes that are multiples of 16, got {host.proj}"
        if len(set(getattr(host, cls.pooled) or (1,))) > 1 or window[0] != window[1] or window[0] % pool:
            return "pools and windows must be squares, windows made of whole pools"
        if pool > 1 and not window[0]:
            return "queries are pooled in windows only"
        return None

    @classmethod
    def unsupported_attention(cls, attention: Any) -> str | None:
        width = attention.proj.in_features // getattr(attention, cls.heads)
        if not math.isclose(getattr(attention, "scale", width**-0.5), width**-0.5):
            return "its scale must be one by the square root of the width of a head"
        return other_parts(attention, "qkv", "proj", "q_pool")

    @classmethod
    def pool_of(cls, host: Any) -> int:
        sides = getattr(host, cls.pooled)
        return sides[0] if sides else 1

    @classmethod
    def window_of(cls, host: Any) -> tuple[int, int]:
        """(0, 0): all tokens attend to each other."""
        size = host.window_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    def refusal(self, x: Tensor, output_attentions: Any = None) -> str | None:
        if any(n % self.pool_of(self) for n in x.shape[1:3]):
            return "the picture has an odd number of rows or columns of tokens"
        return super().refusal(x, output_attentions)

    def run(self, x: Tensor) -> Tensor | None:
        """None: the host's path."""
        if falls_back(self, self.refusal(x)):
            return None
        if _gpu.is_cuda(x):
            return self.on_gpu(x)
        norm1, qkv, project, norm2, mlp1, mlp2 = self.parts(self)
        residual = [] if self.dim == self.dim_out else weights(self.proj)
        linear = weights(qkv), residual, weights(project)
        norms = [norm1.weight, norm1.bias], [norm2.weight, norm2.bias]
        mlp = [*weights(mlp1), *weights(mlp2)]
        place = getattr(self.attn, self.heads), self.window_of(self)[0], self.pool_of(self)
        out: Tensor = grid_layer(x, norms[0], *linear, norms[1], mlp, *place, [norm1.eps, norm2.eps], "gelu")
        return out

    def on_gpu(self, x: Tensor) -> Tensor:
        """The host's own layers, and the attention between them: cuBLAS is at its limit."""
        norm, qkv = self.parts(self)[:2]
        size, pool, heads = list(x.shape[1:3]), self.pool_of(self), getattr(self.attn, self.heads)
        y = norm(x)
        rows = qkv(y.flatten(1, 2)).unflatten(-1, (3, heads, -1))
        # Key and value of zeros, which the host pads with.
        padding = weights(qkv)[1].to(rows.dtype).view(rows.shape[2:])[1:]
        place = size, list(self.window_of(self)), pool, rows.shape[-1] ** -0.5
        attended = grid_attention(*rows.unbind(2), *padding, *place).flatten(2)
        if pool > 1:
            x = F.max_pool2d(self.proj(y).permute(0, 3, 1, 2), pool).permute(0, 2, 3, 1)
        return self.finish(x, attended.view(*x.shape[:3], -1))


class HieraPatches(nn.Module):
    """Mixin of the first convolution: it leaves the channels of a token side by side, as the blocks read them (a
    picture of 1024 x 1024, with the positions added: 41 ms instead of 99)."""

    @classmethod
    def unsupported(cls, host: Any) -> str | None:
        return None

    def forward(self, x: Tensor) -> Any:
        if not torch.compiler.is_compiling() and not is_disabled() and self.turns(x):
            x = x.contiguous(memory_format=torch.channels_last)
        return super().forward(x)

    def turns(self, x: Any) -> bool:
        """Half precision rounds another order of its sums visibly."""
        plain = isinstance(x, Tensor) and x.dim() == 4 and x.device.type == "cpu"
        if not plain or torch.is_autocast_enabled("cpu"):
            return False
        return all(p.dtype == torch.float32 for p in (x, *self.parameters()))


class HieraPositions(Positions):
    """Mixin of the encoder: the bicubic positions of its tokens are made once for a size (25 MB for 1024 pixels)."""

    pos_embed: Tensor
    pos_embed_window: Tensor

    def positions(self, size: Any, make: Any) -> Tensor:
        return self.once(tuple(size), [self.pos_embed, self.pos_embed_window], make)
