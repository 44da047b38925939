"""Drop-ins for ``transformers.models.edgetam_video``."""

from transformers.models.edgetam_video import modeling_edgetam_video as host

from fastprompt.nn.parts.around import WideModel
from fastprompt.nn.parts.positions import TransformersPositions
from fastprompt.nn.parts.recording import passes_for
from fastprompt.nn.parts.sam2 import Sam2Decoder


class EdgeTamVideoMaskDecoder(Sam2Decoder, host.EdgeTamVideoMaskDecoder):
    """``EdgeTamVideoMaskDecoder`` in three kernels; the image is neither repeated nor prepared twice."""


class EdgeTamVideoPositionalEmbedding(TransformersPositions, host.EdgeTamVideoPositionalEmbedding):
    """``EdgeTamVideoPositionalEmbedding`` that computes the positions of the image's tokens once."""


class EdgeTamVideoModel(WideModel, host.EdgeTamVideoModel):
    """``EdgeTamVideoModel`` that hands the positions of the image on, and copies them for no click."""


passes_for(EdgeTamVideoModel, host.EdgeTamVideoModel)
