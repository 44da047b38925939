"""Calls that are not only computed: torch records or transforms them, and knows the operators of a host, not ours."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

modes: Any = torch._C._len_torch_dispatch_stack


def transformed(*tensors: Any) -> str | None:
    """Why a call is one of those; None: it is not, or a compiler traces it, which takes our operators as they are."""
    if torch._C._are_functorch_transforms_active():
        return "torch.func transforms it"
    if torch.compiler.is_compiling():
        return None
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        return "torch.jit.trace records it"
    if forward_ad._current_level >= 0:
        return "it is inside a level of forward-mode derivatives"
    if modes():
        return "a TorchDispatchMode looks at its operators"
    for x in tensors:
        if type(x) not in PLAIN and isinstance(x, Tensor) and type(x).__torch_dispatch__ is not plain_dispatch:
            return f"an argument is a {type(x).__name__}"
    return None


PLAIN, plain_dispatch = (Tensor, torch.nn.Parameter), torch.nn.Parameter.__torch_dispatch__

__all__ = ["transformed"]
