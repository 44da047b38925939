"""Drop-in for the package ``segment-anything``."""

from segment_anything.modeling import mask_decoder as host
from segment_anything.modeling import prompt_encoder

from fastprompt.nn._positions import SegmentAnythingPositions
from fastprompt.nn._segment_anything import SegmentAnythingDecoder


class MaskDecoder(SegmentAnythingDecoder, host.MaskDecoder):
    """``MaskDecoder`` in three kernels; the image is neither repeated for the prompts nor prepared twice."""


class PositionEmbeddingRandom(SegmentAnythingPositions, prompt_encoder.PositionEmbeddingRandom):
    """``PositionEmbeddingRandom`` that computes the positions of the image's tokens once."""
