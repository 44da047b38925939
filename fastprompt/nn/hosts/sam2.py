"""Drop-ins for the package ``sam2``."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from sam2.modeling import memory_attention, position_encoding
from sam2.modeling.backbones import hieradet, utils
from sam2.modeling.sam import mask_decoder as host
from torch import Tensor

from fastprompt.nn.parts.encoder import Parts
from fastprompt.nn.parts.hiera import HieraLayer, HieraPatches, HieraPositions
from fastprompt.nn.parts.memory import MemoryAttention as MemoryParts
from fastprompt.nn.parts.memory import Turns, cached
from fastprompt.nn.parts.positions import SegmentAnythingPositions, SinePositions
from fastprompt.nn.parts.segment_anything import PackageDecoder


class MaskDecoder(PackageDecoder, host.MaskDecoder):
    """``MaskDecoder`` in three kernels; the image is neither repeated for the prompts nor prepared twice."""

    parts = (*PackageDecoder.parts, "conv_s0", "conv_s1", "obj_score_token", "pred_obj_score_head")
    obj_score_token: Any
    pred_obj_score_head: Any
    _dynamic_multimask_via_stability: Any

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        repeat_image: bool,
        high_res_features: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        inputs = (image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings)
        detail = high_res_features if self.use_high_res_features else None
        # One image for all prompts, or one for each; anything else the host repeats, or refuses.
        images, fits = image_embeddings.shape[0], 1 if repeat_image else sparse_prompt_embeddings.shape[0]
        fits_too = image_pe.shape[0] == 1 and self.use_high_res_features == (detail is not None)
        if self.falls_back(*inputs, *(detail or ())) or images != fits or not fits_too:
            return host.MaskDecoder.forward(self, *inputs, multimask_output, repeat_image, high_res_features)
        return self.run(*inputs, multimask_output, detail)

    def predict(
        self, image: Tensor, position: Tensor, sparse: Tensor, dense: Tensor, multimask: bool, detail: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        own = [self.obj_score_token.weight] if self.pred_obj_scores else []
        first = len(own)  # the token of the score; those of the masks follow
        own += [self.iou_token.weight, self.mask_tokens.weight]
        tokens = torch.cat([torch.cat(own).expand(len(sparse), -1, -1), sparse], 1)
        choose = not multimask and self.dynamic_multimask_via_stability and not self.training
        wanted = slice(1, None) if multimask else slice(0, None if choose else 1)
        detail = None if detail is None else (detail[1], detail[0])
        others = [(first, self.iou_prediction_head)]
        tokens, masks, (scores,) = self.decode(tokens, image, dense, position, first + 1, wanted, others, detail)
        mask_tokens = tokens[:, first + 1 : first + 1 + self.num_mask_tokens]
        scores = scores[:, wanted]
        if choose:
            masks, scores = self._dynamic_multimask_via_stability(masks, scores)
        kept = slice(1, None) if multimask and self.use_multimask_token_for_obj_ptr else slice(0, 1)
        objects = self.pred_obj_score_head(tokens[:, 0]) if first else scores.new_full((len(scores), 1), 10.0)
        return masks, scores, mask_tokens[:, kept], objects


class PositionEmbeddingRandom(SegmentAnythingPositions, position_encoding.PositionEmbeddingRandom):
    """``PositionEmbeddingRandom`` that computes the positions of the image's tokens once."""


class PatchEmbed(HieraPatches, utils.PatchEmbed):
    """``PatchEmbed`` that leaves the channels of a token side by side."""


class MultiScaleBlock(HieraLayer, hieradet.MultiScaleBlock):
    """``MultiScaleBlock`` in three operators, its windows where they are."""

    pooled = "q_stride"
    further = "proj", "pool", "drop_path"
    mlp_parts = "layers", "act"

    @classmethod
    def unsupported(cls, layer: Any) -> str | None:
        if layer.mlp.num_layers != 2 or len(layer.mlp.layers) != 2 or layer.mlp.sigmoid_output:
            return "the MLP must have two layers and no sigmoid"
        return super().unsupported(layer)

    @classmethod
    def parts(cls, layer: Any) -> Parts:
        attention, (first, second) = layer.attn, layer.mlp.layers
        return Parts(layer.norm1, attention.qkv, attention.proj, layer.norm2, first, second)

    def forward(self, x: Tensor) -> Any:
        found = self.run(x)
        return super().forward(x) if found is None else found


class Hiera(HieraPositions, hieradet.Hiera):
    """``Hiera`` that makes the positions of its tokens once."""

    def _get_pos_embed(self, hw: tuple[int, int]) -> Tensor:
        return self.positions(hw, lambda: super(Hiera, self)._get_pos_embed(hw))


SWITCHES = {  # of a layer, as all released models have them
    "pos_enc_at_attn": False,
    "pos_enc_at_cross_attn_queries": False,
    "pos_enc_at_cross_attn_keys": True,
}


class MemoryAttention(MemoryParts, memory_attention.MemoryAttention):
    """``MemoryAttention`` without keys and weights in memory; objects that share a frame share what it reads of itself.
    With positions where the released models have them."""

    final = "norm"
    norms = "norm1", "norm2", "norm3"
    attention_parts = ("q_proj", "k_proj", "v_proj", "out_proj")
    layer_parts = ("dropout", "dropout1", "dropout2", "dropout3")
    host_parts = ()

    @classmethod
    def unsupported(cls, host: Any) -> str | None:
        if not host.pos_enc_at_input or not host.batch_first:
            return "positions must be added to the input, and layers take batches first"
        return super().unsupported(host)

    @classmethod
    def strange_options(cls, layer: Any) -> str | None:
        for name, value in SWITCHES.items():
            if getattr(layer, name) != value:
                return f"{name} must be {value}"
        if not cls.is_axial(layer.self_attn) or not cls.is_axial(layer.cross_attn_image):
            return "rotary positions must be compute_axial_cis of the width of a head"
        return None if layer.activation is F.relu else f"the activation must be relu, got {layer.activation}"

    @classmethod
    def is_axial(cls, attention: Any) -> bool:
        made = attention.compute_cis
        own = made.func is position_encoding.compute_axial_cis and set(made.keywords) == {"dim", "theta"}
        return own and not made.args and made.keywords["dim"] == attention.internal_dim

    @classmethod
    def heads(cls, attention: Any) -> int:
        heads: int = attention.num_heads
        return heads

    @classmethod
    def scale(cls, attention: Any) -> float:
        width: int = attention.internal_dim
        return float(width**-0.5)

    def forward(
        self,
        curr: Any,
        memory: Tensor,
        curr_pos: Any = None,
        memory_pos: Tensor | None = None,
        num_obj_ptr_tokens: int = 0,
    ) -> Tensor:
        lists = isinstance(curr, list) and isinstance(curr_pos, list) and len(curr) == len(curr_pos) == 1
        features, positions = (curr[0], curr_pos[0]) if lists else (curr, curr_pos)
        if not self.whole_frames(features, positions, memory, num_obj_ptr_tokens) or self.refuses(
            features, positions, memory, memory_pos, num_obj_ptr_tokens
        ):
            return memory_attention.MemoryAttention.forward(
                self, curr, memory, curr_pos, memory_pos, num_obj_ptr_tokens
            )
        (x,) = self.run(features, positions, memory, memory_pos, num_obj_ptr_tokens)
        return x.transpose(0, 1)

    def whole_frames(self, features: Any, positions: Any, memory: Any, others: Any) -> bool:
        """The host needs positions of the frame, and a square where its own table is of another size."""
        if not all(isinstance(x, Tensor) for x in (features, positions, memory)) or not isinstance(others, int):
            return False
        tokens = len(features)
        tables = [x.freqs_cis for layer in self.layers for x in (layer.self_attn, layer.cross_attn_image)]
        fits = all(len(x) == tokens for x in tables) or round(tokens**0.5) ** 2 == tokens
        return tokens > 0 and (len(memory) - others) % tokens == 0 and fits

    def turns(self, count: int) -> list[Turns]:
        def make() -> list[Turns]:
            made = [(table(layer.self_attn, count), table(layer.cross_attn_image, count)) for layer in self.layers]
            return [Turns(own, cross, cross, grid(count)) for own, cross in made]

        attentions = [x for layer in self.layers for x in (layer.self_attn, layer.cross_attn_image)]
        tables = [x.freqs_cis for x in attentions]
        numbers = (count, *(x.compute_cis.keywords["theta"] for x in attentions))
        moved = [attentions[0].q_proj.weight]  # to another device, which the tables are no buffers for
        found: list[Turns] = cached(self, "turns", tables[0], numbers, [*tables[1:], *moved], make)
        return found


def table(attention: Any, count: int) -> list[Tensor]:
    """Cosines and sines (N, D), each number twice; of a square if the host's own table is of another size."""
    side, cis = float(count) ** 0.5, attention.freqs_cis
    cis = cis if len(cis) == count else attention.compute_cis(end_x=side, end_y=side)
    device = attention.q_proj.weight.device
    return [part.to(device, torch.float32).repeat_interleave(2, -1) for part in (cis.real, cis.imag)]


def grid(count: int) -> tuple[int, int]:
    """Rows and columns; what is no square has a row."""
    side = math.isqrt(count)
    return (side, side) if side * side == count else (1, count)


class PositionEmbeddingSine(SinePositions, position_encoding.PositionEmbeddingSine):
    """``PositionEmbeddingSine`` that keeps the positions of a pyramid's levels: the host copies them for a picture."""

    numbers = ("num_pos_feats", "normalize", "scale", "temperature")
    cache: dict[Any, Tensor]

    def forward(self, x: Tensor) -> Tensor:
        host = super().forward

        def make() -> Tensor:
            self.cache.pop((x.shape[-2], x.shape[-1]), None)  # it is what the caller had, who may have written into it
            return host(x)

        return self.kept((len(x), x.shape[-2:]), x.device, make)
