"""The pruning operators in torch: registration, shapes, gradients."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt._runtime import current_backend
from fastprompt.ops._library import define, define_with_formula
from fastprompt.ops.pruning import call as _rows
from fastprompt.ops.pruning import selection as pruning

# ---------------------------------------------------------------- scores


def _cosine_formula(tokens: Tensor, prompts: Tensor) -> Tensor:
    return (F.normalize(tokens, dim=-1) @ F.normalize(prompts, dim=-1).transpose(1, 2)).amax(-1)


def _cosine_gpu(tokens: Tensor, prompts: Tensor) -> Tensor:
    from fastprompt.kernels import pruning as kernels

    if not kernels.fits(tokens) or 0 in prompts.shape:
        return _cosine_formula(tokens.float(), prompts.float())
    return kernels.cosine_scores(tokens, prompts)


cosine_scores = define_with_formula(
    "cosine_scores",
    "Tensor tokens, Tensor prompts",
    formula=_cosine_formula,
    launch=_rows.cosine,
    shape=lambda tokens, prompts: tokens.shape[:2],
    gpu=_cosine_gpu,
)

# ---------------------------------------------------------------- rows


def _spread(index: Tensor, channels: int) -> Tensor:
    return index[..., None].expand(-1, -1, channels)


def added(x: Tensor, index: Tensor, count: int) -> Tensor:
    """(B, count, ...): sums of the rows of x (B, N, ...) with the same index (B, N), in one order on every device."""
    zeros = x.new_zeros((x.shape[0], count, *x.shape[2:]))
    if x.is_cuda:  # where scatter_add is not deterministic, and this is
        return zeros.index_put((torch.arange(len(x), device=x.device)[:, None], index), x, accumulate=True)
    return zeros.scatter_add(1, index if x.ndim == 2 else _spread(index, x.shape[2]), x)


def _gather_fake(rows: Tensor, index: Tensor) -> Tensor:
    return rows.new_empty((*index.shape, rows.shape[2]))


def _gather_formula(rows: Tensor, index: Tensor) -> Tensor:
    count, zero = rows.shape[1], rows.new_zeros((rows.shape[0], 1, rows.shape[2]))
    valid = (index >= 0) & (index < count)
    return torch.cat([rows, zero], 1).gather(1, _spread(index.where(valid, count), rows.shape[2]))


def _gather_gpu(rows: Tensor, index: Tensor) -> Tensor:
    from fastprompt.kernels import pruning as kernels

    if current_backend() == "reference" or not kernels.fits(rows):
        return _gather_formula(rows, index)
    return kernels.gather(rows, index.contiguous())


def _gather_cpu(rows: Tensor, index: Tensor) -> Tensor:
    if current_backend() == "reference":
        return _gather_formula(rows, index)
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
    return added(grad.where(valid[..., None], 0), index.where(valid, 0), ctx.count), None


gather_rows = define(
    "gather_rows(Tensor rows, Tensor index) -> Tensor",
    cpu=_gather_cpu,
    fake=_gather_fake,
    gpu=_gather_gpu,
    backward=_gather_backward,
    setup_context=_gather_setup,
)


def _scatter_fake(base: Tensor | None, rows: Tensor, index: Tensor, count: int) -> Tensor:
    return rows.new_empty((rows.shape[0], count, rows.shape[2]))


def _scatter_formula(base: Tensor | None, rows: Tensor, index: Tensor, count: int) -> Tensor:
    shape = (rows.shape[0], count + 1, rows.shape[2])  # the last row takes what is nowhere
    out = rows.new_zeros(shape)
    if base is not None:
        out[:, :-1] = base
    valid = (index >= 0) & (index < count)
    return out.scatter_(1, _spread(index.where(valid, count), rows.shape[2]), rows)[:, :-1].contiguous()


def _scatter_gpu(base: Tensor | None, rows: Tensor, index: Tensor, count: int) -> Tensor:
    from fastprompt.kernels import pruning as kernels

    out = _scatter_fake(base, rows, index, count)
    if current_backend() == "reference" or not (kernels.fits(out) and kernels.fits(rows)):
        return _scatter_formula(base, rows, index, count)
    kernels.scatter(base, rows, index.contiguous(), out)
    return out


def _scatter_cpu(base: Tensor | None, rows: Tensor, index: Tensor, count: int) -> Tensor:
    if current_backend() == "reference":
        return _scatter_formula(base, rows, index, count)
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
    gpu=_scatter_gpu,
    backward=_scatter_backward,
    setup_context=_scatter_setup,
)


def _scattered(base: Tensor) -> bool:
    """Whether rows cannot be written into ``base``; copy_ refuses an expanded one."""
    return (base.stride(2) != 1 and base.shape[2] != 1) or 0 in base.stride()


def _scatter_in_place_gpu(base: Tensor, rows: Tensor, index: Tensor) -> None:
    from fastprompt.kernels import pruning as kernels

    if _scattered(base) or current_backend() == "reference" or not (kernels.fits(base) and kernels.fits(rows)):
        base.copy_(_scatter_gpu(base, rows, index, base.shape[1]))
    else:
        kernels.scatter(base, rows, index.contiguous(), base)


def _scatter_in_place(base: Tensor, rows: Tensor, index: Tensor) -> None:
    if _scattered(base):
        base.copy_(_scatter_cpu(base, rows, index, base.shape[1]))
        return
    _rows.scatter(base, rows, index.contiguous(), base)


scatter_rows_ = define(
    "scatter_rows_(Tensor(a!) base, Tensor rows, Tensor index) -> ()",
    cpu=_scatter_in_place,
    gpu=_scatter_in_place_gpu,
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


def _prune_gpu(
    tokens: Tensor, scores: Tensor, always: Tensor | None, counts: Tensor | None, count: int, background: float
) -> tuple[Tensor, Tensor]:
    """Too many marks are no error here, for that would wait for the GPU: of them, the best stay."""
    from fastprompt.kernels import pruning as kernels

    if current_backend() == "reference" or not kernels.fits(tokens) or tokens.shape[1] > kernels.MOST_TOKENS:
        indices = _select_formula(scores, always, counts, count, background)
        return _gather_formula(tokens, indices), indices
    marks = None if always is None else always.contiguous().view(torch.uint8)
    limits = None if counts is None else torch.stack([counts, (counts.double() * background).long()], 1)
    return kernels.prune(tokens, scores.contiguous(), count, marks, int(background * count), limits)


def _select_formula(
    scores: Tensor, always: Tensor | None, counts: Tensor | None, count: int, background: float
) -> Tensor:
    """(B, count) ascending places, -1 behind the last, without a look at a number from the host."""
    batch, tokens = scores.shape
    value = scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf) + 0.0
    order = value.argsort(dim=1, descending=True, stable=True)
    kept = scores.new_full((batch, 1), min(count, tokens), dtype=torch.int64)
    if counts is not None:
        kept = counts.clamp(0, min(count, tokens))[:, None]
    samples = (kept.double() * background).long()
    if always is not None:  # marked ones first, each kind in its order
        marked = always != 0
        order = order.gather(1, (~marked.gather(1, order)).byte().argsort(dim=1, stable=True))
        samples = samples.minimum(kept - marked.sum(1, keepdim=True)).clamp(min=0)
    top = kept - samples
    places = torch.arange(tokens, device=scores.device).expand(batch, -1)
    stays = torch.empty_like(order).scatter_(1, order, places) < top
    rank, left = (~stays).long().cumsum(1) - 1, (tokens - top).clamp(min=1)
    before = lambda x: (2 * samples * x + left - 1) // (2 * left)  # noqa: E731  samples below a rank
    stays = stays | (~stays & (before(rank + 1) > before(rank)))
    first = (~stays).byte().argsort(dim=1, stable=True)[:, :count]
    first = F.pad(first, (0, count - first.shape[1]), value=-1)
    return first.where(torch.arange(count, device=scores.device) < kept, -1)


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
    gpu=_prune_gpu,
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


def _match_gpu(metric: Tensor, merged: int, spared: int) -> tuple[Tensor, Tensor]:
    """The formula in torch operators, without a look at a number from the host."""
    batch, count = metric.shape[:2]
    everyone = torch.arange(count, device=metric.device).expand(batch, -1)
    if merged == 0:
        return everyone.contiguous(), everyone.contiguous()
    even, odd = (range(spared + (spared + k) % 2, count, 2) for k in (0, 1))
    unit = F.normalize(metric, dim=-1, eps=1e-12)
    a, b = unit[:, even.start :: 2], unit[:, odd.start :: 2]
    cosine = a @ b.transpose(1, 2)
    best, partner = cosine.where(cosine == cosine, -torch.inf).max(2)
    leaving = best.argsort(dim=1, descending=True, stable=True)[:, :merged]
    gone = torch.zeros(batch, count, dtype=torch.bool, device=metric.device)
    gone = gone.scatter(1, even.start + 2 * leaving, True)
    kept = gone.byte().argsort(dim=1, stable=True)[:, : count - merged]
    target = (~gone).long().cumsum(1) - 1
    into = target.gather(1, odd.start + 2 * partner.gather(1, leaving))
    return kept, target.scatter(1, even.start + 2 * leaving, into)


match_tokens = define(
    "match_tokens(Tensor metric, int merged, int spared) -> (Tensor, Tensor)",
    cpu=_match_cpu,
    fake=_match_fake,
    gpu=_match_gpu,
)


def _merge_formula(tokens: Tensor, size: Tensor, kept: Tensor, target: Tensor) -> Tensor:
    count = kept.shape[1]
    return added(tokens * size[..., None], target, count) / added(size, target, count)[..., None]


def _merge_gpu(tokens: Tensor, size: Tensor, kept: Tensor, target: Tensor) -> Tensor | None:
    from fastprompt.kernels import pruning as kernels

    if not kernels.fits(tokens) or tokens.shape[1] > kernels.MOST_TOKENS:
        return None
    return kernels.merge(tokens, size, target.contiguous(), kept.shape[1])


merge_rows = define_with_formula(
    "merge_rows",
    "Tensor tokens, Tensor size, Tensor kept, Tensor target",
    formula=_merge_formula,
    launch=_rows.merge,
    shape=lambda tokens, size, kept, target: (*kept.shape, tokens.shape[2]),
    gpu=_merge_gpu,
)
