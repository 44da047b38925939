"""CLIPSeg's image encoder: drop-in for ``transformers.models.clipseg``."""

from typing import Any

import torch
from torch import Tensor
from transformers.models.clipseg import modeling_clipseg as host

from fastprompt._switches import is_disabled
from fastprompt.nn.parts.float32 import parameters
from fastprompt.nn.parts.image_cache import version
from fastprompt.nn.parts.recording import passes_for, registry


class CLIPSegVisionModel(host.CLIPSegVisionModel):
    """``CLIPSegVisionModel`` that encodes every picture once: CLIPSeg repeats the picture for each of its texts.

    Rows of a batch with the same pixels are one picture, and so is that of the call before, as long as no parameter
    has changed. Its outputs are kept, 1.5 MB for each layer that is asked for; ``fastprompt.restore`` drops them.
    """

    @classmethod
    def unsupported(cls, module: Any) -> str | None:
        """Why a host cannot be replaced; None: it can."""
        return None if registry() is not None else "this version of transformers records outputs in another way"

    def forward(self, pixel_values: Tensor | None, interpolate_pos_encoding: bool | None = True, **kwargs: Any) -> Any:
        if pixel_values is None or pixel_values.ndim != 4 or len(pixel_values) == 0 or self._takes_the_hosts_path():
            return super().forward(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs)
        first, picture = distinct(pixel_values)
        pixels = pixel_values if len(first) == len(pixel_values) else pixel_values[first]
        marks = (
            interpolate_pos_encoding,
            repr(sorted(kwargs.items())),
            torch.is_inference_mode_enabled(),
            states(self),
        )
        kept: Kept = self.__dict__.setdefault("_fastprompt_picture", Kept())
        found = kept.get(marks, pixels)
        if found is None:
            found = super().forward(pixels, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs)
            if not hasattr(found, "items"):  # a tuple, with return_dict=False
                return found if pixels is pixel_values else nested(found, lambda x: repeated(x, picture))
            kept.set(marks, pixels, found)
        # A new object each time: its fields are the caller's to replace.
        return type(found)(**{name: nested(x, lambda x: repeated(x, picture)) for name, x in found.items()})

    def _takes_the_hosts_path(self) -> bool:
        if is_disabled() or torch.compiler.is_compiling() or self.training:
            return True
        if torch.jit.is_tracing():  # type: ignore[attr-defined]
            return True
        return torch.is_grad_enabled() and any(p.requires_grad for p in parameters(self))


class Kept(dict[str, Any]):
    """The last pictures and what they gave. Copies and pickles of the module are empty of it."""

    def get(self, marks: Any, pixels: Any = None) -> Any:
        last = dict.get(self, "last")
        if last is None or last[0] != marks or not torch.equal(last[1], pixels) or last[1].dtype != pixels.dtype:
            return None
        return last[2] if last[3] == versions(last[2]) else None  # somebody wrote into it

    def set(self, marks: Any, pixels: Tensor, found: Any) -> None:
        self["last"] = marks, pixels.clone(), found, versions(found)

    def __reduce__(self) -> Any:
        return Kept, ()


def distinct(pixels: Tensor) -> tuple[list[int], list[int]]:
    """The first row of every picture, and which of them each row is."""
    if pixels.stride(0) == 0:
        return [0], [0] * len(pixels)
    first: list[int] = []
    picture = []
    for n, row in enumerate(pixels):
        same = next((k for k, m in enumerate(first) if torch.equal(row, pixels[m])), len(first))
        picture.append(same)
        if same == len(first):
            first.append(n)
    return first, picture


def repeated(x: Tensor, picture: list[int]) -> Tensor:
    if len(x) == 1:
        return x.expand(len(picture), *x.shape[1:])
    return x if picture == list(range(len(x))) else x[picture]


def nested(x: Any, change: Any) -> Any:
    if isinstance(x, Tensor):
        return change(x)
    return type(x)(nested(y, change) for y in x) if isinstance(x, (tuple, list)) else x


def versions(found: Any) -> list[int | None]:
    marks: list[int | None] = []
    nested(list(found.values()), lambda x: marks.append(version(x)))
    return marks


def states(module: Any) -> list[Any]:
    return [(p.data_ptr(), p.dtype, version(p)) for p in parameters(module)]


passes_for(CLIPSegVisionModel, host.CLIPSegVisionModel)
