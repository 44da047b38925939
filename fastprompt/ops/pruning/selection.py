"""The tokens that matter without the others, and back to all of them."""

import math
import numbers
from typing import Any, NamedTuple

import numpy as np

from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array, plain_floats
from fastprompt.ops._checks import check_devices, check_number
from fastprompt.ops.pruning.call import in_place
from fastprompt.ops.pruning.operators import prune_rows, scatter_rows, scatter_rows_
from fastprompt.ops.pruning.scoring import check_tokens

__all__ = ["PrunedTokens", "prune_tokens"]


class Restore:
    """Back to all tokens: ``full = restore(y)``, see :func:`prune_tokens`."""

    def __init__(self, base: Any, given: Any, indices: Any, mask: Any) -> None:
        self.base, self.given, self.indices, self.mask = base, given, indices, mask

    def __call__(self, y: Any, base: Any = None, *, inplace: bool = False) -> Any:
        """
        Args:
            y: (B, K, C'), what became of the kept tokens.
            base: what the others are: None for the values that they had, 0, or (B, N, C').
            inplace: write into ``base``, or into the tokens that were pruned, and return it; no gradient.

        Returns:
            (B, N, C') in the dtype of ``y``.
        """
        zero = isinstance(base, numbers.Number)
        if zero and (base != 0 or inplace):
            raise ValueError(f"base must be None, 0 or an array, and an array with inplace, got {base!r}")
        given = self.given if base is None else base
        base = self.base if base is None else base if zero else as_array("base", base)
        y = check_tokens(y=y, base=self.base if zero else base)
        batch, count = self.base.shape[:2]
        if tuple(y.shape[:2]) != tuple(self.indices.shape):
            raise ValueError(f"y must be {(*self.indices.shape, 'C')}, got shape {tuple(y.shape)}")
        shape = (batch, count, y.shape[2])
        if not zero and tuple(base.shape) != shape:
            raise ValueError(f"base must be {shape}, got shape {tuple(base.shape)}")
        if inplace:
            if isinstance(given, np.ndarray) and not np.may_share_memory(base, given):
                raise ValueError("base must be aligned and in the order of bytes of the machine for inplace=True")
            return write(base, y, self.indices)
        if not zero:
            base = base.to(y.dtype) if is_tensor(y) else base.astype(y.dtype, copy=False)
        return scatter_rows(None if zero else base, y, self.indices, count)


def write(base: Any, y: Any, indices: Any) -> Any:
    if base.dtype != y.dtype:
        raise ValueError(f"y must have the dtype {base.dtype} to be written in place, got {y.dtype}")
    if is_tensor(base):
        import torch

        if torch.is_grad_enabled() and (base.requires_grad or y.requires_grad):
            raise ValueError("inplace=True has no gradient: leave it out, or use torch.no_grad()")
    elif not base.flags.writeable or not in_place(base):
        raise ValueError("base must be a writeable array with contiguous channels for inplace=True")
    scatter_rows_(base, y, indices)
    return base


class PrunedTokens(NamedTuple):
    """The tokens that stay, and the way back: ``t, restore = prune_tokens(...)``."""

    tokens: Any  # (B, K, C)
    restore: Restore

    @property
    def indices(self) -> Any:
        """(B, K) int64, ascending: which tokens they are; -1 for padding."""
        return self.restore.indices

    @property
    def mask(self) -> Any:
        """(B, K) bool: which are tokens, not padding; None where all are."""
        return self.restore.mask


def prune_tokens(
    tokens: Any,  # (B, N, C)
    scores: Any,  # (B, N)
    *,
    keep: float | None = None,
    count: int | None = None,
    threshold: float | None = None,
    always_keep: Any = None,  # (N) or (B or 1, N)
    stride_mix: float = 0.0,
    pad: int | None = None,
) -> PrunedTokens:
    r"""The tokens with the highest scores, in their order, and the way back to all of them.

    .. math:: k = \lceil \mathrm{keep} \cdot N \rceil,\quad y_i = x_{\pi(i)},\quad \pi(1) < \dots < \pi(k);\qquad
        \mathrm{restore}(y)_n = y_{\pi^{-1}(n)} \text{ where } n \text{ was kept, else } x_n

    Exact and deterministic: scores are compared in float32, equal ones go by the lowest index, a NaN counts as -inf.
    Rows are copied as they are, so that ``keep=1.0`` changes no bit.

    Args:
        tokens: N tokens of C channels, any dtype; a view such as ``x[:, 1:]`` is not copied.
        scores: see :func:`token_scores`.
        keep: share of the tokens that stay, at least one token. Give exactly one of keep, count and threshold.
        count: how many stay, at least 1.
        threshold: those over it stay, of every image at least one. The number differs from image to image: shorter ones
            are padded with zeros, and ``.mask`` says what is a token, as a mask of keys does in an attention.
        always_keep: tokens that stay whatever their score (not 0 = stay), the class token say; within k.
        stride_mix: share of the kept tokens that are taken evenly from those that the scores leave, so that the
            background stays covered: of these R tokens in their order, numbers floor((j + 1/2) R / m), j < m =
            floor(stride_mix k). Prompt scores alone can do worse than chance in the middle of a network.
        pad: with ``threshold``, the number of rows of the result; an image with more over the threshold keeps its
            highest. Without it, as many as the longest image needs, which no compiled graph can know.

    Returns:
        :class:`PrunedTokens`, which unpacks as ``(tokens, restore)`` and has ``.indices`` and ``.mask``. ``restore(y,
        base=None)`` gives all N tokens: those that were left out keep the value that they had, or are 0 (``base=0``),
        or come from ``base``. Both are differentiable, by tokens, y and base; the choice is not, so scores get no
        gradient.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> x = np.arange(8.0).reshape(1, 4, 2)
        >>> t, restore = fp.prune_tokens(x, [[0.1, 0.9, 0.2, 0.8]], keep=0.5)
        >>> restore(-t)[0].tolist()
        [[0.0, 1.0], [-2.0, -3.0], [4.0, 5.0], [-6.0, -7.0]]

    Source: Rao et al., DynamicViT, 2021; Liu et al., SViT, 2024 (pruned tokens keep their value). Formulas only.
    """
    given, scores = tokens, as_array("scores", scores)
    tokens = check_tokens(tokens=tokens, scores=scores)
    if tuple(scores.shape) != tuple(tokens.shape[:2]):
        raise ValueError(f"scores must be {tuple(tokens.shape[:2])}, got shape {tuple(scores.shape)}")
    always = check_always(always_keep, tokens)
    share = check_number("stride_mix", stride_mix, 0.0, 1.0) * (1 + 1e-12)  # 0.29 * 100 is 28.999999999999996
    scores = plain_floats(scores.detach() if is_tensor(scores) else scores)
    counts, number = how_many(scores, always, keep, count, threshold, pad)
    kept, indices = prune_rows(tokens, scores, always, counts, number, share)
    return PrunedTokens(kept, Restore(tokens, given, indices, None if counts is None else indices >= 0))


def check_always(always: Any, tokens: Any) -> Any:
    """(B, N) bool, contiguous; or None."""
    if always is None:
        return None
    always = as_array("always_keep", always)
    check_devices(tokens=tokens, always_keep=always)
    shape = tuple(tokens.shape[:2])
    if tuple(always.shape) not in (shape, shape[1:], (1, shape[1])):
        raise ValueError(f"always_keep must be {shape[1:]} or {shape}, got shape {tuple(always.shape)}")
    always = always != 0
    return (
        always.expand(shape).contiguous() if is_tensor(always) else np.ascontiguousarray(np.broadcast_to(always, shape))
    )


def how_many(scores: Any, always: Any, keep: Any, count: Any, threshold: Any, pad: Any) -> tuple[Any, int]:
    """Tokens kept of every image (None: all alike), and rows of the result."""
    tokens = scores.shape[1]
    if sum(x is not None for x in (keep, count, threshold)) != 1:
        raise ValueError(f"give exactly one of keep, count, threshold; got {keep!r}, {count!r}, {threshold!r}")
    for name, x in (("count", count), ("pad", pad)):
        if x is not None and (isinstance(x, bool) or not isinstance(x, numbers.Integral) or x < 0):
            raise ValueError(f"{name} must be an integer of at least 0, got {x!r}")
    if pad is not None and threshold is None:
        raise ValueError(f"pad needs threshold: the number of tokens is fixed otherwise; got {pad!r}")
    if keep is not None:
        # NOTE: 0.07 * 100 is 7.000000000000001, whose ceiling is 8.
        count = math.ceil(check_number("keep", keep, 0.0, 1.0) * tokens * (1 - 1e-12))
    if threshold is None:
        if count > tokens:
            raise ValueError(f"count must be at most the number of tokens {tokens}, got {count}")
        return None, min(max(int(count), 1), tokens)
    over = scores > check_number("threshold", threshold, -math.inf, math.inf)
    marks = over if always is None else over | always
    counts = marks.sum(1) if is_tensor(marks) else marks.sum(1, dtype=np.int64)
    longest = int(pad) if pad is not None else max(int(counts.max()), 1) if len(counts) else 0
    rows = max(longest, 1) if pad is not None else min(longest, tokens)
    return counts.clip(min(1, tokens), rows), rows
