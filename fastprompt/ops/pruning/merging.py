"""Fewer tokens by averaging the most similar ones."""

import numbers
from typing import Any, NamedTuple

import numpy as np

from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array, in_dtype_of, plain_floats
from fastprompt.ops._checks import check_devices
from fastprompt.ops.pruning.operators import gather_rows, match_tokens, merge_rows
from fastprompt.ops.pruning.scoring import check_tokens

__all__ = ["MergedTokens", "merge_tokens"]


class Unmerge:
    """Back to all tokens: ``full = unmerge(y)``, every token a copy of what became of it."""

    def __init__(self, target: Any, merged: int) -> None:
        self.target, self.merged = target, merged

    def __call__(self, y: Any) -> Any:
        """(B, N - r, C') to (B, N, C'); differentiable."""
        y = check_tokens(y=y, tokens=self.target)
        batch, count = self.target.shape
        if tuple(y.shape[:2]) != (batch, count - self.merged):
            raise ValueError(f"y must be ({batch}, {count - self.merged}, C), got shape {tuple(y.shape)}")
        return gather_rows(y, self.target)


class MergedTokens(NamedTuple):
    tokens: Any  # (B, N - r, C)
    sizes: Any  # (B, N - r) float32: how many tokens each one stands for
    unmerge: Unmerge

    @property
    def target(self) -> Any:
        """(B, N) int64: the place of every original token among the merged ones."""
        return self.unmerge.target


def merge_tokens(
    tokens: Any,  # (B, N, C)
    metric: Any = None,  # (B, N, D)
    *,
    r: int,
    size: Any = None,  # (B, N)
    protected: int = 0,
) -> MergedTokens:
    r"""Bipartite soft matching: r of the tokens at even places are averaged into their most similar odd one.

    .. math:: j(i) = \operatorname*{arg\,max}_{j \text{ odd}} \cos(m_i, m_j) \text{ for even } i,\qquad
        y_j = \frac{s_j x_j + \sum_i s_i x_i}{s_j + \sum_i s_i}

    The r even tokens with the highest cosine are merged; equal ones by the lowest place, a NaN is similar to nothing.
    The sum of size times token does not change. Tokens that stay keep their order (others put all odd ones last), those
    that nothing merges into keep their bits.

    Args:
        tokens: N tokens of C channels. float32; float16 and bfloat16 are computed in float32.
        metric: what is compared, the mean of an attention's keys over the heads say; None: the tokens.
        r: how many tokens less, at most (N - protected) // 2.
        size: s, positive: how many tokens each one stands for already; None: 1. In an attention over merged tokens add
            log(sizes) to the logits.
        protected: the first tokens, e.g. the class token, that neither merge nor are merged into.

    Returns:
        :class:`MergedTokens`, which unpacks as ``(tokens, sizes, unmerge)``: ``unmerge(y)`` copies every token back to
        where its parts were. Differentiable by tokens, size and y; the choice is not.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> x = np.array([[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]])
        >>> y, sizes, unmerge = fp.merge_tokens(x, r=1)
        >>> y[0].tolist(), sizes[0].tolist(), unmerge(y)[0].tolist()
        ([[1.5, 0.0], [0.0, 1.0], [0.0, -1.0]], [2.0, 1.0, 1.0], [[1.5, 0.0], [1.5, 0.0], [0.0, 1.0], [0.0, -1.0]])

    Source: Bolya et al., Token Merging: Your ViT But Faster, 2023. The formula only.
    """
    tokens = check_tokens(tokens=tokens)
    count = tokens.shape[1]
    metric = tokens if metric is None else check_tokens(metric=metric, tokens=tokens)
    if tuple(metric.shape[:2]) != tuple(tokens.shape[:2]):
        raise ValueError(f"metric must be {(*tokens.shape[:2], 'D')}, got shape {tuple(metric.shape)}")
    spared, merged = check_integer("protected", protected, count), check_integer("r", r, count)
    if merged > (count - spared) // 2:
        raise ValueError(f"r must be at most (N - protected) // 2 = {(count - spared) // 2}, got {merged}")
    size = check_size(size, tokens)
    metric, x = plain_floats(metric.detach() if is_tensor(metric) else metric), plain_floats(tokens)
    kept, target = match_tokens(metric, merged, spared)
    out, total = merge_rows(x, size, kept, target), added(size, target, kept.shape[1])
    return MergedTokens(in_dtype_of(out, tokens), total, Unmerge(target, merged))


def added(size: Any, target: Any, count: int) -> Any:
    """(B, count): sums of the sizes (B, N) with the same target (B, N)."""
    if is_tensor(size):
        from fastprompt.ops.pruning import formulas

        return formulas.added(size, target, count)
    total = np.zeros((len(size), count), np.float32)
    np.add.at(total, (np.arange(len(size))[:, None], target), size)
    return total


def check_integer(name: str, x: Any, count: int) -> int:
    if isinstance(x, bool) or not isinstance(x, numbers.Integral) or not 0 <= int(x) <= count:
        raise ValueError(f"{name} must be an integer from 0 to the number of tokens {count}, got {x!r}")
    return int(x)


def check_size(size: Any, tokens: Any) -> Any:
    """(B, N) float32, contiguous."""
    shape = tuple(tokens.shape[:2])
    if size is None:
        return tokens.new_ones(shape).float() if is_tensor(tokens) else np.ones(shape, np.float32)
    size = as_array("size", size)
    check_devices(tokens=tokens, size=size)
    if tuple(size.shape) != shape:
        raise ValueError(f"size must be {shape}, got shape {tuple(size.shape)}")
    return plain_floats(size)
