"""Drop-ins for ``transformers.models.sam3_tracker_video``."""

from transformers.models.sam3_tracker_video import modeling_sam3_tracker_video as host

from fastprompt.nn.parts.around import WideModel
from fastprompt.nn.parts.memory import TransformersMemoryAttention
from fastprompt.nn.parts.positions import TransformersPositions
from fastprompt.nn.parts.recording import passes_for
from fastprompt.nn.parts.sam2 import Sam2Decoder


class Sam3TrackerVideoMaskDecoder(Sam2Decoder, host.Sam3TrackerVideoMaskDecoder):
    """``Sam3TrackerVideoMaskDecoder`` in three kernels; the image is neither repeated nor prepared twice."""

    of_a_video = True


class Sam3TrackerVideoPositionalEmbedding(TransformersPositions, host.Sam3TrackerVideoPositionalEmbedding):
    """``Sam3TrackerVideoPositionalEmbedding`` that computes the positions of the image's tokens once."""


class Sam3TrackerVideoMemoryAttention(TransformersMemoryAttention, host.Sam3TrackerVideoMemoryAttention):
    """``Sam3TrackerVideoMemoryAttention`` without keys or weights in memory; a frame reads itself once."""


class Sam3TrackerVideoModel(WideModel, host.Sam3TrackerVideoModel):
    """``Sam3TrackerVideoModel`` that hands the positions of the image on, and copies them for no click."""


passes_for(Sam3TrackerVideoModel, host.Sam3TrackerVideoModel)
