"""Image encoder with some of its windows, for ``transformers.models.sam``."""

from typing import Any

from torch import Tensor
from transformers.models.sam import modeling_sam as host

from fastprompt.nn._recording import records_as
from fastprompt.nn._windows import TransformersEncoder


class SamVisionEncoder(TransformersEncoder, host.SamVisionEncoder):
    """``SamVisionEncoder`` that drops windows before one of its layers."""

    LAYER = "SamVisionLayer"

    def result(self, x: Tensor, outputs: list[Tensor]) -> Any:
        return host.SamVisionEncoderOutput(last_hidden_state=x)


records_as(SamVisionEncoder, host.SamVisionEncoder)
