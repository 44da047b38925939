"""The backends of a GPU: "cuda", kernels compiled with nvcc into ``fastprompt._C``, and "triton", compiled by Triton at
first use. Which of them are on, and the reason where one is off."""

import ctypes
import functools
import importlib
import importlib.util
import sys
from typing import Any

BACKENDS = ("cuda", "triton")
BUILD = "build with nvcc: pip install . -C cmake.define.FASTPROMPT_CUDA=ON"


def reason(backend: str) -> str | None:
    """Why this backend is off; None: it is on."""
    return cuda_reason() if backend == "cuda" else triton_reason()


def cuda_reason() -> str | None:
    from fastprompt import _C

    return driver_reason() if hasattr(_C, "cuda_runtime") else "this build has no CUDA kernels"


def triton_reason() -> str | None:
    for package in ("torch", "triton"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    from importlib.metadata import version  # 15 ms that an import need not pay

    if version("torch").endswith("+cpu"):
        return "this torch is a build for the CPU"
    return driver_reason()


@functools.cache
def driver_reason() -> str | None:
    """Why there is no CUDA device, asked of the driver: torch, which takes a second to import, need not be loaded."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return "there is no CUDA driver"
    count = ctypes.c_int()
    error = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if error or not count.value:
        return f"the CUDA driver finds no device (error {error})"
    return None


def fix(backend: str) -> str:
    """What to do about it, in one line."""
    why = reason(backend) or ""
    if why == "this build has no CUDA kernels":
        return BUILD
    if "not installed" in why:
        return f"pip install {why.split()[0]}"
    return "use the cpu backend; move tensors with .cpu()"


def stream() -> int:
    """The address of the current stream of the current device, for a launcher in ``fastprompt._C``."""
    import torch

    return int(torch.cuda.current_stream().cuda_stream)


@functools.cache
def has_triton() -> bool:
    """Whether tensors on a GPU, of which there is one then, find their kernels."""
    return importlib.util.find_spec("triton") is not None


def kernels(family: str) -> Any:
    """The module ``fastprompt.kernels.<family>``, whose kernels Triton compiles at their first launch."""
    try:
        return importlib.import_module(f"fastprompt.kernels.{family}")
    except ModuleNotFoundError as error:
        raise ValueError(f"tensors on a GPU need {error.name}: pip install {error.name}, or call .cpu()") from None


def is_cuda(x: Any) -> bool:
    """Whether ``x`` is a torch tensor on a CUDA device, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor) and x.is_cuda


def products(x: Any) -> str:
    """Triton's ``input_precision`` for products of float32 on the device of ``x``, by
    ``torch.get_float32_matmul_precision()``."""
    import torch

    if x.is_cuda and torch.cuda.get_device_capability(x.device) < (8, 0):
        return "ieee"  # no TF32 there
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


__all__ = ["BACKENDS", "fix", "has_triton", "is_cuda", "kernels", "products", "reason", "stream"]
