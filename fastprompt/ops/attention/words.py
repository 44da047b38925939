"""Pixels attend to the words of a sentence: the fusion of the referring models."""

import math
from typing import Any, Literal, get_args

import numpy as np

from fastprompt._choices import choice
from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array, in_dtype_of, plain_floats
from fastprompt.ops._checks import check_devices, check_number
from fastprompt.ops.attention.operators import image_to_prompt
from fastprompt.ops.attention.weights import AttentionWeights, check_weights, linear, zeros

__all__ = ["pixel_word_attention"]

Kind = Literal["additive", "boolean", "multiplicative"]


def pixel_word_attention(
    image: Any,  # (B, C, H, W)
    words: Any,  # (B, T, L)
    weights: AttentionWeights,
    *,
    heads: int,
    mask: Any = None,  # (B, T)
    mask_kind: Kind = "boolean",
    bias: Any = None,  # (B, T)
    on_full_mask: Literal["zero", "unmask"] = "zero",
    scale: float | None = None,
    query_norm: float | None = None,
    return_logits: bool = False,
) -> Any:
    r"""Every pixel attends to the words of its sentence (LAVT, RefSegformer, CRIS, ReLA, ZegCLIP).

    .. math:: y_n = W_o \, \big\Vert_h \sum_t \operatorname{softmax}_t\!\big(s\, q_{nh} \cdot k_{th} + b_t\big)\, v_{th}
        + b_o, \quad q = W_q x + b_q,\; k = W_k l + b_k,\; v = W_v l + b_v

    What a mask means differs from model to model:

    ================ ==================================================================================
    "additive"       added to the logits, -inf allowed (CRIS)
    "boolean"        0 hides a word, as -inf would (ReLA)
    "multiplicative" multiplies keys and values: a hidden word keeps the logit 0 and dilutes the softmax (RefSegformer)
    ================ ==================================================================================

    LAVT has two: ``mask=m, mask_kind="multiplicative", bias=1e4 * m - 1e4``, with ``scale=D ** -0.5`` of all heads
    together and ``query_norm=1e-5``.

    Args:
        image: feature maps; words: T words of L channels for each. float32, float16 or bfloat16.
        weights: query (D, C), key and value (D, L), out (C', D).
        heads: number H of heads, a divisor of D.
        mask, mask_kind: see above. bias: added to the logits besides.
        on_full_mask: a sentence whose words are all at -inf gives nothing, so b_o ("zero"), or is seen whole
            ("unmask").
        scale: s, default 1 / sqrt(D / H).
        query_norm: eps of an InstanceNorm (no parameters) of the queries over the pixels; None: none.
        return_logits: also the mean over the heads of the scaled logits, without mask and bias: (B, T, H, W)
            (ZegCLIP's masks).

    Returns:
        (B, C', H, W) in the dtype of ``image``, and the logits if asked for; torch in, torch out. Differentiable.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> x = lambda *shape: np.random.default_rng(0).standard_normal(shape, np.float32)
        >>> w = fp.AttentionWeights(x(32, 64), None, x(32, 48), None, x(32, 48), None, x(64, 32), None)
        >>> fp.pixel_word_attention(x(1, 64, 8, 8), x(1, 5, 48), w, heads=2).shape
        (1, 64, 8, 8)

    Source: Yang et al., LAVT, 2022; Wu et al., RefSegformer, 2024; Wang et al., CRIS, 2022; Liu et al., ReLA, 2023;
    Zhou et al., ZegCLIP, 2023. Formulas only.
    """
    image, words = as_array("image", image), as_array("words", words)
    query_norm = None if query_norm is None else check_number("query_norm", query_norm, 0.0, math.inf)
    scale = None if scale is None else check_number("scale", scale, -math.inf, math.inf)
    w = check(image, words, weights, heads, mask_kind, on_full_mask)
    x, sentence = plain_floats(image), plain_floats(words)
    added, factor = masks(sentence, mask, mask_kind, bias)
    number = (len(w.query_weight) // heads) ** -0.5 if scale is None else scale
    unmask = on_full_mask == "unmask"
    out, logits = attend(x, sentence, w, heads, added, factor, unmask, number, query_norm, return_logits)
    out = in_dtype_of(out, image)
    return (out, logits) if return_logits else out


def check(image: Any, words: Any, weights: Any, heads: Any, kind: str, on_full_mask: str) -> AttentionWeights:
    check_devices(image=image, words=words)
    shaped = image.ndim == 4 and words.ndim == 3 and len(image) == len(words)
    if not shaped or 0 in (*image.shape[1:], words.shape[1]):
        shapes = f"{tuple(image.shape)}, {tuple(words.shape)}"
        raise ValueError(f"image must be (B, C, H, W) and words (B, T, L), none empty, got {shapes}")
    out = int(weights[6].shape[0]) if isinstance(weights, tuple) and len(weights) == 8 else 0
    w = check_weights(weights, heads, image.shape[1], words.shape[2], out)
    check_devices(image=image, **w._asdict())
    choice("mask_kind", kind, get_args(Kind))
    choice("on_full_mask", on_full_mask, ("zero", "unmask"))
    return w


def masks(words: Any, mask: Any, kind: str, bias: Any) -> tuple[Any, Any]:
    """What is added to the logits, and what keys and values are multiplied with; (B, T) or None."""
    given = []
    for name, x in (("mask", mask), ("bias", bias)):
        if x is not None:
            x = as_array(name, x)
            check_devices(words=words, **{name: x})
            if tuple(x.shape) != tuple(words.shape[:2]):
                raise ValueError(f"{name} must have shape {tuple(words.shape[:2])}, got {tuple(x.shape)}")
            x = plain_floats(x)
        given.append(x)
    mask, added = given
    if mask is None or kind == "multiplicative":
        return added, mask
    if kind == "boolean":
        mask = (
            mask.new_zeros(()).where(mask != 0, -math.inf)
            if is_tensor(mask)
            else np.where(mask != 0, np.float32(0), np.float32(-np.inf))
        )
    return mask if added is None else added + mask, None


def attend(
    x: Any,
    words: Any,
    w: AttentionWeights,
    heads: int,
    added: Any,
    factor: Any,
    unmask: bool,
    scale: float,
    query_norm: float | None,
    return_logits: bool,
) -> tuple[Any, Any]:
    """The words' side by matrices, the pixels' side by the kernel."""
    split = lambda y: y.reshape(*y.shape[:2], heads, y.shape[2] // heads).swapaxes(1, 2)  # noqa: E731
    pixels = math.prod(x.shape[2:])
    key, value = linear(words, w.key_weight, w.key_bias), linear(words, w.value_weight, w.value_bias)
    if factor is not None:
        key, value = key * factor[..., None], value * factor[..., None]
    if added is not None:
        hidden = (added == -math.inf).all(-1)[:, None]  # no word is seen
        value = value if unmask else value * ~hidden[..., None]
        added = added.masked_fill(hidden, 0) if is_tensor(added) else np.where(hidden, np.float32(0), added)
    key, value = split(key) * scale, split(value)
    absorbed = query_norm is None and w.out_weight.shape[0] == x.shape[1]
    if absorbed:
        bias = key[..., 0] * 0 if w.query_bias is None else (key * w.query_bias.reshape(heads, 1, -1)).sum(-1)
        key = key @ w.query_weight.reshape(heads, -1, x.shape[1])
        value = value @ w.out_weight.swapaxes(0, 1).reshape(heads, -1, x.shape[1])
    else:
        x = queries(x, w, query_norm)
        bias, key, value = key[..., 0] * 0, in_place(key), in_place(value)
    logits = None
    if return_logits:
        flat = x.reshape(*x.shape[:2], pixels)
        logits = (key.mean(1) @ flat + bias.mean(1)[..., None]).reshape(*words.shape[:2], *x.shape[2:])
    if added is not None:
        bias = bias + added[:, None]
    out_bias = w.bias_of_out() if absorbed else zeros(x, x.shape[1])
    out = image_to_prompt(x, None, key, bias, value, None, None, out_bias, None, None, None, False, 0.0)
    if not absorbed:
        flat = w.out_weight @ out.reshape(*out.shape[:2], pixels)
        flat = flat if w.out_bias is None else flat + w.out_bias[:, None]
        out = flat.reshape(len(x), len(w.out_weight), *x.shape[2:])
    return out, logits


def queries(x: Any, w: AttentionWeights, eps: float | None) -> Any:
    """(B, D, H, W): the projected pixels, normalised over all pixels of an image."""
    q = w.query_weight @ x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    q = q if w.query_bias is None else q + w.query_bias[:, None]
    if eps is not None:
        q = q - q.mean(-1)[..., None]
        q = q / ((q * q).mean(-1)[..., None] + eps) ** 0.5
    return q.reshape(len(x), len(w.query_weight), *x.shape[2:])


def in_place(rows: Any) -> Any:
    """(B, H, T, width) as (B, H, T, D), zero outside the channels of the head."""
    batch, heads, tokens, width = rows.shape
    wide = zeros(rows, batch, heads, tokens, heads * width)
    for h in range(heads):
        wide[:, h, :, h * width : (h + 1) * width] = rows[:, h]
    return wide
