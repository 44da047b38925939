"""Masks of an image's size, which predictors ask for at every click: in one pass over them, where torch takes 4 to 11
times as long."""

import operator
from typing import Any

import torch
from torch import Tensor

from fastprompt.nn.parts.around import Around
from fastprompt.ops.masks.operators import resize_logits


class Enlarging(Around):
    """Mixin of a module with a method ``postprocess_masks``."""

    def enlarged(self, masks: Tensor, size: Any, frame: Any = (), crop: Any = ()) -> Tensor | None:
        """Logits (B, C, h, w) as ``size``, by way of ``frame`` and of what ``crop`` leaves of it. None: the host's."""
        if not self.takes_over("postprocess_masks", masks) or type(masks) is not Tensor or masks.dim() != 4:
            return None
        gradient = torch.is_grad_enabled() and masks.requires_grad
        if gradient or masks.device.type != "cpu" or masks.dtype != torch.float32 or not masks.numel():
            return None
        try:
            sizes = [[operator.index(n) for n in x] for x in (size, frame, crop)]
        except TypeError:
            return None
        if any(n < 1 for x in sizes for n in x) or any(len(x) not in (0, 2) for x in sizes) or not sizes[0]:
            return None  # what it says to that is the host's
        found: Tensor = resize_logits(masks.flatten(0, 1), *sizes)
        return found.unflatten(0, masks.shape[:2])


class SegmentAnythingModel(Enlarging):
    """Mixin of a ``Sam``."""

    image_encoder: Any

    def postprocess_masks(self, masks: Tensor, input_size: Any, original_size: Any) -> Tensor:
        side = self.image_encoder.img_size
        crop = [min(n, side) for n in input_size]
        found = self.enlarged(masks, original_size, [side, side], crop)
        host = super().postprocess_masks  # type: ignore[misc]
        return host(masks, input_size, original_size) if found is None else found


__all__ = ["Enlarging", "SegmentAnythingModel"]
