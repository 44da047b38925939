"""Image encoder: drop-ins for ``transformers.models.sam_hq``."""

from transformers.models.sam_hq import modeling_sam_hq as host

from fastprompt.nn._encoder import TransformersLayer
from fastprompt.nn._relative import TransformersAttention


class SamHQVisionAttention(TransformersAttention, host.SamHQVisionAttention):
    """``SamHQVisionAttention`` without the N x N numbers of every head: bias and weights are never in memory."""


class SamHQVisionSdpaAttention(TransformersAttention, host.SamHQVisionSdpaAttention):
    """``SamHQVisionSdpaAttention`` without the N x N numbers of every head: bias and weights are never in memory."""


class SamHQVisionLayer(TransformersLayer, host.SamHQVisionLayer):
    """``SamHQVisionLayer`` in three operators, its windows where they are."""
