"""The operator of the click simulator."""

from fastprompt._later import Later
from fastprompt.ops._operator import Operator
from fastprompt.ops.clicks import call

# pred: (B, H, W) bool, uint8 or float32; target: the same shape, bool or uint8; clicked: (B, K, 2) int32
next_click = Operator(
    "next_click(Tensor pred, Tensor target, Tensor clicked, float threshold, int ignore) -> Tensor",
    axes="pred float32 bytes: images y x, target bytes: images y x, clicked int32: images _ 2",
    out=lambda pred, *rest: ((pred.shape[0], 4), "int64"),  # x, y, 1 of a missed and 0 of a false pixel, d²
    call=call.next_click,
    reference=Later("fastprompt.reference.clicks").next_click,
    gpu=Later("fastprompt.kernels.clicks").next_click,
)
