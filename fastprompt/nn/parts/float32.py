"""Half precision and autocast: the kernels compute in float32, so a module keeps itself and its image in float32."""

import copy
from typing import Any

import torch
from torch import Tensor

from fastprompt.nn.parts.image_cache import ImageCache, Seen
from fastprompt.nn.parts.known import Look, own_parameters, seen

LARGE = 1 << 18  # numbers of an input from which its copy is kept: converting 4 MB costs as much as a small layer


class Float32:
    """What a module in half precision needs to compute in float32: a copy of itself, and of its last inputs.

    Copies, pickles and state dicts of the module that owns it are empty of it.
    """

    def __init__(self) -> None:
        self._kept: tuple[Look, Seen, Any] | None = None
        self._inputs: dict[tuple[int, ...], ImageCache] = {}

    def module(self, host: Any) -> Any:
        """``host`` if all its parameters are float32, else a copy that is; a new one if anything has changed."""
        now = own_parameters(host)
        if all(p.dtype == torch.float32 for p in now):
            self._kept = None
            return host
        found, kept = seen(host), self._kept  # read once: another thread may be here too
        if kept and kept[0] is found and not any(p.is_inference() for p in now) and kept[1].are(now):
            return kept[2]
        with torch.inference_mode(False), torch.no_grad():
            twin = copy.deepcopy(host).float().requires_grad_(False)
        self._kept = found, Seen(now), twin
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


def once(x: Tensor) -> Tensor:
    """Without the axes along which it is expanded."""
    return x[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in x.stride())]


def floats(x: Tensor) -> Tensor:
    """float32, expanded along the axes along which it was: ``Tensor.float`` would write these out."""
    return once(x).float().expand(x.shape)


def host_dtype(first: Tensor) -> torch.dtype:
    """Of what a decoder with this parameter returns: its last layers are matrix products, which autocast lowers."""
    if torch.is_autocast_enabled(first.device.type):
        return torch.get_autocast_dtype(first.device.type)
    return first.dtype


__all__ = ["Float32", "host_dtype"]
