"""Drop-ins for ``transformers.models.sam2``."""

from transformers.models.sam2 import modeling_sam2 as host

from fastprompt.nn.parts.around import WideModel
from fastprompt.nn.parts.positions import TransformersPositions, TransformersSinePositions
from fastprompt.nn.parts.recording import passes_for
from fastprompt.nn.parts.sam2 import Sam2Decoder


class Sam2MaskDecoder(Sam2Decoder, host.Sam2MaskDecoder):
    """``Sam2MaskDecoder`` in three kernels; the image is neither repeated for the prompts nor prepared twice."""


class Sam2PositionalEmbedding(TransformersPositions, host.Sam2PositionalEmbedding):
    """``Sam2PositionalEmbedding`` that computes the positions of the image's tokens once."""


class Sam2SinePositionEmbedding(TransformersSinePositions, host.Sam2SinePositionEmbedding):
    """``Sam2SinePositionEmbedding`` that keeps the positions of a pyramid's levels."""


class Sam2Model(WideModel, host.Sam2Model):
    """``Sam2Model`` that hands the positions of the image on, and copies them for no click."""


passes_for(Sam2Model, host.Sam2Model)
