"""Arrays and tensors on their way to a kernel: dtypes and strides that it reads."""

import functools
from typing import Any

import numpy as np

from fastprompt._runtime import is_tensor

READ = {"float32", "float16", "bfloat16", "uint8", "bool"}  # by the kernels of images


def dtype_name(x: Any) -> str:
    return str(x.dtype).removeprefix("torch.") if is_tensor(x) else numpy_name(x.dtype)


@functools.cache  # not for tensors: torch.compile warns of caches that it traces
def numpy_name(dtype: np.dtype) -> str:
    """Once: NumPy takes 8 us to spell it."""
    return str(dtype)


def as_array(name: str, x: Any) -> Any:
    """``x`` as a torch tensor (unchanged) or a NumPy array of real numbers, else a TypeError that names it."""
    if not is_tensor(x):
        try:
            x = np.asarray(x)
        except ValueError as error:  # ragged nested lists
            raise TypeError(f"{name} must be an array of numbers: {error}") from None
        if x.dtype.kind not in "fiub" and x.dtype.name != "bfloat16":
            raise TypeError(f"{name} must hold real numbers, got dtype {x.dtype}")
    elif x.is_complex() or x.is_quantized:
        raise TypeError(f"{name} must hold real numbers, got dtype {x.dtype}")
    elif x.layout.__repr__() != "torch.strided":
        raise TypeError(f"{name} must be a dense tensor, got layout {x.layout}; call {name}.to_dense()")
    return x


def kernel_dtype(x: Any) -> Any:
    """``x`` in a dtype that the kernels read: float32, float16, bfloat16, uint8, bool as they are, others float32."""
    if dtype_name(x) in READ:
        if not is_tensor(x) and not (x.dtype.isnative and x.flags.aligned):
            return in_order(x, x.dtype.newbyteorder("="))
        return x
    return x.float() if is_tensor(x) else x.astype(np.float32)


def in_order(x: Any, dtype: Any) -> Any:
    """A contiguous NumPy array; a field of packed records, at an odd address, is copied."""
    x = np.ascontiguousarray(x, dtype)
    return x if x.flags.aligned else x.copy()


def plain_floats(x: Any) -> Any:
    """float32, contiguous; None stays."""
    if x is None:
        return None
    return x.float().contiguous() if is_tensor(x) else in_order(x, np.float32)


def kernel_floats(*arrays: Any) -> tuple[Any, ...]:
    """Tensors and arrays as float32, but for a GPU: its kernels read float16 and bfloat16, which stay as they are where
    no gradient is asked for; that is the formula's, in float32. Views stay views."""
    if not any(getattr(x, "is_cuda", False) for x in arrays):
        return tuple(x.float() if is_tensor(x) else np.asarray(x, np.float32) for x in arrays)
    import torch

    exact = torch.is_grad_enabled() and any(x.requires_grad for x in arrays)
    kinds = (torch.float32,) if exact else (torch.float32, torch.float16, torch.bfloat16)
    return tuple(x if x.dtype in kinds else x.float() for x in arrays)


def device_floats(x: Any) -> Any:
    """``plain_floats``; on a GPU half precision stays, and so do strides: its kernels read them."""
    if getattr(x, "is_cuda", False) and dtype_name(x) in ("float32", "float16", "bfloat16"):
        return x
    return plain_floats(x)


def contiguous(x: Any) -> Any:
    """None stays."""
    if x is None:
        return None
    return x.contiguous() if is_tensor(x) else in_order(x, x.dtype)
