"""Drop-ins for ``transformers.models.edgetam_video``."""

from typing import Any

import torch
from torch import Tensor
from transformers.models.edgetam_video import modeling_edgetam_video as host

from fastprompt.nn.parts.around import WideModel
from fastprompt.nn.parts.known import other_parts
from fastprompt.nn.parts.memory import Memory, MemoryAttention, Turns, cached, grid, rotary
from fastprompt.nn.parts.positions import TransformersPositions
from fastprompt.nn.parts.recording import passes_for
from fastprompt.nn.parts.sam2 import Sam2Decoder


class EdgeTamVideoMaskDecoder(Sam2Decoder, host.EdgeTamVideoMaskDecoder):
    """``EdgeTamVideoMaskDecoder`` in three kernels; the image is neither repeated nor prepared twice."""

    of_a_video = True


class EdgeTamVideoPositionalEmbedding(TransformersPositions, host.EdgeTamVideoPositionalEmbedding):
    """``EdgeTamVideoPositionalEmbedding`` that computes the positions of the image's tokens once."""


class EdgeTamVideoMemoryAttention(MemoryAttention, host.EdgeTamVideoMemoryAttention):
    """``EdgeTamVideoMemoryAttention`` without keys and weights in memory; the frame reads itself once for all objects.
    A frame of the memory is some latents, which have no place, and then a grid of its own."""

    attentions = "RoPESelfAttention", "RoPECrossAttention"
    layer_parts = "mlp", "dropout1", "dropout2", "dropout3"
    mlp_parts = ()
    config: Any
    rotary_emb: Any
    position_ids: Tensor
    position_ids_k: Tensor

    @classmethod
    def strange_options(cls, layer: Any) -> str | None:
        return super().strange_options(layer) or other_parts(layer.mlp, "up_proj", "down_proj", "dropout", "act_fn")

    @classmethod
    def activation(cls, layer: Any) -> Any:
        return layer.mlp.act_fn

    @classmethod
    def mlp(cls, layer: Any) -> tuple[Any, Any]:
        return layer.mlp.up_proj, layer.mlp.down_proj

    def forward(
        self,
        current_vision_features: Tensor,
        memory: Tensor,
        current_vision_position_embeddings: Tensor | None = None,
        memory_posision_embeddings: Tensor | None = None,
        num_object_pointer_tokens: int = 0,
        num_spatial_memory_tokens: int = -1,
    ) -> Tensor:
        frame, frames = (current_vision_features, current_vision_position_embeddings), num_spatial_memory_tokens
        given = (*frame, memory, memory_posision_embeddings, num_object_pointer_tokens)
        if not self.whole_frames(len(frame[0]), len(memory), given[-1], frames) or self.refuses(*given):
            return super().forward(frame[0], memory, frame[1], *given[3:], frames)
        (x,) = self.run(*given, frames)
        return x.unsqueeze(1).transpose(0, 1)

    def whole_frames(self, tokens: int, count: int, others: Any, frames: Any) -> bool:
        if tokens != len(self.position_ids) or not isinstance(others, int) or not isinstance(frames, int):
            return False
        inside = count - others
        each = len(self.position_ids_k)
        return inside == 0 or (frames > 0 and each > 0 and inside % frames == 0 and inside // frames >= each)

    def turns(self, count: int) -> list[Turns]:
        def make() -> Turns:
            own, key = rotary(self, self.position_ids), rotary(self, self.position_ids_k)
            return Turns(own, own, key, grid(self.position_ids_k, self.config.memory_attention_rope_k_sizes))

        places = [self.position_ids, self.position_ids_k]
        key = self.rotary_emb.inv_freq, (self.rotary_emb.attention_scaling,), places
        return [cached(self, "turns", *key, make)] * len(self.layers)

    def memory(self, source: Tensor, value: Tensor, count: int, frames: int) -> Memory:
        """The grids of all frames, and behind them what is not turned: a softmax does not ask for an order."""
        inside, each = source.shape[1] - count, len(self.position_ids_k)
        if inside == 0:
            return Memory(source, value, count)
        latents = inside // frames - each

        def sorted_rows(x: Tensor) -> Tensor:
            parts = x[:, :inside].unflatten(1, (frames, -1)).split([latents, each], 2)
            return torch.cat([parts[1].flatten(1, 2), parts[0].flatten(1, 2), x[:, inside:]], 1)

        return Memory(sorted_rows(source), sorted_rows(value), count + frames * latents)


class EdgeTamVideoModel(WideModel, host.EdgeTamVideoModel):
    """``EdgeTamVideoModel`` that hands the positions of the image on, and copies them for no click."""


passes_for(EdgeTamVideoModel, host.EdgeTamVideoModel)
