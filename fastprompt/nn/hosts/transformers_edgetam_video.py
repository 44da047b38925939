"""Drop-ins for ``transformers.models.edgetam_video``."""

from transformers.models.edgetam_video import modeling_edgetam_video as host

from fastprompt.nn.parts.positions import TransformersPositions
from fastprompt.nn.parts.sam2 import Sam2Decoder


class EdgeTamVideoMaskDecoder(Sam2Decoder, host.EdgeTamVideoMaskDecoder):
    """``EdgeTamVideoMaskDecoder`` in three kernels; the image is neither repeated nor prepared twice."""


class EdgeTamVideoPositionalEmbedding(TransformersPositions, host.EdgeTamVideoPositionalEmbedding):
    """``EdgeTamVideoPositionalEmbedding`` that computes the positions of the image's tokens once."""
