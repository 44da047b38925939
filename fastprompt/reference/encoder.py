"""Layers of image encoders, as they read."""

from typing import Any

import numpy as np

from fastprompt.reference.attention import softmax


def relative_position(
    q: Any, k: Any, v: Any, rel_h: Any, rel_w: Any, coordinates: Any, pad_key: Any, pad_value: Any,
    size: Any, window: Any, scale: float,
) -> Any:  # fmt: skip
    """(B, N, heads, width); q, k, v alike."""
    if not window[0]:
        return on_a_grid(q, k, v, rel_h, rel_w, grid(size) if coordinates is None else coordinates, size, scale)
    filled = zip((q, k, v), (None, pad_key, pad_value), strict=True)
    q, k, v = (partition(x, size, window, padding) for x, padding in filled)
    out = on_a_grid(q, k, v, rel_h, rel_w, grid(window), window, scale)
    return unite(out, size, window)


def grid(size: Any) -> Any:
    """(1, h w, 2): row and column of every position, row by row."""
    return np.moveaxis(np.indices(size), 0, -1).reshape(1, -1, 2)


def on_a_grid(q: Any, k: Any, v: Any, rel_h: Any, rel_w: Any, coordinates: Any, size: Any, scale: float) -> Any:
    y, x = np.moveaxis(coordinates, -1, 0)
    far_h = rel_h[y[:, :, None] - y[:, None] + size[0] - 1]  # (B or 1, queries, keys, width)
    far_w = rel_w[x[:, :, None] - x[:, None] + size[1] - 1]
    logits = scale * np.einsum("bqhd,bkhd->bhqk", q, k)
    for far in (far_h, far_w):
        logits = logits + np.einsum("bqhd,bqkd->bhqk", q, np.broadcast_to(far, (len(q), *far.shape[1:])))
    return np.einsum("bhqk,bkhd->bqhd", softmax(logits, -1), v)


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
