"""Image encoder: drop-ins for ``transformers.models.sam``."""

from transformers.models.sam import modeling_sam as host

from fastprompt.nn._encoder import TransformersLayer
from fastprompt.nn._relative import TransformersAttention


class SamVisionAttention(TransformersAttention, host.SamVisionAttention):
    """``SamVisionAttention`` without the N x N numbers of every head: bias and weights are never in memory."""


class SamVisionSdpaAttention(TransformersAttention, host.SamVisionSdpaAttention):
    """``SamVisionSdpaAttention`` without the N x N numbers of every head: bias and weights are never in memory."""


class SamVisionLayer(TransformersLayer, host.SamVisionLayer):
    """``SamVisionLayer`` in three operators, its windows where they are."""
