"""The positions of an image's tokens, which the hosts compute anew: 2 ms of sines for every click of SAM, and 0.3 s
for every picture of SAM 2, whose encoder returns those of three levels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastprompt._switches import is_disabled
from fastprompt.nn.parts.drop_in import DropIn
from fastprompt.nn.parts.image_cache import MANY, Seen, capturing, equal, stream_of
from fastprompt.nn.parts.known import seen, unknown


class Kept(NamedTuple):
    marks: Any
    sources: Seen
    grid: Tensor | None
    result: Tensor
    seen: Seen  # of the result, which is the caller's too, who may write into it


class Results:
    """The last results of a module; copies, pickles and state dicts of the module are empty of them."""

    def __init__(self) -> None:
        self.kept: tuple[Kept, ...] = ()

    def get(
        self, marks: Any, sources: list[Tensor], grid: Tensor | None, make: Callable[[], Tensor], most: int
    ) -> Tensor:
        """``make()``, or what it was for the same marks and the same numbers."""
        kept = self.kept  # read once: another thread may be here too
        for one in kept:
            known = one.marks == marks and (grid is None or (one.grid is not None and equal(grid, one.grid)))
            if known and one.sources.are(sources) and one.seen.are([one.result]):
                return one.result
        seen, copy = Seen(sources, MANY), None if grid is None else grid.clone()
        with torch.inference_mode(False), torch.no_grad():
            result = make()
        if not any(x.is_inference() for x in sources):
            new = Kept(marks, seen, copy, result, Seen([result], MANY))
            self.kept = (new, *(one for one in kept if one.marks != marks))[:most]
        return result

    def __reduce__(self) -> Any:
        return Results, ()


def autocast(kind: str) -> torch.dtype | None:
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


class Positions(DropIn):
    """Mixin of a module that makes positions of sizes and parameters: the same numbers, bit for bit, made once."""

    results = 1  # that are kept

    @classmethod
    def unsupported(cls, host: Any) -> str | None:
        return None

    def once(
        self, marks: Any, sources: list[Tensor], make: Callable[[], Tensor], *, grid: Tensor | None = None,
        device: Any = None,
    ) -> Tensor:  # fmt: skip
        """``make()`` of these parameters, of a grid's numbers, and of ``marks``: all else that it depends on."""
        kind = torch.device(device or sources[0].device).type
        gradient = torch.is_grad_enabled() and any(x.requires_grad for x in sources)
        # On a GPU a grid would have to be waited for to be known again; and what is recorded is there after its replay.
        unsure = kind != "cpu" and (kind != "cuda" or grid is not None or not sources or capturing())
        if gradient or torch.compiler.is_compiling() or unsure or is_disabled() or unknown(self, *sources, grid):
            return make()
        kept: Results = self.__dict__.setdefault("_fastprompt_positions", Results())
        where = stream_of(sources[0]) if sources else None
        return kept.get((seen(self), marks, autocast(kind), where), sources, grid, make, self.results)


class TransformersPositions(Positions):
    positional_embedding: Any

    def forward(self, input_coords: Tensor, input_shape: Any = None) -> Tensor:
        host = super().forward
        if input_shape is not None or input_coords.dim() != 3:  # points and boxes, not the grid
            return host(input_coords, input_shape)
        size, matrix = tuple(input_coords.shape), self.positional_embedding
        return self.once(size, [matrix], lambda: host(input_coords), grid=input_coords)


class SegmentAnythingPositions(Positions):
    positional_encoding_gaussian_matrix: Any

    def forward(self, size: tuple[int, int]) -> Tensor:
        host = super().forward
        return self.once(tuple(size), [self.positional_encoding_gaussian_matrix], lambda: host(size))


class SinePositions(Positions):
    """Mixin of a module of sines and cosines of rows and columns."""

    results = 4  # levels of a pyramid, 88 MB for SAM 2
    numbers: tuple[str, ...] = ("num_position_features", "normalize", "scale", "temperature")  # its attributes

    def kept(self, marks: tuple[Any, ...], device: Any, make: Callable[[], Tensor]) -> Tensor:
        return self.once((*marks, *(getattr(self, name) for name in self.numbers)), [], make, device=device)


class TransformersSinePositions(SinePositions):
    def forward(self, shape: Any, device: Any, dtype: Any, mask: Tensor | None = None) -> Tensor:
        host = super().forward
        if mask is not None:
            return host(shape, device, dtype, mask)
        # A copy: the host keeps its last result, too, which would be what a caller has written into.
        return self.kept((tuple(shape), dtype), device, lambda: host(shape, device, dtype, None).clone())


__all__ = ["Positions", "SegmentAnythingPositions", "SinePositions", "TransformersPositions"]
__all__ += ["TransformersSinePositions"]
