"""The one torch library that all operators register with. Imported only where torch is."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastprompt._runtime import current_backend

_library = torch.library.Library("fastprompt", "FRAGMENT")

Fn = Callable[..., Any]


GPU: dict[str, Fn] = {}  # the kernel of each operator for tensors on a GPU, which the tests execute without one


def define(
    schema: str,
    *,
    cpu: Fn,
    fake: Fn,
    gpu: Fn | None = None,
    backward: Fn | None = None,
    setup_context: Fn | None = None,
) -> Any:
    """Declare an operator, kernels, shapes and gradient: ``define("f(Tensor x) -> Tensor", cpu=f, fake=g)``."""
    name = _library.define(schema)
    qualified = f"fastprompt::{name}"
    _library.impl(name, cpu, "CPU")
    GPU[name] = gpu or without_kernel(name)
    _library.impl(name, on_its_device(GPU[name]), "CUDA")
    torch.library.register_fake(qualified, fake, lib=_library)
    if backward is not None:
        torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=_library)
    return getattr(torch.ops.fastprompt, name).default


def on_its_device(kernel: Fn) -> Fn:
    """``kernel`` with the device of its tensors as the current one; the current stream stays the caller's."""

    @functools.wraps(kernel)
    def launch(*args: Any) -> Any:
        device = next(x.device for x in args if isinstance(x, Tensor))
        if device.index == torch.cuda.current_device():
            return kernel(*args)
        with torch.cuda.device(device):
            return kernel(*args)

    return launch


def or_reference(cpu: Fn, kernel: Fn) -> Fn:
    """``kernel``; with the backend "reference" what ``cpu`` gives of copies in the memory of the host."""

    @functools.wraps(kernel)
    def gpu(*args: Any) -> Any:
        if current_backend() != "reference":
            return kernel(*args)
        device = next(x.device for x in args if isinstance(x, Tensor))
        return cpu(*(x.cpu() if isinstance(x, Tensor) else x for x in args)).to(device)

    return gpu


def without_kernel(name: str) -> Fn:
    def refuse(*args: Any) -> Any:
        raise ValueError(f"fastprompt.{name} has no kernel for a GPU: move its tensors with .cpu()")

    return refuse


def define_with_formula(
    name: str,
    schema: str,
    *,
    formula: Fn,
    launch: Fn,
    shape: Fn,
    supported: Fn = lambda *args: True,
    gpu: Fn | None = None,
    dtype: Fn = lambda *args: torch.float32,
) -> Any:
    """An operator with a kernel, ``launch(*args, out)``, for float32 and contiguous tensors, and a formula in torch
    operators: that of the backend "reference", of sizes that the kernel does not take, and of the gradient, which
    differentiates the formula behind an operator of its own. ``gpu(*args)`` returns the result on a GPU, or None where
    it leaves it to the formula. ``dtype(*args)`` is the result's: on a GPU, operators may take half precision."""
    arguments = [argument.strip() for argument in schema.split(",")]
    tensors = sum(argument.startswith("Tensor") for argument in arguments)  # they come first

    def fake(*args: Any) -> Tensor:
        return args[0].new_empty(shape(*args), dtype=dtype(*args))

    def cpu(*args: Any) -> Tensor:
        if current_backend() == "reference" or not supported(*args):
            return formula(*args).contiguous()
        out = fake(*args)
        launch(*args, out)
        return out

    def on_gpu(*args: Any) -> Tensor:
        out = gpu(*args) if gpu is not None and current_backend() != "reference" else None
        return formula(*args).contiguous() if out is None else out

    def backward_fake(grad: Tensor, needed: list[bool], *args: Any) -> list[Tensor]:
        return [x.new_empty(x.shape) for x, n in zip(args, needed, strict=False) if n]

    def backward_formula(grad: Tensor, needed: list[bool], *args: Any) -> list[Tensor]:
        with torch.enable_grad():
            inputs = [x.detach().requires_grad_() if n else x for x, n in zip(args, needed, strict=False)]
            wanted = [x for x, n in zip(inputs, needed, strict=True) if n]
            out = formula(*inputs, *args[tensors:])
            found = torch.autograd.grad(out, wanted, grad, materialize_grads=True)
        return [g.contiguous() for g in found]

    backward_operator = define(
        f"{name}_backward(Tensor grad, bool[] needed, {schema}) -> Tensor[]",
        cpu=backward_formula,
        fake=backward_fake,
        gpu=backward_formula,
    )

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.rest = inputs[tensors:]

    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        needed = [n and x is not None for n, x in zip(ctx.needs_input_grad[:tensors], saved, strict=True)]
        found = iter(backward_operator(grad.contiguous(), needed, *saved, *ctx.rest))
        return (*(next(found) if n else None for n in needed), *[None] * len(ctx.rest))

    return define(f"{name}({schema}) -> Tensor", cpu=cpu, fake=fake, gpu=on_gpu, backward=backward, setup_context=setup)
