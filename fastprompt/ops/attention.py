"""Attention between the few tokens of a prompt and the many of an image."""

import math
import sys
from typing import Any, NamedTuple

import numpy as np

from fastprompt import _C
from fastprompt._runtime import current_backend, get_num_threads, is_tensor
from fastprompt.ops._arrays import address, as_array, plain_floats
from fastprompt.ops._grid import check_devices

__all__ = ["AttentionWeights", "image_to_prompt_attention", "prompt_to_image_attention"]

LANES = 16  # the kernel takes channels, and the width of a head, in multiples of it


class AttentionWeights(NamedTuple):
    """Projections of one attention: ``weight`` as ``nn.Linear`` has them, (inner, C), the last one (C, inner).

    ``bias`` may be None. :meth:`of` reads them from the modules of the field.
    """

    query_weight: Any
    query_bias: Any
    key_weight: Any
    key_bias: Any
    value_weight: Any
    value_bias: Any
    out_weight: Any
    out_bias: Any

    @classmethod
    def of(cls, module: Any) -> "AttentionWeights":
        """Of a module with ``q_proj``, ``k_proj``, ``v_proj`` and ``out_proj`` (transformers, segment-anything, sam2)
        or ``o_proj`` (transformers' Sam2)."""
        out = module.out_proj if hasattr(module, "out_proj") else module.o_proj
        layers = (module.q_proj, module.k_proj, module.v_proj, out)
        return cls(*(x for layer in layers for x in (layer.weight, layer.bias)))


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
    form: str = "auto",
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
    call = Call(prompt, image, weights, heads, prompt_position, image_position, bias, lengths, scale, form)
    if call.needs_reference():
        return call.reference("prompt_to_image")
    w, n = call.weights, call
    query = n.split(linear(n.positioned(), w.query_weight, w.query_bias) * n.scale)
    absorbed = n.absorbed()
    if absorbed:
        query = query @ n.by_head(w.key_weight)
    core = n.prompt_to_image(query, None if absorbed else w.key_weight, None if absorbed else w.value_weight)
    if absorbed:
        core = core @ n.by_head(w.value_weight).swapaxes(1, 2)
    if w.value_bias is not None:
        core = core + w.value_bias.reshape(heads, 1, -1) * n.sees()
    out = linear(core.swapaxes(1, 2).reshape(*call.prompt.shape[:2], -1), w.out_weight, w.out_bias)
    return call.result(out if lengths is None else out * call.exists(), prompt)


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
    form: str = "auto",
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
    call = Call(prompt, image, weights, heads, prompt_position, image_position, None, lengths, scale, form)
    call.check_norm(norm)
    if call.needs_reference():
        return call.reference("image_to_prompt", residual=residual, norm=norm)
    w, n = call.weights, call
    key = n.split(linear(n.positioned(), w.key_weight, w.key_bias) * n.scale)
    value = n.split(linear(n.prompt, w.value_weight, w.value_bias))
    bias = (key * w.query_bias.reshape(heads, 1, -1)).sum(-1) if w.query_bias is not None else key[..., 0] * 0
    absorbed = n.absorbed()
    if absorbed:
        key = key @ n.by_head(w.query_weight)
        value = value @ n.by_head(w.out_weight.swapaxes(0, 1))
    query_weight, out_weight = (None, None) if absorbed else (w.query_weight, w.out_weight)
    return call.result(n.image_to_prompt(key, bias, value, query_weight, out_weight, residual, norm), image)


def linear(x: Any, weight: Any, bias: Any) -> Any:
    y = x @ weight.swapaxes(0, 1)
    return y if bias is None else y + bias


class Call:
    """The checked arguments of either function: batched, in float32."""

    def __init__(
        self,
        prompt: Any,
        image: Any,
        weights: Any,
        heads: int,
        prompt_position: Any,
        image_position: Any,
        bias: Any,
        lengths: Any,
        scale: float | None,
        form: str,
    ) -> None:
        prompt, image = as_array("prompt", prompt), as_array("image", image)
        check_devices(prompt=prompt, image=image)
        if prompt.ndim not in (2, 3) or image.ndim not in (3, 4):
            raise ValueError(
                f"prompt must be ([B,] T, C) and image ([B,] C, H, W), got {tuple(prompt.shape)}, {tuple(image.shape)}"
            )
        self.single = prompt.ndim == 2 and image.ndim == 3
        self.prompt = plain_floats(prompt if prompt.ndim == 3 else prompt[None])
        self.image = plain_floats(image if image.ndim == 4 else image[None])
        batch, tokens, channels = self.prompt.shape
        images, self.map_shape = self.image.shape[0], tuple(self.image.shape[1:])
        if self.image.shape[1] != channels:
            raise ValueError(f"image must have the prompt's {channels} channels, got {self.image.shape[1]}")
        if tokens == 0 or images == 0 or batch % max(images, 1):
            raise ValueError(
                f"prompt must hold tokens for a multiple of the {images} images, got {tuple(prompt.shape)}"
            )
        self.heads, self.form = heads, form
        self.weights = self._weights(weights, channels)
        self.inner = int(self.weights.query_weight.shape[0])
        self.scale = 1 / math.sqrt(self.inner // heads) if scale is None else float(scale)
        if form not in ("auto", "absorbed", "projected"):
            raise ValueError(f"form must be 'auto', 'absorbed' or 'projected', got {form!r}")
        self.prompt_position = self._optional("prompt_position", prompt_position, tuple(self.prompt.shape))
        self.image_position = self._optional("image_position", image_position, (1, *self.map_shape))
        self.bias = self._optional("bias", bias, (batch, tokens, *self.map_shape[1:]))
        self.lengths = self._lengths(lengths, batch, tokens)

    def _weights(self, weights: Any, channels: int) -> AttentionWeights:
        if not isinstance(weights, tuple) or len(weights) != 8:
            raise TypeError(f"weights must be AttentionWeights, got {type(weights).__name__}")
        w = AttentionWeights(*(None if x is None else plain_floats(as_array("weights", x)) for x in weights))
        inner = int(w.query_weight.shape[0])
        if isinstance(self.heads, bool) or not isinstance(self.heads, int) or self.heads < 1 or inner % self.heads:
            raise ValueError(f"heads must be a positive divisor of the inner width {inner}, got {self.heads!r}")
        for name, x in zip(w._fields, w, strict=True):
            size: tuple[int, ...] = (channels,) if name == "out_bias" else (inner,)
            if name.endswith("weight"):
                size = (channels, inner) if name == "out_weight" else (inner, channels)
            if x is not None and tuple(x.shape) != size:
                raise ValueError(f"weights.{name} must have shape {size}, got {tuple(x.shape)}")
        return w

    def _optional(self, name: str, x: Any, shape: tuple[int, ...]) -> Any:
        if x is None:
            return None
        x = as_array(name, x)
        check_devices(prompt=self.prompt, **{name: x})
        if tuple(x.shape) not in (shape, shape[1:]) or (tuple(x.shape) == shape[1:] and shape[0] != 1):
            raise ValueError(f"{name} must have shape {shape}, got {tuple(x.shape)}")
        return plain_floats(x if x.ndim == len(shape) else x[None])

    def _lengths(self, lengths: Any, batch: int, tokens: int) -> Any:
        if lengths is None:
            return None
        lengths = as_array("lengths", lengths)
        check_devices(prompt=self.prompt, lengths=lengths)
        if tuple(lengths.shape) != (batch,) or "int" not in str(lengths.dtype):
            raise ValueError(f"lengths must be {batch} integers, got {lengths.dtype} of shape {tuple(lengths.shape)}")
        if batch and not (int(lengths.min()) > 0 and int(lengths.max()) <= tokens):
            raise ValueError(f"lengths must be between 1 and {tokens}, got {lengths.tolist()}")
        return lengths.long().contiguous() if is_tensor(lengths) else np.ascontiguousarray(lengths, np.int64)

    def check_norm(self, norm: Any) -> None:
        channels = self.map_shape[0]
        if norm is not None and (len(norm) != 3 or any(tuple(x.shape) != (channels,) for x in norm[:2])):
            raise ValueError(f"norm must be weight ({channels},), bias ({channels},) and eps")

    def positioned(self) -> Any:
        return self.prompt if self.prompt_position is None else self.prompt + self.prompt_position

    def split(self, x: Any) -> Any:
        """(B, T, D) as (B, H, T, D / H)."""
        return x.reshape(*x.shape[:2], self.heads, -1).swapaxes(1, 2)

    def by_head(self, weight: Any) -> Any:
        """(D, C) as (H, D / H, C)."""
        return weight.reshape(self.heads, -1, weight.shape[-1])

    def absorbed(self) -> bool:
        """Whether the projections of the image cost less on the prompt's side."""
        tokens, channels = self.prompt.shape[1:]
        if self.form == "auto" and self.whole_heads():
            return bool(tokens * self.heads * channels < self.inner * (channels + tokens))
        return self.form != "projected"

    def whole_heads(self) -> bool:
        return (self.inner // self.heads) % LANES == 0

    def needs_reference(self) -> bool:
        """Forced, or NumPy arrays of a width without kernel; tensors of such a width take the torch formula."""
        if is_tensor(self.prompt) and sys.modules["torch"].compiler.is_compiling():
            return False  # the operator asks again when it runs
        kernel = self.map_shape[0] % LANES == 0 and (self.absorbed() or self.whole_heads())
        return current_backend() == "reference" or not (kernel or is_tensor(self.prompt))

    def sees(self) -> Any:
        """(B, 1, T, 1): 1 for the prompt tokens that see an image token at all."""
        if self.bias is None:
            return 1
        seen = (self.bias.reshape(*self.prompt.shape[:2], -1) > -math.inf).any(-1)[:, None, :, None]
        return seen.to(self.prompt.dtype) if is_tensor(seen) else seen.astype(np.float32)

    def exists(self) -> Any:
        """(B, T, 1): 1 for the tokens that exist."""
        count = self.prompt.shape[1]
        if is_tensor(self.prompt):
            steps = self.lengths.new_tensor(range(count))
            return (steps < self.lengths[:, None])[..., None].to(self.prompt.dtype)
        return (np.arange(count) < self.lengths[:, None])[..., None].astype(np.float32)

    def result(self, out: Any, like: Any) -> Any:
        out = out[0] if self.single else out
        return out.to(like.dtype) if is_tensor(out) else out.astype(np.asarray(like).dtype, copy=False)

    # ------------------------------------------------------------ the kernels

    def prompt_to_image(self, query: Any, key_weight: Any, value_weight: Any) -> Any:
        if is_tensor(self.prompt):
            from fastprompt.ops import _torch_attention as torch_side

            position, bias, lengths = self.image_position, self.bias, self.lengths
            return torch_side.prompt_to_image(self.image, position, query, key_weight, value_weight, bias, lengths)
        out = np.empty(query.shape, np.float32)
        launch_prompt_to_image(
            self.image, self.image_position, query, key_weight, value_weight, self.bias, self.lengths, out
        )
        return out

    def image_to_prompt(
        self, key: Any, bias: Any, value: Any, query_weight: Any, out_weight: Any, residual: bool, norm: Any
    ) -> Any:
        out_bias = self.weights.out_bias
        if out_bias is None:
            channels = self.map_shape[0]
            out_bias = self.image.new_zeros(channels) if is_tensor(self.image) else np.zeros(channels, np.float32)
        scale, shift, eps = (
            (None, None, 0.0) if norm is None else (plain_floats(norm[0]), plain_floats(norm[1]), float(norm[2]))
        )
        arrays = (self.image, self.image_position, key, bias, value, query_weight, out_weight, out_bias, scale, shift)
        if is_tensor(self.prompt):
            from fastprompt.ops import _torch_attention as torch_side

            return torch_side.image_to_prompt(*arrays, self.lengths, bool(residual), eps)
        out = np.empty((len(self.prompt), *self.map_shape), np.float32)
        launch_image_to_prompt(*arrays, self.lengths, bool(residual), eps, out)
        return out

    def reference(self, name: str, **options: Any) -> Any:
        from fastprompt.reference import attention

        plain = [None if x is None else numpy(x) for x in (self.prompt, self.image)]
        o = {
            k: None if getattr(self, k) is None else numpy(getattr(self, k))
            for k in ("prompt_position", "image_position", "bias", "lengths")
        }
        weights = AttentionWeights(*(None if x is None else numpy(x) for x in self.weights))
        if options.get("norm") is not None:
            options["norm"] = (*(numpy(x) for x in options["norm"][:2]), options["norm"][2])
        pair = plain if name == "prompt_to_image" else plain[::-1]
        out = getattr(attention, name)(*pair, weights, heads=self.heads, scale=self.scale, **o, **options)
        out = out.astype(np.float32)
        if is_tensor(self.prompt):
            import torch

            out = torch.from_numpy(out)
        return self.result(out, self.prompt)


def numpy(x: Any) -> Any:
    return x.detach().numpy() if is_tensor(x) else np.asarray(x)


def sizes(image: Any, rows: Any, absorbed: bool, inner: int) -> tuple[int, ...]:
    prompts, heads, tokens, size = rows.shape
    width = size if not absorbed else inner // heads if inner else LANES
    return (image.shape[0], prompts, image.shape[1], math.prod(image.shape[2:]), tokens, heads, width)


def launch_prompt_to_image(
    image: Any, position: Any, query: Any, key_weight: Any, value_weight: Any, bias: Any, lengths: Any, out: Any
) -> None:
    """``query`` (B, H, T, C) absorbed, or (B, H, T, width) with the weights; ``out`` like it."""
    absorbed = key_weight is None
    query = plain_floats(query)
    value = None if absorbed else plain_floats(value_weight.swapaxes(0, 1))
    fields = (1 if absorbed else 2, address(query), address(key_weight), address(value), address(bias), address(out))
    size = sizes(image, query, absorbed, 0)
    _C.prompt_pass(size, address(image), address(position), address(lengths), (), fields, 0, get_num_threads())


def launch_image_to_prompt(
    image: Any,
    position: Any,
    key: Any,
    bias: Any,
    value: Any,
    query_weight: Any,
    out_weight: Any,
    out_bias: Any,
    norm_weight: Any,
    norm_bias: Any,
    lengths: Any,
    residual: bool,
    eps: float,
    out: Any,
) -> None:
    absorbed = query_weight is None
    key, bias, value, out_bias = plain_floats(key), plain_floats(bias), plain_floats(value), plain_floats(out_bias)
    kept = (key, bias, value, query_weight, out_weight, out_bias)
    fields = (
        1 if absorbed else 2,
        *(address(x) for x in kept),
        residual,
        address(norm_weight),
        address(norm_bias),
        eps,
    )
    size = sizes(image, key, absorbed, 0)
    _C.prompt_pass(
        size, address(image), address(position), address(lengths), fields, (), address(out), get_num_threads()
    )
