"""Drop-ins for ``transformers.models.sam2_video``."""

from transformers.models.sam2_video import modeling_sam2_video as host

from fastprompt.nn.parts.around import WideModel
from fastprompt.nn.parts.memory import TransformersMemoryAttention
from fastprompt.nn.parts.positions import TransformersPositions
from fastprompt.nn.parts.recording import passes_for
from fastprompt.nn.parts.sam2 import Sam2Decoder


class Sam2VideoMaskDecoder(Sam2Decoder, host.Sam2VideoMaskDecoder):
    """``Sam2VideoMaskDecoder`` in three kernels; the image is neither repeated nor prepared twice."""

    of_a_video = True


class Sam2VideoPositionalEmbedding(TransformersPositions, host.Sam2VideoPositionalEmbedding):
    """``Sam2VideoPositionalEmbedding`` that computes the positions of the image's tokens once."""


class Sam2VideoMemoryAttention(TransformersMemoryAttention, host.Sam2VideoMemoryAttention):
    """``Sam2VideoMemoryAttention`` without keys and weights in memory; the frame reads itself once for all objects."""


class Sam2VideoModel(WideModel, host.Sam2VideoModel):
    """``Sam2VideoModel`` that hands the positions of the image on, and copies them for no click."""


passes_for(Sam2VideoModel, host.Sam2VideoModel)
