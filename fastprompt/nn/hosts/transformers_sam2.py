"""Drop-ins for ``transformers.models.sam2``."""

from typing import Any

from torch import Tensor
from transformers.models.sam2 import modeling_sam2 as host

from fastprompt.nn.parts.around import WideModel
from fastprompt.nn.parts.encoder import Parts
from fastprompt.nn.parts.hiera import HieraLayer, HieraPatches, HieraPositions
from fastprompt.nn.parts.positions import TransformersPositions, TransformersSinePositions
from fastprompt.nn.parts.recording import passes_for
from fastprompt.nn.parts.sam2 import Sam2Decoder


class Sam2MaskDecoder(Sam2Decoder, host.Sam2MaskDecoder):
    """``Sam2MaskDecoder`` in three kernels; the image is neither repeated for the prompts nor prepared twice."""


class Sam2PositionalEmbedding(TransformersPositions, host.Sam2PositionalEmbedding):
    """``Sam2PositionalEmbedding`` that computes the positions of the image's tokens once."""


class Sam2PatchEmbeddings(HieraPatches, host.Sam2PatchEmbeddings):
    """``Sam2PatchEmbeddings`` that leaves the channels of a token side by side."""

    def forward(self, pixel_values: Tensor) -> Any:
        return super().forward(pixel_values)


class Sam2MultiScaleBlock(HieraLayer, host.Sam2MultiScaleBlock):
    """``Sam2MultiScaleBlock`` in three operators, its windows where they are; no weights that nobody reads."""

    norms = "layer_norm1", "layer_norm2"
    heads = "num_attention_heads"
    mlp_parts = "proj_in", "proj_out", "layers", "activation"
    activation_name = "activation"

    @classmethod
    def unsupported(cls, layer: Any) -> str | None:
        if len(layer.mlp.layers) or layer.mlp.sigmoid_output:
            return "the MLP must have two layers and no sigmoid"
        return super().unsupported(layer)

    @classmethod
    def parts(cls, layer: Any) -> Parts:
        attention, mlp = layer.attn, layer.mlp
        return Parts(layer.layer_norm1, attention.qkv, attention.proj, layer.layer_norm2, mlp.proj_in, mlp.proj_out)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Any:
        found = self.run(hidden_states)
        return super().forward(hidden_states, **kwargs) if found is None else found


class Sam2HieraDetModel(HieraPositions, host.Sam2HieraDetModel):
    """``Sam2HieraDetModel`` that makes the positions of its tokens once."""

    def _get_pos_embed(self, hw: tuple[int, int]) -> Tensor:
        return self.positions(hw, lambda: super(Sam2HieraDetModel, self)._get_pos_embed(hw))


passes_for(Sam2HieraDetModel, host.Sam2HieraDetModel)


class Sam2SinePositionEmbedding(TransformersSinePositions, host.Sam2SinePositionEmbedding):
    """``Sam2SinePositionEmbedding`` that keeps the positions of a pyramid's levels."""


class Sam2Model(WideModel, host.Sam2Model):
    """``Sam2Model`` that hands the positions of the image on, and copies them for no click."""


passes_for(Sam2Model, host.Sam2Model)
