"""The operators of pruning and merging: shapes, kernels, gradients. An index that names no row is allowed where rows
move: a row of zeros comes from there, and none goes there. ``merge_rows`` refuses it, on the CPU."""

import math
from typing import Any

import numpy as np

from fastprompt._later import Later
from fastprompt.ops._arrays import dtype_name
from fastprompt.ops._operator import Gradient, Operator
from fastprompt.ops.pruning import call

formulas, reference = Later("fastprompt.ops.pruning.formulas"), Later("fastprompt.reference.pruning")

cosine_scores = Operator(
    "cosine_scores(Tensor tokens, Tensor prompts) -> Tensor",
    axes="tokens: batch _ channels, prompts: 1|batch _ channels",
    out=lambda tokens, prompts: (tuple(tokens.shape[:2]), "float32"),
    call=call.cosine_scores,
    reference=lambda tokens, prompts: reference.cosine_scores(tokens.astype(np.float64), prompts),
    formula=formulas.cosine_scores,
    gpu=formulas.cosine_scores_gpu,
    gradient="formula",
)

# ---------------------------------------------------------------- rows


def setup_gather(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.count = inputs[0].shape[1]


def backward_of_gather(ctx: Any, grad: Any) -> tuple[Any, ...]:
    return formulas.gather_backward(grad, ctx.saved_tensors[0], ctx.count), None


gather_rows = Operator(
    "gather_rows(Tensor rows, Tensor index) -> Tensor",
    axes="rows any: batch _ _, index int64: batch _",
    out=lambda rows, index: ((*index.shape, rows.shape[2]), rows.dtype),
    call=call.gather_rows,
    reference=reference.gather_rows,
    formula=formulas.gather_rows,
    gpu=formulas.gather_rows_gpu,
    gradient=Gradient(backward_of_gather, setup_gather),
)


def setup_scatter(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(inputs[2])


def backward_of_scatter(ctx: Any, grad: Any) -> tuple[Any, ...]:
    (index,) = ctx.saved_tensors
    rows, base = gather_rows(grad, index), None
    if ctx.needs_input_grad[0]:
        base = scatter_rows(grad, rows.new_zeros(rows.shape), index, grad.shape[1])
    return base, rows, None, None


scatter_rows = Operator(  # zeros where there is no base
    "scatter_rows(Tensor? base, Tensor rows, Tensor index, int count) -> Tensor",
    axes=lambda base, rows, index, count: (
        f"rows any: batch kept channels, index int64: batch kept, base {dtype_name(rows)}: batch {count} channels"
    ),
    out=lambda base, rows, index, count: ((rows.shape[0], count, rows.shape[2]), rows.dtype),
    call=call.scatter_rows,
    reference=reference.scatter_rows,
    formula=formulas.scatter_rows,
    gpu=formulas.scatter_rows_gpu,
    gradient=Gradient(backward_of_scatter, setup_scatter),
)


scatter_rows_ = Operator(
    "scatter_rows_(Tensor(a!) base, Tensor rows, Tensor index) -> ()",
    axes=lambda base, rows, index: (
        f"rows any: batch kept channels, index int64: batch kept, base {dtype_name(rows)}: batch _ channels"
    ),
    out=lambda base, rows, index: [],
    call=call.scatter_rows_in_place,
    gpu=formulas.scatter_rows_in_place_gpu,
)

# ---------------------------------------------------------------- selection


def of_prune(tokens: Any, scores: Any, always: Any, counts: Any, count: int, background: float) -> Any:
    batch, _, channels = tokens.shape
    return [((batch, count, channels), tokens.dtype), ((batch, count), "int64")]


def prune_by_reference(tokens: Any, scores: Any, always: Any, counts: Any, count: int, background: float) -> Any:
    marked = np.zeros(scores.shape, bool) if always is None else always
    kept = np.full(len(scores), count) if counts is None else counts
    for image, most in enumerate(kept):
        if (found := int(marked[image].sum())) > most:
            raise ValueError(f"always_keep must mark at most the tokens that are kept, got {found} in image {image}")
    index = reference.select_tokens(scores, always, counts, count, background)
    return [reference.gather_rows(tokens, index), index]


def setup_prune(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, Any]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])
    ctx.count = inputs[0].shape[1]


def backward_of_prune(ctx: Any, grad: Any, _: Any) -> tuple[Any, ...]:
    return scatter_rows(None, grad, ctx.saved_tensors[0], ctx.count), None, None, None, None, None


prune_rows = Operator(
    "prune_rows(Tensor tokens, Tensor scores, Tensor? always, Tensor? counts, int count, float background) "
    "-> (Tensor, Tensor)",
    axes="tokens any: batch tokens _, scores: batch tokens, always bytes: batch tokens, counts int64: batch",
    out=of_prune,
    call=call.prune_rows,
    reference=prune_by_reference,
    formula=formulas.prune_rows,
    gpu=formulas.prune_rows_gpu,
    gradient=Gradient(backward_of_prune, setup_prune),
)

# ---------------------------------------------------------------- merging


def of_match(metric: Any, merged: int, spared: int) -> Any:
    batch, count = metric.shape[:2]
    if not 0 <= merged <= (count - spared) // 2:
        raise ValueError(f"r must be at most (N - protected) // 2 = {(count - spared) // 2}, got {merged}")
    return [((batch, count - merged), "int64"), ((batch, count), "int64")]


match_tokens = Operator(
    "match_tokens(Tensor metric, int merged, int spared) -> (Tensor, Tensor)",
    axes="metric: _ _ _",
    out=of_match,
    call=call.match_tokens,
    reference=lambda metric, merged, spared: reference.match_tokens(metric.astype(np.float64), merged, spared),
    formula=formulas.match_tokens,
)


def check_merge(tokens: Any, size: Any, kept: Any, target: Any) -> None:
    wrong = size[~((size > 0) & (size < math.inf))]
    if len(wrong):
        raise ValueError(f"size must be positive and finite, got {float(wrong[0]):g}")


merge_rows = Operator(
    "merge_rows(Tensor tokens, Tensor size, Tensor kept, Tensor target) -> Tensor",
    axes="tokens: batch tokens _, size: batch tokens, kept int64: batch _, target int64: batch tokens",
    out=lambda tokens, size, kept, target: ((*kept.shape, tokens.shape[2]), "float32"),
    call=call.merge_rows,
    check=check_merge,
    reference=lambda *arrays: reference.merge_rows(*arrays)[0],
    formula=formulas.merge_rows,
    gpu=formulas.merge_rows_gpu,
    gradient="formula",
)
