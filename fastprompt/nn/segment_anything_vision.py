"""Image encoder: drop-in for ``segment-anything``."""

from segment_anything.modeling import image_encoder as host

from fastprompt.nn._relative import SegmentAnythingAttention


class Attention(SegmentAnythingAttention, host.Attention):
    """``Attention`` without the N x N numbers of every head: bias and weights are never in memory."""
