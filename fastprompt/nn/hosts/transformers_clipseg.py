"""CLIPSeg's image encoder: drop-in for ``transformers.models.clipseg``."""

from typing import Any

import torch
from torch import Tensor
from transformers.models.clipseg import modeling_clipseg as host

from fastprompt._switches import is_disabled
from fastprompt.nn.parts.host_path import falls_back
from fastprompt.nn.parts.image_cache import Seen
from fastprompt.nn.parts.known import Look, look, own_parameters, unknown
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
        if pixel_values is None or self._takes_the_hosts_path(pixel_values):
            return super().forward(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs)
        first, picture = distinct(pixel_values)
        pixels = pixel_values if len(first) == len(pixel_values) else pixel_values[first]
        marks = (
            interpolate_pos_encoding,
            repr(sorted(kwargs.items())),
            torch.is_inference_mode_enabled(),
        )
        kept: Kept = self.__dict__.setdefault("_fastprompt_picture", Kept())
        found = kept.get(look(self), marks, pixels)
        if found is None:
            found = super().forward(pixels, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs)
            if not hasattr(found, "items"):  # a tuple, with return_dict=False
                return found if pixels is pixel_values else nested(found, lambda x: repeated(x, picture))
            kept.set(look(self), marks, pixels, found)  # a first call has added hooks that record
        # A new object each time: its fields are the caller's to replace.
        return type(found)(**{name: nested(x, lambda x: repeated(x, picture)) for name, x in found.items()})

    def _takes_the_hosts_path(self, pixel_values: Tensor) -> bool:
        if is_disabled() or torch.compiler.is_compiling() or self.training:
            return True
        if pixel_values.ndim != 4 or len(pixel_values) == 0:
            return True
        if falls_back(self, unknown(self, pixel_values)):
            return True
        return torch.is_grad_enabled() and any(p.requires_grad for p in own_parameters(self))


class Kept(dict[str, Any]):
    """The last pictures and what they gave. Copies and pickles of the module are empty of it."""

    def get(self, module: Look, marks: Any, pixels: Any) -> Any:  # type: ignore[override]
        last = dict.get(self, "last")
        if last is None or last[0] is not module or last[1] != marks:
            return None
        _, _, weights, picture, found, seen = last
        same = picture.dtype == pixels.dtype and torch.equal(picture, pixels) and weights.are(module.parameters)
        return found if same and seen.are(tensors(found)) else None  # nobody wrote into it

    def set(self, module: Look, marks: Any, pixels: Tensor, found: Any) -> None:
        self["last"] = module, marks, Seen(module.parameters), pixels.clone(), found, Seen(tensors(found))

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


def tensors(found: Any) -> list[Tensor]:
    inside: list[Tensor] = []
    nested(list(found.values()), inside.append)
    return inside


passes_for(CLIPSegVisionModel, host.CLIPSegVisionModel)
