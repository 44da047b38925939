"""Image encoder, which is SAM's: drop-ins for ``transformers.models.got_ocr2``."""

from transformers.models.got_ocr2 import modeling_got_ocr2 as host

from fastprompt.nn.parts.encoder import TransformersLayer
from fastprompt.nn.parts.relative import TransformersAttention


class GotOcr2VisionAttention(TransformersAttention, host.GotOcr2VisionAttention):
    """``GotOcr2VisionAttention`` without the N x N numbers of every head."""


class GotOcr2VisionLayer(TransformersLayer, host.GotOcr2VisionLayer):
    """``GotOcr2VisionLayer`` in three operators, its windows where they are."""
