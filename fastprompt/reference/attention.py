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
