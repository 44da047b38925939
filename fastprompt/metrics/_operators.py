"""What the metrics count."""

from fastprompt._later import Later
from fastprompt.metrics import _call
from fastprompt.ops._operator import Operator

reference = Later("fastprompt.reference.metrics")

# pred: (N, pixels) bool, uint8 or float32; target: the same shape, bool or uint8
overlap_counts = Operator(
    "overlap_counts(Tensor pred, Tensor target, float threshold, int ignore) -> Tensor",
    axes="pred float32 bytes: masks pixels, target bytes: masks pixels",
    out=lambda pred, *rest: ((pred.shape[0], 4), "int64"),  # intersection, prediction, target, pixels that count
    call=_call.overlap_counts,
    reference=reference.overlap,
)

# label maps (pixels), both uint8 or int64
class_counts = Operator(
    "class_counts(Tensor pred, Tensor target, int classes, int ignore) -> Tensor",
    out=lambda pred, target, classes, ignore: ((classes, 3), "int64"),  # in both, in the prediction, in the target
    call=_call.class_counts,
    reference=reference.classes,
    arrays_only=True,
)

# masks of a bit a pixel, (M, words) and (K, words) uint64
pair_counts = Operator(
    "pair_counts(Tensor first, Tensor second) -> Tensor",
    out=lambda first, second: ((len(first), len(second)), "int64"),
    call=_call.pair_counts,
    reference=reference.pairs,
    arrays_only=True,
)
