"""The operators of pruning and merging in torch: formulas, for gradients and for what no kernel takes, and the kernels
for a GPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt._later import Later

kernels = Later("fastprompt.kernels.pruning")

# ---------------------------------------------------------------- scores


def cosine_scores(tokens: Tensor, prompts: Tensor) -> Tensor:
    return (F.normalize(tokens, dim=-1) @ F.normalize(prompts, dim=-1).transpose(1, 2)).amax(-1)


def cosine_scores_gpu(tokens: Tensor, prompts: Tensor) -> Any:
    return kernels.cosine_scores(tokens, prompts) if kernels.fits(tokens) and 0 not in prompts.shape else None


# ---------------------------------------------------------------- rows


def spread(index: Tensor, channels: int) -> Tensor:
    return index[..., None].expand(-1, -1, channels)


def added(x: Tensor, index: Tensor, count: int) -> Tensor:
    """(B, count, ...): sums of the rows of x (B, N, ...) with the same index (B, N), in one order on every device."""
    zeros = x.new_zeros((x.shape[0], count, *x.shape[2:]))
    if x.is_cuda:  # where scatter_add is not deterministic, and this is
        return zeros.index_put((torch.arange(len(x), device=x.device)[:, None], index), x, accumulate=True)
    return zeros.scatter_add(1, index if x.ndim == 2 else spread(index, x.shape[2]), x)


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    count, zero = rows.shape[1], rows.new_zeros((rows.shape[0], 1, rows.shape[2]))
    valid = (index >= 0) & (index < count)
    return torch.cat([rows, zero], 1).gather(1, spread(index.where(valid, count), rows.shape[2]))


def gather_backward(grad: Tensor, index: Tensor, count: int) -> Tensor:
    """A row may be asked for more than once (unmerge): the gradients add up."""
    valid = (index >= 0) & (index < count)
    return added(grad.where(valid[..., None], 0), index.where(valid, 0), count)


def gather_rows_gpu(rows: Tensor, index: Tensor) -> Any:
    return kernels.gather(rows, index.contiguous()) if kernels.fits(rows) else None


def scatter_rows(base: Tensor | None, rows: Tensor, index: Tensor, count: int) -> Tensor:
    shape = (rows.shape[0], count + 1, rows.shape[2])  # the last row takes what is nowhere
    out = rows.new_zeros(shape)
    if base is not None:
        out[:, :-1] = base
    valid = (index >= 0) & (index < count)
    return out.scatter_(1, spread(index.where(valid, count), rows.shape[2]), rows)[:, :-1].contiguous()


def scatter_rows_gpu(base: Tensor | None, rows: Tensor, index: Tensor, count: int) -> Any:
    out = rows.new_empty((rows.shape[0], count, rows.shape[2]))
    if not (kernels.fits(out) and kernels.fits(rows)):
        return None
    kernels.scatter(base, rows, index.contiguous(), out)
    return out


def scatter_rows_in_place_gpu(base: Tensor, rows: Tensor, index: Tensor) -> None:
    scattered = (base.stride(2) != 1 and base.shape[2] != 1) or 0 in base.stride()  # copy_ refuses an expanded one
    if scattered or not (kernels.fits(base) and kernels.fits(rows)):
        base.copy_(scatter_rows(base, rows, index, base.shape[1]))
    else:
        kernels.scatter(base, rows, index.contiguous(), base)


# ---------------------------------------------------------------- selection


def prune_rows(
    tokens: Tensor, scores: Tensor, always: Tensor | None, counts: Tensor | None, count: int, background: float
) -> tuple[Tensor, Tensor]:
    index = select_tokens(scores, always, counts, count, background)
    return gather_rows(tokens, index), index


def prune_rows_gpu(
    tokens: Tensor, scores: Tensor, always: Tensor | None, counts: Tensor | None, count: int, background: float
) -> Any:
    """Too many marks are no error here, for that would wait for the GPU: of them, the best stay."""
    if not kernels.fits_a_program(tokens):
        return None
    marks = None if always is None else always.contiguous().view(torch.uint8)
    limits = None if counts is None else torch.stack([counts, (counts.double() * background).long()], 1)
    return kernels.prune(tokens, scores.contiguous(), count, marks, int(background * count), limits)


def select_tokens(
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


# ---------------------------------------------------------------- merging


def match_tokens(metric: Tensor, merged: int, spared: int) -> tuple[Tensor, Tensor]:
    """Without a look at a number from the host."""
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


def merge_rows(tokens: Tensor, size: Tensor, kept: Tensor, target: Tensor) -> Tensor:
    count = kept.shape[1]
    return added(tokens * size[..., None], target, count) / added(size, target, count)[..., None]


def merge_rows_gpu(tokens: Tensor, size: Tensor, kept: Tensor, target: Tensor) -> Any:
    if not kernels.fits_a_program(tokens):
        return None
    return kernels.merge(tokens, size, target.contiguous(), kept.shape[1])
