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


def layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def tokens(image: Any, batch: int) -> Any:
    """(B', C, ...) as (B, N, C), every image for B / B' prompts."""
    flat = image.reshape(*image.shape[:2], -1).swapaxes(1, 2)
    return np.repeat(flat, batch // max(1, len(flat)), axis=0)


def absent(prompt: Any, lengths: Any) -> Any:
    """(B, T): which prompt tokens do not exist."""
    batch, count = prompt.shape[:2]
    return np.zeros((batch, count), bool) if lengths is None else np.arange(count) >= np.asarray(lengths)[:, None]


def by_head(x: Any, weight: Any, heads: int) -> Any:
    """(B, 1 or H, N, C or width) of tokens (B, N, C): projected for every head, or as they are."""
    return x[:, None] if weight is None else x[:, None] @ weight.reshape(heads, -1, weight.shape[1]).swapaxes(1, 2)


def prompt_to_image(
    image: Any, position: Any, query: Any, key_weight: Any, value_weight: Any, bias: Any, lengths: Any
) -> Any:
    """What a kernel computes: (B, H, T, C) of rows of the same shape, or (B, H, T, width) with the weights."""
    x, heads = tokens(image, len(query)), query.shape[1]
    key = by_head(x if position is None else x + tokens(position, 1), key_weight, heads)
    logits = query @ key.swapaxes(2, 3)
    if bias is not None:
        logits = logits + bias.reshape(len(query), 1, query.shape[2], -1)
    there = ~absent(query[:, 0], lengths)[:, None, :, None]
    return softmax(logits, -1) @ by_head(x, value_weight, heads) * there


def image_to_prompt(
    image: Any, position: Any, key: Any, bias: Any, value: Any, query_weight: Any, out_weight: Any, out_bias: Any,
    norm_weight: Any, norm_bias: Any, lengths: Any, residual: bool, eps: float,
) -> Any:  # fmt: skip
    """What a kernel computes, of rows as in :func:`prompt_to_image`; ``bias`` (B, H, T) is added to their logits."""
    x = tokens(image, len(key))
    query = by_head(x if position is None else x + tokens(position, 1), query_weight, key.shape[1])
    hidden = np.where(absent(key[:, 0], lengths), -np.inf, 0)[:, None, None]
    out = softmax(query @ key.swapaxes(2, 3) + bias[:, :, None] + hidden, -1) @ value
    out = out.sum(1) if out_weight is None else out.swapaxes(1, 2).reshape(*x.shape[:2], -1) @ out_weight.T
    out = out + out_bias + x if residual else out + out_bias
    if norm_weight is not None:
        out = layer_norm(out, norm_weight, norm_bias, eps)
    return out.swapaxes(1, 2).reshape(len(key), *image.shape[1:])


# ---------------------------------------------------------------- whole calls, every projection written out


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


def prompt_to_image_call(prompt: Any, image: Any, w: Any, *, heads: int, scale: float, **o: Any) -> Any:
    x = tokens(image, len(prompt))
    position = 0 if o["image_position"] is None else tokens(o["image_position"], 1)
    asked = prompt if o["prompt_position"] is None else prompt + o["prompt_position"]
    bias = None if o["bias"] is None else o["bias"].reshape(*prompt.shape[:2], -1)[:, None]
    out = attention(asked, x + position, x, w, heads, scale, bias)
    out[absent(prompt, o["lengths"])] = 0
    return out


def image_to_prompt_call(image: Any, prompt: Any, w: Any, *, heads: int, scale: float, **o: Any) -> Any:
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
