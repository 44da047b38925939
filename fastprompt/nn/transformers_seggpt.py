"""Image encoder: drop-in for ``transformers.models.seggpt``."""

from transformers.models.seggpt import modeling_seggpt as host

from fastprompt.nn._relative import TransformersAttention


class SegGptAttention(TransformersAttention, host.SegGptAttention):
    """``SegGptAttention`` without the N x N numbers of every head: bias and weights are never in memory."""
