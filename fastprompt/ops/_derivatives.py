"""Derivatives of the operators: of every kind right, or an error; never zeros that nobody announces.

The gradient is an operator of its own, which torch.compile does not look into. Who asks for more than one step back
(second derivatives, forward mode, torch.func) gets the formula, which torch differentiates as often as it likes; an
operator without one says so.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree

Fn = Callable[..., Any]
# Of torch, without a public name.
below_autograd: Any = torch._C._after_autograd_keyset
requires_grad: Fn = torch._C._any_requires_grad
in_torch_func: Fn = torch._C._are_functorch_transforms_active
is_batched: Fn = torch._C._functorch.is_legacy_batchedtensor  # by is_grads_batched


def kernel(overload: Any, formula: Fn | None, gradient: tuple[Fn, Fn] | None) -> Fn:
    """What an operator does at torch's key Autograd; ``gradient``: backward and setup."""
    name, count = overload._opname, len(overload._schema.arguments)
    backward, setup = gradient or (refusing(name), nothing_kept)

    def forward(ctx: Any, *given: Any) -> Any:
        out = overload.redispatch(given[count] & below_autograd, *given[:count])
        setup(ctx, given[:count], out)
        return tuple(out) if isinstance(out, list) else out

    def back(ctx: Any, *grads: Any) -> Any:
        return *backward(ctx, *grads), None

    methods = {"forward": staticmethod(forward), "backward": staticmethod(back)}
    step: Any = type(name, (torch.autograd.Function,), methods)

    def autograd(keyset: Any, *args: Any) -> Any:
        wanted = torch.is_grad_enabled() and requires_grad(*args)
        if not is_transformed():
            if wanted:
                listed = (x for group in args if isinstance(group, list) for x in group if isinstance(x, Tensor))
                return step.apply(*args, keyset, *listed)  # it looks for tensors in no list
        elif wanted or has_tangents(args):
            if formula is None:
                what = f"fastprompt.{name} has no derivatives in forward mode (jvp, dual numbers) or under torch.func"
                raise NotImplementedError(f"{what}: use torch.autograd.grad or backward(), or detach its arguments")
            return formula(*args)
        return overload.redispatch(keyset & below_autograd, *args)

    return autograd


def in_place(overload: Any) -> Fn:
    """The same, of an operator that writes into its first argument, which has no derivatives."""

    def autograd(keyset: Any, *args: Any) -> Any:
        if (torch.is_grad_enabled() and requires_grad(*args)) or (is_transformed() and has_tangents(args)):
            raise NotImplementedError(f"fastprompt.{overload._opname} writes in place and has no derivatives")
        if not args[0].is_inference():
            torch.autograd.graph.increment_version(args[0])
        return overload.redispatch(keyset & below_autograd, *args)

    return autograd


def is_transformed() -> bool:
    """Whether there is a level of forward mode, or a transformation of torch.func."""
    return forward_ad._current_level >= 0 or in_torch_func()


def has_tangents(args: Any) -> bool:
    tensors = (x for x in pytree.tree_leaves(args) if isinstance(x, Tensor))
    return any(forward_ad.unpack_dual(x).tangent is not None for x in tensors)


def is_followed(grads: Any) -> bool:
    """Whether a step back is one of several, one after another or at once."""
    if torch.is_grad_enabled() or in_torch_func():
        return True
    return any(is_batched(x) for x in grads) or (is_transformed() and has_tangents(grads))


def refusing(name: str) -> Fn:
    what, back, _ = name.partition("_backward")

    def backward(ctx: Any, *grads: Any) -> Any:
        kind = "second derivatives" if back else "gradient"
        raise NotImplementedError(f"fastprompt.{what} has no {kind}: detach its arguments, or use torch.no_grad()")

    return backward


def nothing_kept(ctx: Any, inputs: Any, output: Any) -> None:
    pass


def gradient_of(formula: Fn, args: Sequence[Any], needed: Sequence[bool], grads: Any, again: bool) -> tuple[Any, ...]:
    """By the first arguments, those that are needed; ``again``: it can be differentiated itself."""
    with torch.enable_grad():
        given = zip(args, needed, strict=False)
        # A view each: what is given twice is two arguments.
        own = [(x.view_as(x) if again else x.detach().requires_grad_()) if n else x for x, n in given]
        found = formula(*own, *args[len(needed) :])
        results = zip([found] if isinstance(found, Tensor) else found, grads, strict=True)
        outs, weights = zip(*((y, g) for y, g in results if y.requires_grad), strict=True)
        wanted = [x for x, n in zip(own, needed, strict=True) if n]
        return torch.autograd.grad(outs, wanted, weights, create_graph=again, materialize_grads=True)


__all__ = ["gradient_of", "in_place", "is_followed", "is_transformed", "kernel"]
