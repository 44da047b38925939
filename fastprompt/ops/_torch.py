"""The operators in torch: importing this registers all of them, which takes some 20 ms."""

from collections.abc import Callable
from typing import Any

import torch

from fastprompt.ops._derivatives import gradient_of, in_place, is_followed, kernel
from fastprompt.ops._flops import counted
from fastprompt.ops._known import OPERATORS, REGISTER

Fn = Callable[..., Any]
library = torch.library.Library("fastprompt", "FRAGMENT")


def define(operator: Any) -> None:
    gradient = of_formula(operator) if operator.gradient == "formula" else operator.gradient
    name = library.define(operator.schema)
    library.impl(name, operator.on_cpu, "CPU")
    library.impl(name, on_its_device(operator), "CUDA")
    torch.library.register_fake(f"fastprompt::{name}", operator.fake, lib=library)
    operator.overload = overload = getattr(torch.ops.fastprompt, name).default
    formula = None if operator.formula is None else operator.by_formula
    autograd = in_place(overload) if overload._schema.is_mutable else kernel(overload, formula, gradient)
    library.impl(name, autograd, "Autograd", with_keyset=True)
    counted(overload, operator.flops, operator.formula)


def on_its_device(operator: Any) -> Fn:
    """With the device of its tensors as the current one; the current stream stays the caller's."""

    def launch(*args: Any) -> Any:
        device = args[operator.place].device
        if device.index == torch.cuda.current_device():
            return operator.on_gpu(*args)
        with torch.cuda.device(device):
            return operator.on_gpu(*args)

    return launch


def of_formula(operator: Any) -> tuple[Fn, Fn]:
    """Differentiates the formula, behind an operator of its own if there is one result."""
    tensors = sum(argument.startswith("Tensor") for argument in operator.arguments)  # they come first
    overload = backward_operator(operator) if operator.schema.endswith("-> Tensor") else None

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.rest = inputs[tensors:]

    def backward(ctx: Any, *grads: Any) -> Any:
        saved = ctx.saved_tensors
        needed = [n and x is not None for n, x in zip(ctx.needs_input_grad[:tensors], saved, strict=True)]
        again = is_followed(grads)
        if again or overload is None:
            found = iter(gradient_of(operator.by_formula, (*saved, *ctx.rest), needed, grads, again))
        else:
            found = iter(overload(grads[0].contiguous(), needed, *saved, *ctx.rest))
        return (*(next(found) if n else None for n in needed), *[None] * len(ctx.rest))

    return backward, setup


def backward_operator(operator: Any) -> Any:
    def fake(grad: Any, needed: Any, *args: Any) -> Any:
        return [x.new_empty(x.shape) for x, n in zip(args, needed, strict=False) if n]

    def compute(grad: Any, needed: Any, *args: Any) -> Any:
        return [g.contiguous() for g in gradient_of(operator.formula, args, needed, [grad], again=False)]

    schema = ", ".join(operator.arguments)
    name = library.define(f"{operator.name}_backward(Tensor grad, bool[] needed, {schema}) -> Tensor[]")
    for device in ("CPU", "CUDA"):
        library.impl(name, compute, device)
    torch.library.register_fake(f"fastprompt::{name}", fake, lib=library)
    overload = getattr(torch.ops.fastprompt, name).default
    library.impl(name, kernel(overload, None, None), "Autograd", with_keyset=True)
    counted(overload, None, compute)
    return overload


for operator in list(OPERATORS.values()):
    define(operator)
REGISTER.append(define)
