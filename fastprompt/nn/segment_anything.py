"""Drop-in for the package ``segment-anything``."""

from segment_anything.modeling import mask_decoder as host

from fastprompt.nn._segment_anything import SegmentAnythingDecoder


class MaskDecoder(SegmentAnythingDecoder, host.MaskDecoder):
    """``MaskDecoder`` in three kernels; the image is neither repeated for the prompts nor prepared twice."""
