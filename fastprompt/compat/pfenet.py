"""PFENet's functions, with its signatures: ``from fastprompt.compat.pfenet import Weighted_GAP, prior_mask``.

PFENet has no licence: these are its formulas, not its code. torch tensors or NumPy arrays.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastprompt.ops.pooling import prior
from fastprompt.ops.pooling.means import masked_average_pool

__all__ = ["Weighted_GAP", "prior_mask"]


def Weighted_GAP(supp_feat: Any, mask: Any) -> Any:
    """(B, C, 1, 1): sum of ``supp_feat`` (B, C, h, w) times ``mask`` (B, 1, h, w) over the sum of the mask + 5e-4.

    The host resizes the mask to the features before; here a larger one is resized in the same way (bilinear,
    align_corners=True). Its label 255 is not 1: pass ``(label == 1)``.
    """
    shape = tuple(np.shape(mask))
    if len(shape) != 4 or shape[1] != 1:
        raise ValueError(f"mask must be (B, 1, h, w), got shape {shape}")
    return masked_average_pool(supp_feat, mask, preset="pfenet")[:, 0, :, None, None]


def prior_mask(query_feat_4: Any, final_supp_list: Sequence[Any], mask_list: Sequence[Any], size: Any) -> Any:
    """(B, 1, *size): the block that PFENet calls "training-free prior generation".

    ``final_supp_list`` and ``mask_list`` hold a (B, C, h, w) and a (B, 1, H, W) for each shot. The features of the
    support come from layer 4 of the *masked* layer 3, which is the caller's; the second masking is done here.
    """
    if len(final_supp_list) != len(mask_list) or not len(mask_list):
        raise ValueError(f"mask_list must have a mask for each of {len(final_supp_list)} shots, got {len(mask_list)}")
    shots = [
        prior.prior_mask(query_feat_4, support, mask[:, 0], size=tuple(size))
        for support, mask in zip(final_supp_list, mask_list, strict=True)
    ]
    return sum(shots[1:], shots[0]) / len(shots)
