"""The operators of masks of an image's size."""

from typing import Any

from fastprompt._choices import choice
from fastprompt._later import Later
from fastprompt.ops._operator import Operator
from fastprompt.ops.masks import call

formulas, reference = Later("fastprompt.ops.masks.formulas"), Later("fastprompt.reference.masks")

DTYPES = {"float32": "float32", "bool": "bool", "uint8": "uint8", "packed": "uint8"}  # of the masks, for each output


def of_masks(
    logits: Any, size: Any, frame: Any, crop: Any, threshold: float, output: str, offset: float
) -> list[tuple[Any, str]]:
    choice("output", output, DTYPES)
    count, width = logits.shape[0], (size[1] + 7) // 8 if output == "packed" else size[1]
    masks = (count, size[0], width), DTYPES[output]
    return [masks, ((count,), "int64"), ((count, 4), "int64"), ((count,), "float32")]


resize_masks = Operator(
    "resize_masks(Tensor logits, int[] size, int[] frame, int[] crop, float threshold, str output, float offset) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    axes="logits: _ _ _, size: 2",
    out=of_masks,
    call=call.resize_masks,
    reference=reference.resize_masks,
    formula=formulas.resize_masks,
    gpu=formulas.resize_masks_gpu,
)
# As hosts enlarge logits: to the rounding of torch's places, where `resize_masks` takes the exact ones.
resize_logits = Operator(
    "resize_logits(Tensor logits, int[] size, int[] frame, int[] crop) -> Tensor",
    axes="logits: _ _ _, size: 2",
    out=lambda logits, size, frame, crop: ((logits.shape[0], *size), "float32"),
    call=call.resize_logits,
    reference=reference.resize_logits,
    formula=formulas.resize_logits,
)
