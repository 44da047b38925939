"""What the attention functions share: their weights, the checked and batched arguments, the way to the kernel."""

import math
import sys
from typing import Any, NamedTuple

import numpy as np

from fastprompt import _C
from fastprompt._gpu import is_cuda
from fastprompt._runtime import current_backend, get_num_threads, is_tensor
from fastprompt.ops._arrays import address, as_array, dtype_name, plain_floats
from fastprompt.ops._checks import check_devices

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


def linear(x: Any, weight: Any, bias: Any) -> Any:
    y = x @ weight.swapaxes(0, 1)
    return y if bias is None else y + bias


def check_weights(weights: Any, heads: Any, image: int, prompt: int, out: int) -> AttentionWeights:
    """Weights for so many channels of image, prompt and result, in float32; the prompt gives keys and values."""
    if not isinstance(weights, tuple) or len(weights) != 8:
        raise TypeError(f"weights must be AttentionWeights, got {type(weights).__name__}")
    w = AttentionWeights(*(None if x is None else plain_floats(as_array("weights", x)) for x in weights))
    inner = int(w.query_weight.shape[0])
    if isinstance(heads, bool) or not isinstance(heads, int) or heads < 1 or inner % heads:
        raise ValueError(f"heads must be a positive divisor of the inner width {inner}, got {heads!r}")
    sizes = {"query": (inner, image), "key": (inner, prompt), "value": (inner, prompt), "out": (out, inner)}
    for name, x in zip(w._fields, w, strict=True):
        part, _, which = name.partition("_")
        size = sizes[part] if which == "weight" else sizes[part][:1]
        if x is not None and tuple(x.shape) != size:
            raise ValueError(f"weights.{name} must have shape {size}, got {tuple(x.shape)}")
    return w


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
        self.image = plain_image(image if image.ndim == 4 else image[None])
        batch, tokens, channels = self.prompt.shape
        images, self.map_shape = self.image.shape[0], tuple(self.image.shape[1:])
        if self.image.shape[1] != channels:
            raise ValueError(f"image must have the prompt's {channels} channels, got {self.image.shape[1]}")
        if tokens == 0 or images == 0 or batch % max(images, 1):
            raise ValueError(
                f"prompt must hold tokens for a multiple of the {images} images, got {tuple(prompt.shape)}"
            )
        self.heads, self.form = heads, form
        self.weights = check_weights(weights, heads, channels, channels, channels)
        self.inner = int(self.weights.query_weight.shape[0])
        self.scale = 1 / math.sqrt(self.inner // heads) if scale is None else float(scale)
        if form not in ("auto", "absorbed", "projected"):
            raise ValueError(f"form must be 'auto', 'absorbed' or 'projected', got {form!r}")
        self.prompt_position = self._optional("prompt_position", prompt_position, tuple(self.prompt.shape))
        self.image_position = self._optional("image_position", image_position, (1, *self.map_shape))
        self.bias = self._optional("bias", bias, (batch, tokens, *self.map_shape[1:]))
        self.lengths = self._lengths(lengths, batch, tokens)

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
        known = not is_cuda(lengths)  # a GPU would have to be waited for; its kernels take any number
        if batch and known and not (int(lengths.min()) > 0 and int(lengths.max()) <= tokens):
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
        if is_cuda(self.prompt):
            return False  # the operator has the formula
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
            from fastprompt.ops.attention import operators as torch_side

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
            from fastprompt.ops.attention import operators as torch_side

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


def plain_image(x: Any) -> Any:
    """float32, contiguous; half precision stays on a GPU, whose kernels read it."""
    if is_cuda(x) and dtype_name(x) in ("float16", "bfloat16"):
        return x.contiguous()
    return plain_floats(x)


def numpy(x: Any) -> Any:
    return x.detach().numpy() if is_tensor(x) else np.asarray(x)


def sizes(image: Any, rows: Any, absorbed: bool) -> tuple[int, ...]:
    prompts, heads, tokens, size = rows.shape
    width = LANES if absorbed else size  # absorbed rows have none
    return (image.shape[0], prompts, image.shape[1], math.prod(image.shape[2:]), tokens, heads, width)


def launch_prompt_to_image(
    image: Any, position: Any, query: Any, key_weight: Any, value_weight: Any, bias: Any, lengths: Any, out: Any
) -> None:
    """``query`` (B, H, T, C) absorbed, or (B, H, T, width) with the weights; ``out`` like it."""
    absorbed = key_weight is None
    query = plain_floats(query)
    value = None if absorbed else plain_floats(value_weight.swapaxes(0, 1))
    fields = (1 if absorbed else 2, address(query), address(key_weight), address(value), address(bias), address(out))
    size = sizes(image, query, absorbed)
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
    size = sizes(image, key, absorbed)
    _C.prompt_pass(
        size, address(image), address(position), address(lengths), fields, (), address(out), get_num_threads()
    )
