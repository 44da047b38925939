"""A module that computes in float32 what it knows, and leaves the rest to its host."""

import functools
from typing import Any

import torch
from torch import Tensor, nn

from fastprompt._gpu import triton_reason
from fastprompt._switches import is_disabled
from fastprompt.nn.parts.float32 import Float32, host_dtype
from fastprompt.nn.parts.host_path import falls_back
from fastprompt.nn.parts.known import own_parameters, unknown

CPU = torch.device("cpu")


class DropIn(nn.Module):
    """Mixin of a host's module."""

    devices: tuple[str, ...] = ("cpu",)  # that have a kernel

    def falls_back(self, *tensors: Tensor | None, **unused: Any) -> bool:
        """Whether this call takes the host's path; the reason is said once."""
        if is_disabled():
            return True
        given = [x for x in tensors if x is not None]
        return falls_back(self, unknown(self, *given) or self.cannot_take(given, unused))

    def cannot_take(self, given: list[Tensor], unused: dict[str, Any]) -> str | None:
        """Why there is no kernel for such arguments; None: there is one."""
        reason = None
        for name, value in unused.items():
            if value is not None and value is not False:
                reason = f"{name} is given"
        own = own_parameters(self)
        dtypes = {x.dtype for x in (*given, *own)}
        kinds = {x.device.type for x in (*given, *own)}
        if len(kinds) > 1 or not kinds <= set(self.devices):
            reason = "there is no kernel for this device"
        elif kinds == {"cuda"} and not torch.compiler.is_compiling() and without_triton():
            reason = without_triton()
        elif not dtypes <= {torch.float32, torch.float16, torch.bfloat16}:
            reason = "there is no kernel for this dtype"
        elif torch.compiler.is_compiling() and any(p.dtype != torch.float32 for p in own):
            reason = "half precision is not compiled"
        elif torch.is_grad_enabled() and any(x.requires_grad for x in (*given, *own)):
            reason = "gradients are enabled (wrap the call in torch.no_grad())"
        return reason

    def run(self, *arguments: Any) -> Any:
        """``predict`` of the arguments, in float32; the results in the dtype that the host would return."""
        own = own_parameters(self)
        if own[0].device != CPU:  # whose kernels take half precision as it is
            results, lowered = self.predict(*arguments), torch.is_autocast_enabled("cuda")
            return tuple(x.to(self.result_dtype(arguments)) for x in results) if lowered else results
        lowered = torch.is_autocast_enabled("cpu") or any(p.dtype != torch.float32 for p in own)
        if not lowered and all(x.dtype == torch.float32 for x in flat(arguments)):
            return self.predict(*arguments)
        keeper = self.__dict__.setdefault("_fastprompt_float32", Float32())
        dtype = self.result_dtype(arguments)
        with torch.autocast("cpu", enabled=False):
            results = keeper.module(self).predict(*keeper.inputs(arguments))
        return tuple(x.to(dtype) for x in results)

    def result_dtype(self, arguments: Any) -> torch.dtype:
        """What the host returns in half precision or autocast."""
        return host_dtype(own_parameters(self)[0])

    def predict(self, *arguments: Any) -> Any:
        """What the drop-in is for: the arguments in float32 to the results of the host."""
        raise NotImplementedError


@functools.cache
def without_triton() -> str | None:
    """Why there are no kernels for a GPU."""
    return triton_reason()


def flat(arguments: Any) -> list[Tensor]:
    """The tensors among arguments, and in the lists among them."""
    found = []
    for x in arguments:
        if isinstance(x, (list, tuple)):
            found += flat(x)
        elif isinstance(x, Tensor):
            found.append(x)
    return found


__all__ = ["CPU", "DropIn"]
