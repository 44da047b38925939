"""The positions of an image's tokens, which the hosts compute anew: 2 ms of sines for every click of SAM, and 0.3 s
for every picture of SAM 2, whose encoder returns those of three levels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastprompt._switches import is_disabled
from fastprompt.nn.parts.drop_in import DropIn
from fastprompt.nn.parts.image_cache import MANY, Seen, capturing, equal, stream_of
from fastprompt.nn.parts.known import Look, seen, unknown


class Kept(NamedTuple):
    marks: Any
    matrix: Seen
    grid: Tensor | None
    result: Tensor
    seen: Seen  # of the result, which is the caller's too


class Last:
    """The last result of a module; copies, pickles and state dicts of the module are empty of it."""

    def __init__(self) -> None:
        self.kept: Kept | None = None

    def get(
        self, matrix: Tensor, module: Look, size: tuple[int, ...], grid: Tensor | None, make: Callable[[], Tensor]
    ) -> Tensor:
        marks = (module, size, autocast(matrix), stream_of(matrix))
        kept = self.kept  # read once: another thread may be here too
        known = kept and kept.marks == marks and (grid is None or (kept.grid is not None and equal(grid, kept.grid)))
        if kept and known and kept.matrix.are([matrix]) and kept.seen.are([kept.result]):
            return kept.result
        seen, copy = Seen([matrix], MANY), None if grid is None else grid.clone()
        with torch.inference_mode(False), torch.no_grad():
            result = make()
        if not matrix.is_inference():
            self.kept = Kept(marks, seen, copy, result, Seen([result], MANY))
        return result

    def __reduce__(self) -> Any:
        return Last, ()


def autocast(x: Tensor) -> torch.dtype | None:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


class Positions(DropIn):
    """Mixin of a module of random Fourier features; the same numbers, bit for bit."""

    @classmethod
    def unsupported(cls, host: Any) -> str | None:
        return None

    def last(self, matrix: Tensor, size: tuple[int, ...], grid: Tensor | None, make: Callable[[], Tensor]) -> Tensor:
        gradient = torch.is_grad_enabled() and matrix.requires_grad
        # On a GPU a grid would have to be waited for to be known again; and what is recorded is there after its replay.
        unsure = matrix.device.type != "cpu" and (not matrix.is_cuda or grid is not None or capturing())
        if gradient or torch.compiler.is_compiling() or unsure or is_disabled() or unknown(self, matrix, grid):
            return make()
        kept: Last = self.__dict__.setdefault("_fastprompt_last", Last())
        return kept.get(matrix, seen(self), size, grid, make)


class TransformersPositions(Positions):
    positional_embedding: Any

    def forward(self, input_coords: Tensor, input_shape: Any = None) -> Tensor:
        host = super().forward
        if input_shape is not None or input_coords.dim() != 3:  # points and boxes, not the grid
            return host(input_coords, input_shape)
        size = tuple(input_coords.shape)
        return self.last(self.positional_embedding, size, input_coords, lambda: host(input_coords))


class SegmentAnythingPositions(Positions):
    positional_encoding_gaussian_matrix: Any

    def forward(self, size: tuple[int, int]) -> Tensor:
        host = super().forward
        return self.last(self.positional_encoding_gaussian_matrix, tuple(size), None, lambda: host(size))


LEVELS = 4  # of a pyramid


class Sines:
    """The last results of a module, 88 MB for SAM 2; copies and pickles of the module are empty of them."""

    def __init__(self) -> None:
        self.kept: tuple[tuple[Any, Tensor, Seen], ...] = ()

    def get(self, marks: Any, make: Callable[[], Tensor]) -> Tensor:
        kept = self.kept  # read once: another thread may be here too
        for known, result, then in kept:
            if known == marks and then.are([result]):
                return result
        with torch.inference_mode(False), torch.no_grad():
            result = make()
        new = marks, result, Seen([result], MANY)  # the caller's too, who may write into it
        self.kept = (new, *(x for x in kept if x[0] != marks))[:LEVELS]
        return result

    def __reduce__(self) -> Any:
        return Sines, ()


class SinePositions(Positions):
    """Mixin of a module of sines and cosines of rows and columns; the same numbers, bit for bit."""

    numbers: tuple[str, ...] = ("num_position_features", "normalize", "scale", "temperature")  # its attributes

    def kept(self, marks: tuple[Any, ...], device: Any, make: Callable[[], Tensor]) -> Tensor:
        compiling, cpu = torch.compiler.is_compiling(), torch.device(device).type == "cpu"
        if compiling or not cpu or is_disabled() or unknown(self):
            return make()
        kept: Sines = self.__dict__.setdefault("_fastprompt_sines", Sines())
        return kept.get((*marks, *(getattr(self, name) for name in self.numbers)), make)


class TransformersSinePositions(SinePositions):
    def forward(self, shape: Any, device: Any, dtype: Any, mask: Tensor | None = None) -> Tensor:
        host = super().forward
        if mask is not None:
            return host(shape, device, dtype, mask)
        # A copy: the host keeps its last result, too, which would be what a caller has written into.
        return self.kept((tuple(shape), dtype), device, lambda: host(shape, device, dtype, None).clone())


__all__ = ["SegmentAnythingPositions", "SinePositions", "TransformersPositions", "TransformersSinePositions"]
