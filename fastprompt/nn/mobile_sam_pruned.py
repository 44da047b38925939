"""Image encoder with some of its windows, for ``mobile_sam``."""

from mobile_sam.modeling import image_encoder as host

from fastprompt.nn._windows import SegmentAnythingEncoder


class ImageEncoderViT(SegmentAnythingEncoder, host.ImageEncoderViT):
    """``ImageEncoderViT`` that drops windows before one of its blocks."""
