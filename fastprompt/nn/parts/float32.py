"""Half precision and autocast: the kernels compute in float32, so a module keeps itself and its image in float32."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fastprompt.nn.parts.image_cache import ImageCache, version

LARGE = 1 << 18  # numbers of an input from which its copy is kept: converting 4 MB costs as much as a small layer


class Float32:
    """What a module in half precision needs to compute in float32: a copy of itself, and of its last inputs.

    Copies, pickles and state dicts of the module that owns it are empty of it.
    """

    def __init__(self) -> None:
        self._kept: tuple[list[tuple[Tensor, int | None]], Any] | None = None
        self._inputs: dict[tuple[int, ...], ImageCache] = {}

    def module(self, host: Any) -> Any:
        """``host`` if all its parameters are float32, else a copy that is; a new one if a parameter has changed."""
        now = parameters(host)
        if all(p.dtype == torch.float32 for p in now):
            self._kept = None
            return host
        kept = self._kept  # read once: another thread may be here too
        if kept and len(kept[0]) == len(now) and all(unchanged(*mark, p) for mark, p in zip(kept[0], now, strict=True)):
            return kept[1]
        with torch.inference_mode(False), torch.no_grad():
            twin = copy.deepcopy(host).float().requires_grad_(False)
        self._kept = [(p.detach(), version(p)) for p in now], twin
        return twin

    def inputs(self, arguments: Any, place: tuple[int, ...] = ()) -> list[Any]:
        """The arguments, their tensors in float32. Large ones are kept while they live and do not change."""
        return [self._input(x, (*place, n)) for n, x in enumerate(arguments)]

    def _input(self, x: Any, place: tuple[int, ...]) -> Any:
        if isinstance(x, (list, tuple)):
            return self.inputs(x, place)
        if not isinstance(x, Tensor) or x.dtype == torch.float32:
            return x
        if once(x).numel() < LARGE:
            return floats(x)
        return self._inputs.setdefault(place, ImageCache()).get(x, [], [], lambda: floats(x))

    def __reduce__(self) -> Any:
        return Float32, ()


def parameters(module: nn.Module) -> list[Tensor]:
    """All parameters of a module, six times as fast as ``module.parameters()``; one that is shared comes twice."""
    found: list[Tensor] = []
    waiting = [module]
    while waiting:
        here = waiting.pop()
        found += [p for p in here._parameters.values() if p is not None]
        waiting += [m for m in here._modules.values() if m is not None]
    return found


def unchanged(kept: Tensor, kept_version: int | None, now: Tensor) -> bool:
    """``kept`` holds the memory that it saw, so that no other parameter can come to lie there."""
    same = kept.data_ptr() == now.data_ptr() and kept.dtype == now.dtype and kept.shape == now.shape
    return same and kept_version is not None and kept_version == version(now)


def once(x: Tensor) -> Tensor:
    """Without the axes along which it is expanded."""
    return x[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in x.stride())]


def floats(x: Tensor) -> Tensor:
    """float32, expanded along the axes along which it was: ``Tensor.float`` would write these out."""
    return once(x).float().expand(x.shape)


def host_dtype(module: nn.Module) -> torch.dtype:
    """Of what a decoder returns: its last layers are matrix products, which autocast lowers."""
    first = parameters(module)[0]
    if torch.is_autocast_enabled(first.device.type):
        return torch.get_autocast_dtype(first.device.type)
    return first.dtype


__all__ = ["Float32", "host_dtype", "parameters"]
