"""The weights of one attention."""

from typing import Any, NamedTuple

import numpy as np

from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array, plain_floats


class AttentionWeights(NamedTuple):
    """Projections of one attention: ``weight`` as ``nn.Linear`` has them, (inner, C), the last one (C, inner).

    ``bias`` may be None. :meth:`of` reads them from the modules of the field.
    """

    query_weight: Any
    query_bias: Any
    key_weight: Any
    key_bias: Any
    value_weight: Any
    value_bias: Any
    out_weight: Any
    out_bias: Any

    @classmethod
    def of(cls, module: Any) -> "AttentionWeights":
        """Of a module with ``q_proj``, ``k_proj``, ``v_proj`` and ``out_proj`` (transformers, segment-anything, sam2)
        or ``o_proj`` (transformers' Sam2)."""
        out = module.out_proj if hasattr(module, "out_proj") else module.o_proj
        layers = (module.q_proj, module.k_proj, module.v_proj, out)
        return cls(*(x for layer in layers for x in (layer.weight, layer.bias)))

    def bias_of_out(self) -> Any:
        """Zeros where there is none."""
        return zeros(self.out_weight, len(self.out_weight)) if self.out_bias is None else self.out_bias


def zeros(like: Any, *shape: int) -> Any:
    return like.new_zeros(shape) if is_tensor(like) else np.zeros(shape, np.float32)


def linear(x: Any, weight: Any, bias: Any) -> Any:
    y = x @ weight.swapaxes(0, 1)
    return y if bias is None else y + bias


def check_weights(weights: Any, heads: Any, image: int, prompt: int, out: int) -> AttentionWeights:
    """Weights for so many channels of image, prompt and result, in float32; the prompt gives keys and values."""
    if not isinstance(weights, tuple) or len(weights) != 8:
        raise TypeError(f"weights must be AttentionWeights, got {type(weights).__name__}")
    w = AttentionWeights(*(None if x is None else plain_floats(as_array("weights", x)) for x in weights))
    inner = int(w.query_weight.shape[0])
    if isinstance(heads, bool) or not isinstance(heads, int) or heads < 1 or inner % heads or inner == 0:
        raise ValueError(f"heads must be a positive divisor of the inner width {inner}, got {heads!r}")
    sizes = {"query": (inner, image), "key": (inner, prompt), "value": (inner, prompt), "out": (out, inner)}
    for name, x in zip(w._fields, w, strict=True):
        part, _, which = name.partition("_")
        size = sizes[part] if which == "weight" else sizes[part][:1]
        if x is not None and tuple(x.shape) != size:
            raise ValueError(f"weights.{name} must have shape {size}, got {tuple(x.shape)}")
    return w
