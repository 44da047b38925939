"""Arrays on their way to a kernel: (address, dtype code, strides) of NumPy arrays and torch tensors."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastprompt._runtime import is_tensor

View = tuple[int, int, tuple[int, ...]]

ABSENT: View = (0, 3, (0, 0, 0, 0, 0))
_CODES = {"float32": 0, "float16": 1, "bfloat16": 2, "uint8": 3, "bool": 3}


def dtype_name(x: Any) -> str:
    return str(x.dtype).removeprefix("torch.")


def view(x: Any) -> View:
    """The kernel's view of a five-dimensional array of a dtype in ``_CODES``. Keep ``x`` alive while it is used."""
    if is_tensor(x):
        return x.data_ptr(), _CODES[dtype_name(x)], tuple(x.stride())
    size = x.itemsize
    return x.__array_interface__["data"][0], _CODES[x.dtype.name], tuple(s // size for s in x.strides)


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
    if dtype_name(x) in _CODES:
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
    return x.contiguous() if is_tensor(x) else in_order(x, x.dtype)


def address(x: Any) -> int:
    """Of a contiguous array; 0 for None. Keep ``x`` alive while it is used."""
    if x is None:
        return 0
    return int(x.data_ptr() if is_tensor(x) else x.__array_interface__["data"][0])


def addresses(arrays: Iterable[Any]) -> tuple[int, ...]:
    return tuple(address(x) for x in arrays)
