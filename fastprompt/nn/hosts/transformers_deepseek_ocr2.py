"""Image encoder, which is SAM's: drop-ins for ``transformers.models.deepseek_ocr2``."""

from transformers.models.deepseek_ocr2 import modeling_deepseek_ocr2 as host

from fastprompt.nn.parts.encoder import TransformersLayer
from fastprompt.nn.parts.relative import TransformersAttention


class DeepseekOcr2SamVisionAttention(TransformersAttention, host.DeepseekOcr2SamVisionAttention):
    """``DeepseekOcr2SamVisionAttention`` without the N x N numbers of every head."""


class DeepseekOcr2SamVisionSdpaAttention(TransformersAttention, host.DeepseekOcr2SamVisionSdpaAttention):
    """``DeepseekOcr2SamVisionSdpaAttention`` without the N x N numbers of every head."""


class DeepseekOcr2SamVisionLayer(TransformersLayer, host.DeepseekOcr2SamVisionLayer):
    """``DeepseekOcr2SamVisionLayer`` in three operators, its windows where they are."""
