"""Image encoder, which is SAM's: drop-ins for ``transformers.models.slanext``."""

from transformers.models.slanext import modeling_slanext as host

from fastprompt.nn.parts.encoder import TransformersLayer
from fastprompt.nn.parts.relative import TransformersAttention


class SLANeXtVisionAttention(TransformersAttention, host.SLANeXtVisionAttention):
    """``SLANeXtVisionAttention`` without the N x N numbers of every head."""


class SLANeXtVisionLayer(TransformersLayer, host.SLANeXtVisionLayer):
    """``SLANeXtVisionLayer`` in three operators, its windows where they are."""
