"""Token scores, pruning and merging in plain NumPy, as the formulas read."""

from typing import Any

import numpy as np


def unit(x: Any) -> Any:
    return x / np.maximum(np.sqrt((x * x).sum(-1, keepdims=True)), 1e-12)


def cosine_scores(tokens: Any, prompts: Any) -> Any:
    """(B, N): the largest cosine of each token (B, N, C) to a prompt (B or 1, P, C)."""
    return (unit(tokens) @ unit(prompts).swapaxes(1, 2)).max(-1)


def select_tokens(scores: Any, always: Any, counts: Any, count: int, background: float) -> Any:
    """(B, count) ascending places, -1 behind the last."""
    out = np.full((len(scores), count), -1, np.int64)
    for b, row in enumerate(scores):
        kept = min(count, len(row)) if counts is None else int(min(max(counts[b], 0), count, len(row)))
        marked = np.zeros(len(row), bool) if always is None else always[b]
        samples = min(int(background * kept), kept - int(marked.sum()))
        value = np.where(np.isnan(row), -np.inf, row)
        order = np.lexsort((np.arange(len(row)), -value, ~marked))  # marked, then high, then low place
        chosen, rest = order[: kept - samples], np.sort(order[kept - samples :])
        sampled = [rest[(2 * j + 1) * len(rest) // (2 * samples)] for j in range(samples)]
        out[b, :kept] = np.sort(np.concatenate([chosen, np.array(sampled, np.int64)]))
    return out


def gather_rows(rows: Any, index: Any) -> Any:
    """(B, K, C); zeros where the index is none of a row."""
    out = np.zeros((*index.shape, rows.shape[2]), rows.dtype)
    for b, i in np.ndindex(*index.shape):
        if 0 <= index[b, i] < rows.shape[1]:
            out[b, i] = rows[b, index[b, i]]
    return out


def scatter_rows(base: Any, rows: Any, index: Any, count: int) -> Any:
    """(B, count, C): the rows at their places, elsewhere the base, or zeros."""
    out = np.zeros((len(rows), count, rows.shape[2]), rows.dtype) if base is None else base.copy()
    for b, i in np.ndindex(*index.shape):
        if 0 <= index[b, i] < out.shape[1]:
            out[b, index[b, i]] = rows[b, i]
    return out


def match_tokens(metric: Any, merged: int, spared: int) -> tuple[Any, Any]:
    """Kept tokens (B, N - r), ascending, and where every token is then (B, N)."""
    batch, count, _ = metric.shape
    kept, target = np.zeros((batch, count - merged), np.int64), np.zeros((batch, count), np.int64)
    even, odd = (np.arange(k, count, 2) for k in (0, 1))
    even, odd = even[even >= spared], odd[odd >= spared]
    for b in range(batch):
        if merged == 0:
            kept[b] = target[b] = np.arange(count)
            continue
        cosine = unit(metric[b, even]) @ unit(metric[b, odd]).T
        cosine = np.where(np.isnan(cosine), -np.inf, cosine)
        best, partner = cosine.max(1), odd[cosine.argmax(1)]
        leaving = np.argsort(-best, kind="stable")[:merged]
        kept[b] = np.delete(np.arange(count), even[leaving])
        target[b, kept[b]] = np.arange(count - merged)
        target[b, even[leaving]] = target[b, partner[leaving]]
    return kept, target


def merge_rows(tokens: Any, size: Any, kept: Any, target: Any) -> tuple[Any, Any]:
    """Size-weighted means (B, N - r, C), and the sums of the sizes (B, N - r)."""
    out, total = np.zeros((*kept.shape, tokens.shape[2])), np.zeros(kept.shape)
    for b, n in np.ndindex(*target.shape):
        out[b, target[b, n]] += size[b, n] * tokens[b, n].astype(np.float64)
        total[b, target[b, n]] += size[b, n]
    return out / total[..., None], total
