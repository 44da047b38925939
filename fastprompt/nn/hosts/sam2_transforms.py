"""Drop-ins for the package ``sam2``: what its predictors hold beside the model, and torchvision is needed for."""

from typing import Any

from sam2.utils import transforms as host
from torch import Tensor

from fastprompt.nn.parts.enlarging import Enlarging


class SAM2Transforms(Enlarging, host.SAM2Transforms):
    """``SAM2Transforms`` that enlarges masks in one pass. ``accelerate`` does not reach it from the model: call
    ``fastprompt.accelerate(predictor._transforms)``."""

    max_hole_area: float
    max_sprinkle_area: float

    def postprocess_masks(self, masks: Tensor, orig_hw: Any) -> Tensor:
        as_they_are = self.max_hole_area <= 0 and self.max_sprinkle_area <= 0
        found = self.enlarged(masks, orig_hw) if as_they_are else None
        return super().postprocess_masks(masks, orig_hw) if found is None else found
