"""Drop-ins for ``transformers.models.sam3_tracker``."""

from transformers.models.sam3_tracker import modeling_sam3_tracker as host

from fastprompt.nn.parts.around import WideModel
from fastprompt.nn.parts.positions import TransformersPositions
from fastprompt.nn.parts.recording import passes_for
from fastprompt.nn.parts.sam2 import Sam2Decoder


class Sam3TrackerMaskDecoder(Sam2Decoder, host.Sam3TrackerMaskDecoder):
    """``Sam3TrackerMaskDecoder`` in three kernels; the image is neither repeated for the prompts nor prepared twice."""


class Sam3TrackerPositionalEmbedding(TransformersPositions, host.Sam3TrackerPositionalEmbedding):
    """``Sam3TrackerPositionalEmbedding`` that computes the positions of the image's tokens once."""


class Sam3TrackerModel(WideModel, host.Sam3TrackerModel):
    """``Sam3TrackerModel`` that hands the positions of the image on, and copies them for no click."""


passes_for(Sam3TrackerModel, host.Sam3TrackerModel)
