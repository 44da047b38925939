"""Attention between prompt and image tokens in plain NumPy, as the formulas read: every projection is written out."""

from typing import Any

import numpy as np


def softmax(x: Any, axis: int) -> Any:
    """0 where everything is -inf."""
    peak = x.max(axis, keepdims=True)
    weight = np.exp(x - np.where(np.isfinite(peak), peak, 0))
    total = weight.sum(axis, keepdims=True)
    return weight / np.where(total > 0, total, 1)


def linear(x: Any, weight: Any, bias: Any) -> Any:
    return x @ weight.T if bias is None else x @ weight.T + bias


def attention(query: Any, key: Any, value: Any, w: Any, heads: int, scale: float, bias: Any = None) -> Any:
    """softmax(scale Q K^T + bias) V of every head, side by side, projected: (B, Q, C), (B, K, C), (B, K, C)."""

    def split(x: Any, weight: Any, offset: Any) -> Any:
        y = linear(x, weight, offset)
        return y.reshape(*y.shape[:2], heads, -1).swapaxes(1, 2)

    q, k, v = (
        split(query, w.query_weight, w.query_bias),
        split(key, w.key_weight, w.key_bias),
        split(value, w.value_weight, w.value_bias),
    )
    logits = scale * q @ k.swapaxes(2, 3)
    weight = softmax(logits if bias is None else logits + bias, -1)
    out = (weight @ v).swapaxes(1, 2).reshape(*query.shape[:2], -1)
    return linear(out, w.out_weight, w.out_bias)


def layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def tokens(image: Any, batch: int) -> Any:
    """(B', C, ...) as (B, N, C), every image for B / B' prompts."""
    flat = image.reshape(*image.shape[:2], -1).swapaxes(1, 2)
    return np.repeat(flat, batch // len(flat), axis=0)


def absent(prompt: Any, lengths: Any) -> Any:
    """(B, T): which prompt tokens do not exist."""
    batch, count = prompt.shape[:2]
    return np.zeros((batch, count), bool) if lengths is None else np.arange(count) >= np.asarray(lengths)[:, None]


def prompt_to_image(prompt: Any, image: Any, w: Any, *, heads: int, scale: float, **o: Any) -> Any:
    x = tokens(image, len(prompt))
    position = 0 if o["image_position"] is None else tokens(o["image_position"], 1)
    asked = prompt if o["prompt_position"] is None else prompt + o["prompt_position"]
    bias = None if o["bias"] is None else o["bias"].reshape(*prompt.shape[:2], -1)[:, None]
    out = attention(asked, x + position, x, w, heads, scale, bias)
    out[absent(prompt, o["lengths"])] = 0
    return out


def image_to_prompt(image: Any, prompt: Any, w: Any, *, heads: int, scale: float, **o: Any) -> Any:
    x = tokens(image, len(prompt))
    position = 0 if o["image_position"] is None else tokens(o["image_position"], 1)
    key = prompt if o["prompt_position"] is None else prompt + o["prompt_position"]
    bias = np.where(absent(prompt, o["lengths"]), -np.inf, 0)[:, None, None]
    out = attention(x + position, key, prompt, w, heads, scale, bias)
    if o["residual"]:
        out = x + out
    if o["norm"] is not None:
        out = layer_norm(out, *o["norm"])
    return out.swapaxes(1, 2).reshape(len(prompt), *image.shape[1:])


def pixel_word(
    image: Any,
    words: Any,
    w: Any,
    heads: int,
    added: Any,
    factor: Any,
    unmask: bool,
    scale: float,
    query_norm: float | None,
) -> tuple[Any, Any]:
    x = tokens(image, len(image))
    q, k, v = linear(x, w.query_weight, w.query_bias), linear(words, w.key_weight, w.key_bias), None
    v = linear(words, w.value_weight, w.value_bias)
    if query_norm is not None:
        q = (q - q.mean(1, keepdims=True)) / np.sqrt(q.var(1, keepdims=True) + query_norm)
    if factor is not None:
        k, v = k * factor[..., None], v * factor[..., None]
    q, k, v = (y.reshape(*y.shape[:2], heads, -1).swapaxes(1, 2) for y in (q, k, v))
    logits = scale * q @ k.swapaxes(2, 3)
    bias = np.zeros(words.shape[:2]) if added is None else added
    if unmask:
        bias = np.where(np.isneginf(bias).all(-1, keepdims=True), 0, bias)
    out = (softmax(logits + bias[:, None, None], -1) @ v).swapaxes(1, 2).reshape(*x.shape[:2], -1)
    out = linear(out, w.out_weight, w.out_bias).swapaxes(1, 2).reshape(len(image), -1, *image.shape[2:])
    mean = logits.mean(1).swapaxes(1, 2).reshape(*words.shape[:2], *image.shape[2:])
    return out.astype(np.float32), mean.astype(np.float32)


# ---------------------------------------------------------------- relative position


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
