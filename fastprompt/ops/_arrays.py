"""Arrays and tensors on their way to a kernel: dtypes and strides that it reads."""

import functools
from typing import Any

import numpy as np

from fastprompt._runtime import is_tensor

LARGEST = 2.0**53  # below it, floats of 64 bits hold all integers
READ = {"float32", "float16", "bfloat16", "uint8", "bool"}  # by the kernels of images


def dtype_name(x: Any) -> str:
    return str(x.dtype).removeprefix("torch.") if is_tensor(x) else numpy_name(x.dtype)


@functools.cache  # not for tensors: torch.compile warns of caches that it traces
def numpy_name(dtype: np.dtype) -> str:
    """Once: NumPy takes 8 us to spell it. Without the order of the bytes: ">f4" is float32."""
    return str(dtype.name)


def as_array(name: str, x: Any) -> Any:
    """``x`` as a torch tensor or a NumPy array of real numbers, else a TypeError that names it. An array is aligned and
    in the order of bytes of the machine, a tensor has no negation that waits: numbers are where they seem to be."""
    if not is_tensor(x):
        return numpy_array(name, x)
    if x.is_complex() or x.is_quantized:
        raise TypeError(f"{name} must hold real numbers, got dtype {x.dtype}")
    elif x.layout.__repr__() != "torch.strided":
        raise TypeError(f"{name} must be a dense tensor, got layout {x.layout}; call {name}.to_dense()")
    return resolved(x)


def numpy_array(name: str, x: Any) -> Any:
    if type(x) is not np.ndarray:
        if any(isinstance(part, np.ma.MaskedArray) for part in (x if isinstance(x, (list, tuple)) else (x,))):
            raise TypeError(
                f"{name} must not be a masked array, whose mask would be lost: give its values with .filled(...); "
                "walls of a geodesic distance are barriers=x.mask"
            )
        try:
            x = np.asarray(x)
        except ValueError as error:  # ragged nested lists
            raise TypeError(f"{name} must be an array of numbers: {error}") from None
    if x.dtype.kind not in "fiub" and x.dtype.name != "bfloat16":
        raise TypeError(f"{name} must hold real numbers, got dtype {x.dtype}")
    return x if x.dtype.isnative and x.flags.aligned else in_order(x, x.dtype.newbyteorder("="))


def resolved(x: Any) -> Any:
    """A tensor whose negation has been computed: ``x.conj().imag`` only remembers it. Graphs know no such tensors."""
    import torch

    return x if torch.compiler.is_compiling() or not x.is_neg() else x.resolve_neg()


def kernel_dtype(x: Any) -> Any:
    """``x`` in a dtype that the kernels read: float32, float16, bfloat16, uint8, bool as they are, others float32."""
    if dtype_name(x) in READ:
        return x
    return x.float() if is_tensor(x) else x.astype(np.float32)


def in_order(x: Any, dtype: Any) -> Any:
    """A contiguous NumPy array; a field of packed records, at an odd address, is copied."""
    x = np.asarray(x, dtype, order="C")
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


def integers(name: str, x: Any, other: int) -> Any:
    """Whole numbers of any real dtype, floats of them as int64, else a ValueError; in a graph and on a GPU, which would
    have to be waited for, what is no whole number becomes ``other``."""
    kind = dtype_name(x)
    if "float" not in kind:
        return x
    x = x.double() if is_tensor(x) else x.astype(np.float64)
    fits = (x.round() == x) & (abs(x) < LARGEST)
    if is_tensor(x):
        import torch

        if not x.is_cpu or torch.compiler.is_compiling():
            return x.where(fits, other).long()
    wrong = x[~fits]
    if len(wrong):
        raise ValueError(f"{name} must hold integers, got {float(wrong[0]):g} of {kind}")
    return x.long() if is_tensor(x) else x.astype(np.int64)


def in_dtype_of(out: Any, like: Any) -> Any:
    """Floats in the dtype of the argument ``like``, or as they are where that holds integers."""
    if is_tensor(out):
        return out.to(like.dtype) if like.is_floating_point() else out
    return out.astype(like.dtype, copy=False) if like.dtype.kind == "f" else out
