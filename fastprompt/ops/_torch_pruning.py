"""The pruning operators in torch: registration, shapes, gradients."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt._runtime import current_backend
from fastprompt.ops import _rows, pruning
from fastprompt.ops._library import define, define_with_formula

# ---------------------------------------------------------------- scores


def _cosine_formula(tokens: Tensor, prompts: Tensor) -> Tensor:
    return (F.normalize(tokens, dim=-1) @ F.normalize(prompts, dim=-1).transpose(1, 2)).amax(-1)


cosine_scores = define_with_formula(
    "cosine_scores",
    "Tensor tokens, Tensor prompts",
    formula=_cosine_formula,
    launch=_rows.cosine,
    shape=lambda tokens, prompts: tokens.shape[:2],
)

# ---------------------------------------------------------------- rows


def _spread(index: Tensor, channels: int) -> Tensor:
    return index[..., None].expand(-1, -1, channels)


def _gather_fake(rows: Tensor, index: Tensor) -> Tensor:
    return rows.new_empty((*index.shape, rows.shape[2]))


def _gather_cpu(rows: Tensor, index: Tensor) -> Tensor:
    if current_backend() == "reference":
        count, zero = rows.shape[1], rows.new_zeros((rows.shape[0], 1, rows.shape[2]))
        valid = (index >= 0) & (index < count)
        return torch.cat([rows, zero], 1).gather(1, _spread(index.where(valid, count), rows.shape[2]))
    out = _gather_fake(rows, index)
    _rows.gather(rows, index.contiguous(), out)
    return out


def _gather_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.count = inputs[0].shape[1]


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    """A row may be asked for more than once (unmerge): the gradients add up."""
    (index,) = ctx.saved_tensors
    valid = (index >= 0) & (index < ctx.count)
    zeros = grad.new_zeros((grad.shape[0], ctx.count, grad.shape[2]))
    grad = grad.where(valid[..., None], 0)
    return zeros.scatter_add(1, _spread(index.where(valid, 0), grad.shape[2]), grad), None


gather_rows = define(
    "gather_rows(Tensor rows, Tensor index) -> Tensor",
    cpu=_gather_cpu,
    fake=_gather_fake,
    backward=_gather_backward,
    setup_context=_gather_setup,
)


def _scatter_fake(base: Tensor | None, rows: Tensor, index: Tensor, count: int) -> Tensor:
    return rows.new_empty((rows.shape[0], count, rows.shape[2]))


def _scatter_cpu(base: Tensor | None, rows: Tensor, index: Tensor, count: int) -> Tensor:
    if current_backend() == "reference":
        shape = (rows.shape[0], count + 1, rows.shape[2])  # the last row takes what is nowhere
        out = rows.new_zeros(shape)
        if base is not None:
            out[:, :-1] = base
        valid = (index >= 0) & (index < count)
        return out.scatter_(1, _spread(index.where(valid, count), rows.shape[2]), rows)[:, :-1].contiguous()
    out = _scatter_fake(base, rows, index, count)
    _rows.scatter(base, rows, index.contiguous(), out)
    return out


def _scatter_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[2])


def _scatter_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (index,) = ctx.saved_tensors
    rows, base = gather_rows(grad, index), None
    if ctx.needs_input_grad[0]:
        base = scatter_rows(grad, torch.zeros_like(rows), index, grad.shape[1])
    return base, rows, None, None


# Zeros where there is no base.
scatter_rows = define(
    "scatter_rows(Tensor? base, Tensor rows, Tensor index, int count) -> Tensor",
    cpu=_scatter_cpu,
    fake=_scatter_fake,
    backward=_scatter_backward,
    setup_context=_scatter_setup,
)


def _scatter_in_place(base: Tensor, rows: Tensor, index: Tensor) -> None:
    if (base.stride(2) != 1 and base.shape[2] != 1) or 0 in base.stride():  # copy_ refuses an expanded one
        base.copy_(_scatter_cpu(base, rows, index, base.shape[1]))
        return
    _rows.scatter(base, rows, index.contiguous(), base)


scatter_rows_ = define(
    "scatter_rows_(Tensor(a!) base, Tensor rows, Tensor index) -> ()",
    cpu=_scatter_in_place,
    fake=lambda base, rows, index: None,
)

# ---------------------------------------------------------------- selection


def _prune_fake(
    tokens: Tensor, scores: Tensor, always: Tensor | None, counts: Tensor | None, count: int, background: float
) -> tuple[Tensor, Tensor]:
    batch, _, channels = tokens.shape
    return tokens.new_empty((batch, count, channels)), tokens.new_empty((batch, count), dtype=torch.int64)


def _prune_cpu(
    tokens: Tensor, scores: Tensor, always: Tensor | None, counts: Tensor | None, count: int, background: float
) -> tuple[Tensor, Tensor]:
    always, counts = (None if x is None else x.contiguous() for x in (always, counts))
    if current_backend() == "reference":
        host = [None if x is None else x.numpy() for x in (scores, always, counts)]
        indices = torch.from_numpy(pruning.select(host[0], host[1], host[2], count, background))
        return _gather_cpu(tokens, indices), indices
    out, indices = _prune_fake(tokens, scores, always, counts, count, background)
    bad = _rows.prune(tokens, scores.contiguous(), always, counts, background, indices, out)
    pruning.check_marks(bad, always)
    return out, indices


def _prune_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])
    ctx.count = inputs[0].shape[1]


def _prune_backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    (indices,) = ctx.saved_tensors
    return scatter_rows(None, grad, indices, ctx.count), None, None, None, None, None


prune_rows = define(
    "prune_rows(Tensor tokens, Tensor scores, Tensor? always, Tensor? counts, int count, float background) "
    "-> (Tensor, Tensor)",
    cpu=_prune_cpu,
    fake=_prune_fake,
    backward=_prune_backward,
    setup_context=_prune_setup,
)

# ---------------------------------------------------------------- merging


def _match_fake(metric: Tensor, merged: int, spared: int) -> tuple[Tensor, Tensor]:
    batch, count = metric.shape[:2]
    return tuple(metric.new_empty((batch, n), dtype=torch.int64) for n in (count - merged, count))  # type: ignore[return-value]


def _match_cpu(metric: Tensor, merged: int, spared: int) -> tuple[Tensor, Tensor]:
    if current_backend() == "reference":
        from fastprompt.reference import pruning as reference

        kept, target = reference.match_tokens(metric.double().numpy(), merged, spared)
        return torch.from_numpy(kept), torch.from_numpy(target)
    kept, target = _match_fake(metric, merged, spared)
    _rows.match(metric.contiguous(), merged, spared, kept, target)
    return kept, target


match_tokens = define(
    "match_tokens(Tensor metric, int merged, int spared) -> (Tensor, Tensor)", cpu=_match_cpu, fake=_match_fake
)


def _merge_formula(tokens: Tensor, size: Tensor, kept: Tensor, target: Tensor) -> Tensor:
    total = size.new_zeros(kept.shape).scatter_add(1, target, size)
    zeros = tokens.new_zeros((*kept.shape, tokens.shape[2]))
    return zeros.scatter_add(1, _spread(target, tokens.shape[2]), tokens * size[..., None]) / total[..., None]


merge_rows = define_with_formula(
    "merge_rows",
    "Tensor tokens, Tensor size, Tensor kept, Tensor target",
    formula=_merge_formula,
    launch=_rows.merge,
    shape=lambda tokens, size, kept, target: (*kept.shape, tokens.shape[2]),
)
