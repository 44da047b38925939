"""Drop-ins for ``transformers.models.edgetam``."""

from transformers.models.edgetam import modeling_edgetam as host

from fastprompt.nn.parts.around import WideModel
from fastprompt.nn.parts.positions import TransformersPositions, TransformersSinePositions
from fastprompt.nn.parts.recording import passes_for
from fastprompt.nn.parts.sam2 import Sam2Decoder


class EdgeTamMaskDecoder(Sam2Decoder, host.EdgeTamMaskDecoder):
    """``EdgeTamMaskDecoder`` in three kernels; the image is neither repeated for the prompts nor prepared twice."""


class EdgeTamPositionalEmbedding(TransformersPositions, host.EdgeTamPositionalEmbedding):
    """``EdgeTamPositionalEmbedding`` that computes the positions of the image's tokens once."""


class EdgeTamSinePositionEmbedding(TransformersSinePositions, host.EdgeTamSinePositionEmbedding):
    """``EdgeTamSinePositionEmbedding`` that keeps the positions of a pyramid's levels."""


class EdgeTamModel(WideModel, host.EdgeTamModel):
    """``EdgeTamModel`` that hands the positions of the image on, and copies them for no click."""


passes_for(EdgeTamModel, host.EdgeTamModel)
