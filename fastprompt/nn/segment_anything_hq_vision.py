"""Image encoder: drop-ins for ``segment-anything-hq``."""

from segment_anything_hq.modeling import image_encoder as host

from fastprompt.nn._encoder import SegmentAnythingLayer
from fastprompt.nn._relative import SegmentAnythingAttention


class Attention(SegmentAnythingAttention, host.Attention):
    """``Attention`` without the N x N numbers of every head: bias and weights are never in memory."""


class Block(SegmentAnythingLayer, host.Block):
    """``Block`` in three operators, its windows where they are."""
