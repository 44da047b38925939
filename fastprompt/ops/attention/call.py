"""The calls into csrc/attention. Arrays of the image's side are contiguous, in float32."""

from typing import Any

from fastprompt import _C
from fastprompt.ops._arrays import plain_floats
from fastprompt.ops._operator import Asked

LANES: int = _C.prompt_unit  # the kernels take channels, and the width of a head, in multiples of it


def prompt_to_image(
    image: Any, position: Any, query: Any, key_weight: Any, value_weight: Any, bias: Any, lengths: Any, out: Any
) -> Asked:
    """``query`` (B, H, T, C) absorbed, or (B, H, T, width) with the weights; ``out`` like it."""
    return _C.prompt_to_image, dict(
        image=image, position=position, query=plain_floats(query), key_weight=key_weight,
        value_weight=None if value_weight is None else plain_floats(value_weight.swapaxes(0, 1)), bias=bias,
        lengths=lengths, out=out,
    )  # fmt: skip


def image_to_prompt(
    image: Any, position: Any, key: Any, bias: Any, value: Any, query_weight: Any, out_weight: Any, out_bias: Any,
    norm_weight: Any, norm_bias: Any, lengths: Any, residual: bool, eps: float, out: Any,
) -> Asked:  # fmt: skip
    """``key`` and ``value`` (B, H, T, C) absorbed, or (B, H, T, width) with the weights."""
    return _C.image_to_prompt, dict(
        image=image, position=position, key=plain_floats(key), bias=plain_floats(bias), value=plain_floats(value),
        query_weight=query_weight, out_weight=out_weight, out_bias=plain_floats(out_bias), norm_weight=norm_weight,
        norm_bias=norm_bias, lengths=lengths, residual=residual, eps=eps, out=out,
    )  # fmt: skip
