"""Image encoder with some of its windows, for ``transformers.models.sam_hq``."""

from typing import Any

from torch import Tensor
from transformers.models.sam_hq import modeling_sam_hq as host

from fastprompt.nn._recording import records_as
from fastprompt.nn._windows import TransformersEncoder


class SamHQVisionEncoder(TransformersEncoder, host.SamHQVisionEncoder):
    """``SamHQVisionEncoder`` that drops windows before one of its layers, in its intermediate embeddings as well."""

    LAYER = "SamHQVisionLayer"
    INTERMEDIATE = True

    def result(self, x: Tensor, outputs: list[Tensor]) -> Any:
        return host.SamHQVisionEncoderOutput(last_hidden_state=x, intermediate_embeddings=outputs)


records_as(SamHQVisionEncoder, host.SamHQVisionEncoder)
