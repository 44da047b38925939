"""The models around decoders and encoders: what they copy for every click is handed on as a view."""

from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from fastprompt._drop_ins import host_of, is_drop_in
from fastprompt._switches import is_disabled
from fastprompt.nn.parts.known import HOOKS_OF_ALL, touched
from fastprompt.nn.parts.transforms import transformed


class Around(nn.Module):
    """Mixin of a model that calls the modules inside as its host does: whatever they have become, they are asked."""

    around = True  # what is inside is no part of what is replaced

    @classmethod
    def unsupported(cls, host: Any) -> str | None:
        return None

    def takes_over(self, method: str, *tensors: Any) -> bool:
        """Whether this call is ours: ``method`` of the host is its own, and nobody records what is computed."""
        host = host_of(type(self))
        own = getattr(getattr(host, method), "__module__", None) == host.__module__
        return own and not (is_disabled() or torch.compiler.is_compiling() or transformed(*tensors))


class Wide(Tensor):
    """Positions of an image, which a model repeats for its batch: a view, where the host writes 4 MB for every click.

    All else that is done with it is done with the tensor that it is, and gives tensors.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def repeat(self, *sizes: Any) -> Tensor:
        plain = self.as_subclass(Tensor)
        return plain.expand(sizes[0], -1, -1, -1) if sizes[1:] == (1, 1, 1) and sizes[0] > 0 else plain.repeat(*sizes)


asking: ContextVar[Any] = ContextVar("fastprompt_asking", default=None)  # the model that is in its forward


class WideModel(Around):
    """Mixin of a model of transformers that asks a decoder of ours about an image.

    Not of another one, nor where hooks see its arguments: they may write into them, for which a view has no memory.
    """

    mask_decoder: Any

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return super().forward(*args, **kwargs)
        token = asking.set(self)
        try:
            return super().forward(*args, **kwargs)
        finally:
            asking.reset(token)

    def get_image_wide_positional_embeddings(self) -> Tensor:
        method = "get_image_wide_positional_embeddings"
        found: Tensor = getattr(super(), method)()
        if torch.compiler.is_compiling() or asking.get() is not self or not self.takes_over(method, found):
            return found
        ours = is_drop_in(type(self.mask_decoder)) and not touched(self.mask_decoder) and not any(HOOKS_OF_ALL)
        return found.as_subclass(Wide) if ours and type(found) is Tensor else found


__all__ = ["Around", "WideModel"]
