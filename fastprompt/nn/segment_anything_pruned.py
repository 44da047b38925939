"""Image encoder with some of its windows, for ``segment-anything``."""

from segment_anything.modeling import image_encoder as host

from fastprompt.nn._windows import SegmentAnythingEncoder


class ImageEncoderViT(SegmentAnythingEncoder, host.ImageEncoderViT):
    """``ImageEncoderViT`` that drops windows before one of its blocks."""
