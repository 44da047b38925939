"""Drop-ins for the packages that import as ``mobile_sam``."""

from mobile_sam.modeling import image_encoder, mask_decoder, prompt_encoder, sam

from fastprompt.nn.parts.encoder import SegmentAnythingLayer
from fastprompt.nn.parts.enlarging import SegmentAnythingModel
from fastprompt.nn.parts.positions import SegmentAnythingPositions
from fastprompt.nn.parts.relative import SegmentAnythingAttention
from fastprompt.nn.parts.segment_anything import SegmentAnythingDecoder
from fastprompt.nn.parts.windows import SegmentAnythingEncoder


class MaskDecoder(SegmentAnythingDecoder, mask_decoder.MaskDecoder):
    """``MaskDecoder`` in three kernels; the image is neither repeated for the prompts nor prepared twice."""


class PositionEmbeddingRandom(SegmentAnythingPositions, prompt_encoder.PositionEmbeddingRandom):
    """``PositionEmbeddingRandom`` that computes the positions of the image's tokens once."""


class Attention(SegmentAnythingAttention, image_encoder.Attention):
    """``Attention`` without the N x N numbers of every head: bias and weights are never in memory."""


class Block(SegmentAnythingLayer, image_encoder.Block):
    """``Block`` in three operators, its windows where they are."""


class ImageEncoderViT(SegmentAnythingEncoder, image_encoder.ImageEncoderViT):
    """``ImageEncoderViT`` that drops windows before one of its blocks."""


class Sam(SegmentAnythingModel, sam.Sam):
    """``Sam`` that enlarges masks in one pass."""
