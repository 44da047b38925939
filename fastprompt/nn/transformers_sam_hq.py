"""Drop-in for ``transformers.models.sam_hq``."""

from transformers.models.sam_hq import modeling_sam_hq as host

from fastprompt.nn._decoder import Transformer


class SamHQTwoWayTransformer(Transformer, host.SamHQTwoWayTransformer):
    """``SamHQTwoWayTransformer`` in two kernels. The decoder around it is the host's: its masks need the features that
    a fused mask head does not write."""
