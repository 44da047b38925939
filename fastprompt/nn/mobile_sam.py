"""Drop-in for the packages that import as ``mobile_sam``."""

from mobile_sam.modeling import mask_decoder as host

from fastprompt.nn._segment_anything import SegmentAnythingDecoder


class MaskDecoder(SegmentAnythingDecoder, host.MaskDecoder):
    """``MaskDecoder`` in three kernels; the image is neither repeated for the prompts nor prepared twice."""
