"""Image encoder, which is SAM's: drop-ins for ``transformers.models.unlimited_ocr``."""

from transformers.models.unlimited_ocr import modeling_unlimited_ocr as host

from fastprompt.nn.parts.encoder import TransformersLayer
from fastprompt.nn.parts.relative import TransformersAttention


class UnlimitedOcrSamVisionAttention(TransformersAttention, host.UnlimitedOcrSamVisionAttention):
    """``UnlimitedOcrSamVisionAttention`` without the N x N numbers of every head."""


class UnlimitedOcrSamVisionSdpaAttention(TransformersAttention, host.UnlimitedOcrSamVisionSdpaAttention):
    """``UnlimitedOcrSamVisionSdpaAttention`` without the N x N numbers of every head."""


class UnlimitedOcrSamVisionLayer(TransformersLayer, host.UnlimitedOcrSamVisionLayer):
    """``UnlimitedOcrSamVisionLayer`` in three operators, its windows where they are."""
