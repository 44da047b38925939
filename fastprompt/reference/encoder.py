"""Layers of image encoders in plain NumPy, as the formulas read."""

import math
from typing import Any

import numpy as np

from fastprompt.reference.attention import layer_norm, linear, softmax

erf = np.vectorize(math.erf, otypes=[float])


def normalised_linear(x: Any, norm: Any, eps: float, layer: Any) -> Any:
    """W LN(x) + b, or W x + b if ``norm`` is empty."""
    return linear(layer_norm(x, norm[0], norm[1], eps) if norm else x, *layer)


def residual_mlp(x: Any, attended: Any, project: Any, norm: Any, eps: float, mlp: Any, activation: str) -> Any:
    """y + W2 act(W1 LN(y) + b1) + b2 with y = x + Wo a + bo."""
    y = x + linear(attended, *project)
    inner = linear(layer_norm(y, norm[0], norm[1], eps), *mlp[:2])
    return y + linear(ACTIVATIONS[activation](inner), *mlp[2:])


ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "relu": lambda x: np.maximum(x, 0),
}


# ---------------------------------------------------------------- relative position


def relative_attention(
    q: Any, k: Any, v: Any, rel_h: Any, rel_w: Any, coordinates: Any, pad_key: Any, pad_value: Any,
    size: Any, window: Any, scale: float,
) -> tuple[Any, Any]:  # fmt: skip
    """(B, N, heads, width), as q, k, v; and the log of the sums of the weights, (B, heads, N)."""
    if not window[0]:
        return on_a_grid(q, k, v, rel_h, rel_w, places(coordinates, size), size, scale)
    filled = zip((q, k, v), (None, pad_key, pad_value), strict=True)
    q, k, v = (partition(x, size, window, padding) for x, padding in filled)
    out, log_weight = on_a_grid(q, k, v, rel_h, rel_w, grid(window), window, scale)
    return unite(out, size, window), unite(log_weight.swapaxes(1, 2), size, window).swapaxes(1, 2)


def grid(size: Any) -> Any:
    """(1, h w, 2): row and column of every position, row by row."""
    return np.moveaxis(np.indices(size), 0, -1).reshape(1, -1, 2)


def places(coordinates: Any, size: Any) -> Any:
    """Those outside count as the nearest ones inside."""
    return grid(size) if coordinates is None else np.clip(coordinates, 0, np.array(size) - 1)


def rows_of_tables(coordinates: Any, size: Any) -> list[Any]:
    """(B or 1, queries, keys) for the rows and for the columns."""
    return [at[:, :, None] - at[:, None] + n - 1 for at, n in zip(np.moveaxis(coordinates, -1, 0), size, strict=True)]


def far_of(rel: Any, rows: Any, batch: int) -> Any:
    """(B, queries, keys, width)."""
    return np.broadcast_to(rel[rows], (batch, *rows.shape[1:], rel.shape[1]))


def logits_of(q: Any, k: Any, tables: Any, rows: Any, scale: float) -> Any:
    logits = scale * np.einsum("bqhd,bkhd->bhqk", q, k)
    for rel, at in zip(tables, rows, strict=True):
        logits = logits + np.einsum("bqhd,bqkd->bhqk", q, far_of(rel, at, len(q)))
    return logits


def on_a_grid(
    q: Any, k: Any, v: Any, rel_h: Any, rel_w: Any, coordinates: Any, size: Any, scale: float
) -> tuple[Any, Any]:
    logits = logits_of(q, k, (rel_h, rel_w), rows_of_tables(coordinates, size), scale)
    peak = logits.max(-1, keepdims=True, initial=-np.inf)
    log_weight = (peak + np.log(np.exp(logits - peak).sum(-1, keepdims=True)))[..., 0]
    return np.einsum("bhqk,bkhd->bqhd", softmax(logits, -1), v), log_weight


def relative_attention_backward(
    grad: Any, q: Any, k: Any, v: Any, rel_h: Any, rel_w: Any, coordinates: Any, out: Any, log_weight: Any, size: Any,
    scale: float,
) -> tuple[Any, ...]:  # fmt: skip
    """Of q, k, v and of the tables, for a gradient of ``out``; no windows."""
    rows = rows_of_tables(places(coordinates, size), size)
    weight = np.exp(logits_of(q, k, (rel_h, rel_w), rows, scale) - log_weight[..., None])
    mean = np.einsum("bqhd,bqhd->bhq", grad, out)[..., None]
    slope = weight * (np.einsum("bqhd,bkhd->bhqk", grad, v) - mean)  # of the logits
    q_grad, table_grads = scale * np.einsum("bhqk,bkhd->bqhd", slope, k), []
    for rel, at in zip((rel_h, rel_w), rows, strict=True):
        q_grad = q_grad + np.einsum("bhqk,bqkd->bqhd", slope, far_of(rel, at, len(q)))
        table_grads.append(np.zeros_like(rel))
        each = np.einsum("bhqk,bqhd->bqkd", slope, q)
        np.add.at(table_grads[-1], np.broadcast_to(at, each.shape[:3]), each)
    k_grad = scale * np.einsum("bhqk,bqhd->bkhd", slope, q)
    return q_grad, k_grad, np.einsum("bhqk,bqhd->bkhd", weight, grad), *table_grads


def partition(x: Any, size: Any, window: Any, padding: Any) -> Any:
    """(B, h w, ...) as (B windows, window, ...); positions outside the grid are ``padding``, or zero."""
    rows, columns = (-(-n // m) for n, m in zip(size, window, strict=True))
    whole = np.zeros((len(x), rows * window[0], columns * window[1], *x.shape[2:]), x.dtype)
    if padding is not None:
        whole[:] = padding
    whole[:, : size[0], : size[1]] = x.reshape(len(x), *size, *x.shape[2:])
    cut = whole.reshape(len(x), rows, window[0], columns, window[1], *x.shape[2:]).swapaxes(2, 3)
    return cut.reshape(-1, window[0] * window[1], *x.shape[2:])


def unite(x: Any, size: Any, window: Any) -> Any:
    rows, columns = (-(-n // m) for n, m in zip(size, window, strict=True))
    cut = x.reshape(-1, rows, columns, *window, *x.shape[2:]).swapaxes(2, 3)
    whole = cut.reshape(len(cut), rows * window[0], columns * window[1], *x.shape[2:])
    return whole[:, : size[0], : size[1]].reshape(len(cut), -1, *x.shape[2:])


# ---------------------------------------------------------------- without position


def grid_attention(
    q: Any, k: Any, v: Any, pad_key: Any, pad_value: Any, size: Any, window: Any, pool: int, scale: float
) -> Any:
    """(B, h w / pool^2, heads, width): in windows, or among all; queries are the largest of pool x pool."""
    cell = window if window[0] else size
    q, k, v = (partition(x, size, cell, fill) for x, fill in ((q, None), (k, pad_key), (v, pad_value)))
    down, across = cell[0] // pool, cell[1] // pool
    q = q.reshape(len(q), down, pool, across, pool, *q.shape[2:]).max((2, 4)).reshape(len(q), -1, *q.shape[2:])
    weight = softmax(scale * np.einsum("bqhd,bkhd->bhqk", q, k), -1)
    out = np.einsum("bhqk,bkhd->bqhd", weight, v)
    return unite(out, [n // pool for n in size], (down, across))


def grid_layer(
    x: Any, norm1: Any, qkv: Any, residual: Any, project: Any, norm2: Any, mlp: Any, heads: int, window: int, pool: int,
    eps: Any, activation: str,
) -> Any:  # fmt: skip
    """(B, h / pool, w / pool, C) of tokens (B, h, w, C): LayerNorm, attention, residual, MLP, residual."""
    size = x.shape[1:3]
    rows = normalised_linear(x.reshape(len(x), -1, x.shape[3]), norm1, eps[0], qkv)
    q, k, v = np.moveaxis(rows.reshape(*rows.shape[:2], 3, heads, -1), 2, 0)
    # Hosts pad what the qkv layer reads with zeros.
    pad_key, pad_value = qkv[1].reshape(3, heads, -1)[1:]
    scale = q.shape[-1] ** -0.5
    attended = grid_attention(q, k, v, pad_key, pad_value, size, (window, window), pool, scale)
    attended = attended.reshape(len(x), size[0] // pool, size[1] // pool, -1)
    if len(residual):
        wide = normalised_linear(x, norm1, eps[0], residual)
        x = wide.reshape(len(x), size[0] // pool, pool, size[1] // pool, pool, -1).max((2, 4))
    return residual_mlp(x, attended, project, norm2, eps[1], mlp, activation)
