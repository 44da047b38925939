"""Drop-ins for ``transformers.models.sam2``."""

from transformers.models.sam2 import modeling_sam2 as host

from fastprompt.nn.parts.positions import TransformersPositions
from fastprompt.nn.parts.sam2 import Sam2Decoder


class Sam2MaskDecoder(Sam2Decoder, host.Sam2MaskDecoder):
    """``Sam2MaskDecoder`` in three kernels; the image is neither repeated for the prompts nor prepared twice."""


class Sam2PositionalEmbedding(TransformersPositions, host.Sam2PositionalEmbedding):
    """``Sam2PositionalEmbedding`` that computes the positions of the image's tokens once."""
