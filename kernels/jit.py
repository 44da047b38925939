"""``@jit``: a Triton kernel that knows again what it was launched with."""

from typing import Any

import torch
import triton


def kind(x: Any) -> Any:
    """What Triton may compile a kernel anew for: type and alignment of tensors, size, 1 and divisibility of numbers."""
    if isinstance(x, torch.Tensor):
        return x.dtype, x.data_ptr() % 16 == 0
    if type(x) is int:
        return x == 1, x % 16 == 0, -(2**31) <= x < 2**31, x < 2**63
    if type(x) is tuple:
        return tuple(map(kind, x))
    return type(x)


class Kernel(triton.JITFunction):
    """``kernel[grid](*arguments, **constants)`` as Triton has it, but for where the time of a second launch goes.

    Triton 3.6 took some 50 us of an H100's host for a launch: it asks the environment, and turns all options into text
    to look the compiled kernel up. Here the arguments' kinds and the constants are the key, and the compiled kernel is
    launched by its own ``[grid]``.
    """

    compiled: dict[Any, tuple[Any, tuple[Any, ...]]]

    def run(self, *arguments: Any, grid: Any, warmup: bool, **constants: Any) -> Any:
        key = torch.cuda.current_device(), tuple(map(kind, arguments)), tuple(constants.items())
        found = None if warmup else self.compiled.get(key)
        if found is None:
            kernel = super().run(*arguments, grid=grid, warmup=warmup, **constants)
            rest = self.arg_names[len(arguments) :]
            if not warmup and all(name in constants for name in rest):  # else it has defaults
                self.compiled[key] = kernel, tuple(constants[name] for name in rest)
            return kernel
        kernel, rest = found
        kernel[(*grid, 1, 1)[:3]](*arguments, *rest)
        return kernel


def jit(function: Any = None, **options: Any) -> Any:
    """``triton.jit`` of a kernel that is launched; what other kernels call needs no more than ``triton.jit``."""
    if function is None:
        return lambda function: jit(function, **options)
    kernel = triton.jit(function, **options)
    if isinstance(kernel, triton.JITFunction):  # not with TRITON_INTERPRET=1
        kernel.__class__, kernel.compiled = Kernel, {}
    return kernel
