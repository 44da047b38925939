"""What the functions between prompts and images share: the checked and batched arguments."""

import math
from typing import Any, Literal, get_args

import numpy as np

from fastprompt._choices import choice
from fastprompt._gpu import is_cuda
from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array, dtype_name, in_dtype_of, in_order, plain_floats
from fastprompt.ops._checks import check_devices, check_number
from fastprompt.ops.attention.call import LANES
from fastprompt.ops.attention.weights import check_weights

Form = Literal["auto", "absorbed", "projected"]


class Arguments:
    """Of either function: checked, batched, in float32."""

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
        form: Form,
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
        if channels == 0:
            raise ValueError(f"prompt must have channels, got shape {tuple(prompt.shape)}")
        if tokens == 0 or images == 0 or batch % max(images, 1):
            raise ValueError(
                f"prompt must hold tokens for a multiple of the {images} images, got {tuple(prompt.shape)}"
            )
        self.heads, self.form = heads, form
        self.weights = check_weights(weights, heads, channels, channels, channels)
        check_devices(prompt=prompt, **self.weights._asdict())
        self.inner = int(self.weights.query_weight.shape[0])
        scale = 1 / math.sqrt(self.inner // heads) if scale is None else scale
        self.scale = check_number("scale", scale, -math.inf, math.inf)
        choice("form", form, get_args(Form))
        self.prompt_position = self._optional("prompt_position", prompt_position, tuple(self.prompt.shape))
        self.image_position = self._optional("image_position", image_position, (1, *self.map_shape))
        self.bias = self._optional("bias", bias, (batch, tokens, *self.map_shape[1:]))
        self.lengths = self._lengths(lengths, batch)

    def _optional(self, name: str, x: Any, shape: tuple[int, ...]) -> Any:
        if x is None:
            return None
        x = as_array(name, x)
        check_devices(prompt=self.prompt, **{name: x})
        if tuple(x.shape) not in (shape, shape[1:]) or (tuple(x.shape) == shape[1:] and shape[0] != 1):
            raise ValueError(f"{name} must have shape {shape}, got {tuple(x.shape)}")
        return plain_floats(x if x.ndim == len(shape) else x[None])

    def _lengths(self, lengths: Any, batch: int) -> Any:
        if lengths is None:
            return None
        lengths = as_array("lengths", lengths)
        check_devices(prompt=self.prompt, lengths=lengths)
        if tuple(lengths.shape) != (batch,) or "int" not in dtype_name(lengths):
            raise ValueError(f"lengths must be {batch} integers, got {lengths.dtype} of shape {tuple(lengths.shape)}")
        return lengths.long().contiguous() if is_tensor(lengths) else in_order(lengths, np.int64)

    def norm(self, norm: Any) -> tuple[Any, Any, float]:
        """Weight, bias and eps; None, None and 0 without."""
        if norm is None:
            return None, None, 0.0
        channels = self.map_shape[0]
        if not isinstance(norm, (tuple, list)) or len(norm) != 3:
            raise ValueError(
                f"norm must be weight ({channels},), bias ({channels},) and eps, got {type(norm).__name__}"
            )
        both = [as_array(f"norm[{k}]", x) for k, x in enumerate(norm[:2])]
        check_devices(prompt=self.prompt, **{f"norm[{k}]": x for k, x in enumerate(both)})
        for k, x in enumerate(both):
            if tuple(x.shape) != (channels,):
                raise ValueError(f"norm[{k}] must have shape {(channels,)}, got {tuple(x.shape)}")
        return plain_floats(both[0]), plain_floats(both[1]), check_number("norm[2]", norm[2], 0.0, math.inf)

    def positioned(self) -> Any:
        return self.prompt if self.prompt_position is None else self.prompt + self.prompt_position

    def split(self, x: Any) -> Any:
        """(B, T, D) as (B, H, T, D / H)."""
        return x.reshape(*x.shape[:2], self.heads, x.shape[2] // self.heads).swapaxes(1, 2)

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

    def sees(self) -> Any:
        """(B, 1, T, 1): 1 for the prompt tokens that see an image token at all."""
        if self.bias is None:
            return 1
        seen = (self.bias > -math.inf).any(-1).any(-1)[:, None, :, None]
        return seen.to(self.prompt.dtype) if is_tensor(seen) else seen.astype(np.float32)

    def exists(self) -> Any:
        """(B, T, 1): 1 for the tokens that exist."""
        count = self.prompt.shape[1]
        if is_tensor(self.prompt):
            steps = self.lengths.new_tensor(range(count))
            return (steps < self.lengths[:, None])[..., None].to(self.prompt.dtype)
        return (np.arange(count) < self.lengths[:, None])[..., None].astype(np.float32)

    def result(self, out: Any, like: Any) -> Any:
        return in_dtype_of(out[0] if self.single else out, as_array("like", like))


def plain_image(x: Any) -> Any:
    """float32, contiguous; half precision stays on a GPU, whose kernels read it."""
    if is_cuda(x) and dtype_name(x) in ("float16", "bfloat16"):
        return x.contiguous()
    return plain_floats(x)
