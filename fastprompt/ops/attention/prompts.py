"""Attention between the few tokens of a prompt and the many of an image."""

from typing import Any

from fastprompt.ops.attention.arguments import Arguments, Form
from fastprompt.ops.attention.operators import image_to_prompt, prompt_to_image
from fastprompt.ops.attention.weights import AttentionWeights, linear

__all__ = ["AttentionWeights", "image_to_prompt_attention", "prompt_to_image_attention"]


def prompt_to_image_attention(
    prompt: Any,  # ([B,] T, C)
    image: Any,  # ([B',] C, H, W)
    weights: AttentionWeights,
    *,
    heads: int,
    prompt_position: Any = None,  # as prompt
    image_position: Any = None,  # ([1,] C, H, W)
    bias: Any = None,  # ([B,] T, H, W)
    lengths: Any = None,  # (B,)
    scale: float | None = None,
    form: Form = "auto",
) -> Any:
    r"""Every prompt token attends to every image token (SAM's "token to image").

    .. math:: y_t = W_o \, \big\Vert_h \, \sum_n \operatorname{softmax}_n\!\big(s\, q_{th} \cdot k_{nh} + b_{tn}\big)\,
        v_{nh} + b_o,\quad q = W_q (t + t_{pe}) + b_q,\; k = W_k (x + x_{pe}) + b_k,\; v = W_v x + b_v

    Keys and values of the image are never written to memory. With few tokens the projections of the image are absorbed
    into the prompt: :math:`q_{th} \cdot W_{k,h} x = (W_{k,h}^\top q_{th}) \cdot x`, which costs 2 T H C instead of
    2 C D + 2 T D multiply-adds for an image token (D = inner width): the cheaper form is taken.

    Args:
        prompt: T tokens of C channels each; B prompts. float32, float16 or bfloat16.
        image: image tokens as a feature map; one for all prompts, or one for every B / B' of them in order.
        weights: see :class:`AttentionWeights`.
        heads: number H of heads; the inner width is a multiple of it.
        prompt_position, image_position: positional encodings, added for the logits only.
        bias: added to the logits of all heads; -inf hides an image token. A prompt token that sees none gets b_o.
        lengths: int64, how many tokens of each prompt exist; the results of the others are 0.
        scale: s, default 1 / sqrt(D / H).
        form: "absorbed", "projected" or "auto".

    Returns:
        The shape and dtype of ``prompt``; torch in, torch out. Differentiable by prompt, image, weights and positions.
        On the CPU the number of threads (and of prompts) decides into how many parts the sum over the image is split:
        the same bits for the same number, and rounding (some 1e-7 of the values summed) between two.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> x = lambda *shape: np.random.default_rng(0).standard_normal(shape, np.float32)
        >>> w = fp.AttentionWeights(x(32, 64), None, x(32, 64), None, x(32, 64), None, x(64, 32), None)
        >>> fp.prompt_to_image_attention(x(5, 64), x(64, 8, 8), w, heads=2).shape
        (5, 64)

    Source: Kirillov et al., Segment Anything, 2023 (two-way transformer); absorption as in multi-head latent attention,
    DeepSeek-V2, 2024.
    """
    n = Arguments(prompt, image, weights, heads, prompt_position, image_position, bias, lengths, scale, form)
    w = n.weights
    query = n.split(linear(n.positioned(), w.query_weight, w.query_bias) * n.scale)
    absorbed = n.absorbed()
    if absorbed:
        query = query @ n.by_head(w.key_weight)
    key_weight, value_weight = (None, None) if absorbed else (w.key_weight, w.value_weight)
    core = prompt_to_image(n.image, n.image_position, query, key_weight, value_weight, n.bias, n.lengths)
    if absorbed:
        core = core @ n.by_head(w.value_weight).swapaxes(1, 2)
    if w.value_bias is not None:
        core = core + w.value_bias.reshape(heads, 1, -1) * n.sees()
    out = linear(core.swapaxes(1, 2).reshape(*n.prompt.shape[:2], n.inner), w.out_weight, w.out_bias)
    return n.result(out if lengths is None else out * n.exists(), prompt)


def image_to_prompt_attention(
    image: Any,  # ([B',] C, H, W)
    prompt: Any,  # ([B,] T, C)
    weights: AttentionWeights,
    *,
    heads: int,
    prompt_position: Any = None,  # as prompt
    image_position: Any = None,  # ([1,] C, H, W)
    lengths: Any = None,  # (B,)
    residual: bool = True,
    norm: tuple[Any, Any, float] | None = None,  # weight (C,), bias (C,), eps
    scale: float | None = None,
    form: Form = "auto",
) -> Any:
    r"""Every image token attends to every prompt token (SAM's "image to token"), then residual and LayerNorm.

    .. math:: y_n = \operatorname{LN}\!\Big(x_n + W_o \, \big\Vert_h \sum_t \operatorname{softmax}_t\!\big(s\, q_{nh}
        \cdot k_{th}\big)\, v_{th} + b_o\Big),\quad q = W_q (x + x_{pe}) + b_q

    One pass over the image: neither the queries nor the unnormalised sums are written to memory. ``residual=False`` and
    ``norm=None`` leave the attention alone. ``lengths``: tokens beyond are not seen. Everything else as in
    :func:`prompt_to_image_attention`.

    Returns:
        ([B,] C, H, W), in the dtype of ``image``: one map per prompt.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> x = lambda *shape: np.random.default_rng(0).standard_normal(shape, np.float32)
        >>> w = fp.AttentionWeights(x(32, 64), None, x(32, 64), None, x(32, 64), None, x(64, 32), None)
        >>> fp.image_to_prompt_attention(x(64, 8, 8), x(5, 64), w, heads=2).shape
        (64, 8, 8)
    """
    n = Arguments(prompt, image, weights, heads, prompt_position, image_position, None, lengths, scale, form)
    w, (norm_weight, norm_bias, eps) = n.weights, n.norm(norm)
    key = n.split(linear(n.positioned(), w.key_weight, w.key_bias) * n.scale)
    value = n.split(linear(n.prompt, w.value_weight, w.value_bias))
    bias = (key * w.query_bias.reshape(heads, 1, -1)).sum(-1) if w.query_bias is not None else key[..., 0] * 0
    absorbed = n.absorbed()
    if absorbed:
        key = key @ n.by_head(w.query_weight)
        value = value @ n.by_head(w.out_weight.swapaxes(0, 1))
    query_weight, out_weight = (None, None) if absorbed else (w.query_weight, w.out_weight)
    prompt_side = (key, bias, value, query_weight, out_weight, w.bias_of_out())
    rest = (norm_weight, norm_bias, n.lengths, bool(residual), eps)
    return n.result(image_to_prompt(n.image, n.image_position, *prompt_side, *rest), image)
