"""Drop-ins for ``transformers.models.edgetam``."""

from transformers.models.edgetam import modeling_edgetam as host

from fastprompt.nn.parts.positions import TransformersPositions
from fastprompt.nn.parts.sam2 import Sam2Decoder


class EdgeTamMaskDecoder(Sam2Decoder, host.EdgeTamMaskDecoder):
    """``EdgeTamMaskDecoder`` in three kernels; the image is neither repeated for the prompts nor prepared twice."""


class EdgeTamPositionalEmbedding(TransformersPositions, host.EdgeTamPositionalEmbedding):
    """``EdgeTamPositionalEmbedding`` that computes the positions of the image's tokens once."""
