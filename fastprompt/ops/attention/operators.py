"""The operators of attention: shapes, kernels and formulas."""

from typing import Any

from fastprompt._later import Later
from fastprompt.ops._operator import Operator
from fastprompt.ops.attention import call
from fastprompt.ops.attention.call import LANES

formulas, reference = Later("fastprompt.ops.attention.formulas"), Later("fastprompt.reference.attention")


IMAGE = "image float: images channels y x, position float: 1 channels y x, lengths int64: prompts, "


def takes(image: Any, position: Any, rows: Any, *rest: Any) -> bool:
    """Whole vectors only."""
    return bool(image.shape[1] % LANES == rows.shape[3] % LANES == 0)


def check_lengths(rows: Any, lengths: Any) -> None:
    tokens = rows.shape[2]
    if lengths is not None and len(lengths) and not 0 < int(lengths.min()) <= int(lengths.max()) <= tokens:
        raise ValueError(f"lengths must be between 1 and {tokens}, got {lengths.tolist()}")


prompt_to_image = Operator(
    "prompt_to_image(Tensor image, Tensor? position, Tensor query, Tensor? key_weight, Tensor? value_weight, "
    "Tensor? bias, Tensor? lengths) -> Tensor",
    axes=lambda image, position, query, key_weight, *rest: (
        f"query float: prompts heads tokens {'channels' if key_weight is None else 'width'}, {IMAGE}"
        "query float: prompts%images _ _ _, key_weight float: heads*width channels, "
        "value_weight float: heads*width channels, bias float: prompts tokens y x"
    ),
    out=lambda image, position, query, *rest: (query.shape, "float32"),
    call=call.prompt_to_image,
    check=lambda *args: check_lengths(args[2], args[6]),
    takes=takes,
    reference=reference.prompt_to_image,
    formula=formulas.prompt_to_image,
    gpu=formulas.prompt_to_image_gpu,
    gradient="formula",
)
image_to_prompt = Operator(
    "image_to_prompt(Tensor image, Tensor? position, Tensor key, Tensor bias, Tensor value, Tensor? query_weight, "
    "Tensor? out_weight, Tensor out_bias, Tensor? norm_weight, Tensor? norm_bias, Tensor? lengths, bool residual, "
    "float eps) -> Tensor",
    axes=lambda image, position, key, bias, value, query_weight, *rest: (
        f"key float: prompts heads tokens {'channels' if query_weight is None else 'width'}, {IMAGE}"
        "value float: prompts%images _ _ _, bias float: prompts heads tokens, "
        "query_weight float: heads*width channels, "
        f"value float: prompts heads tokens {'channels' if query_weight is None else 'width'}, "
        "out_weight float: channels heads*width, out_bias float: channels, norm_weight float: channels, "
        "norm_bias float: channels"
    ),
    out=lambda image, position, key, *rest: ((key.shape[0], *image.shape[1:]), "float32"),
    call=call.image_to_prompt,
    check=lambda *args: check_lengths(args[2], args[10]),
    takes=takes,
    reference=reference.image_to_prompt,
    formula=formulas.image_to_prompt,
    gpu=formulas.image_to_prompt_gpu,
    gradient="formula",
)
