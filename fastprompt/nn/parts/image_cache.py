"""What a decoder keeps of an image between two prompts."""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastprompt import _C


class Value:
    """A tensor as it was: known again at once if it is the same memory, else by its values."""

    def __init__(self, x: Tensor) -> None:
        self.memory, self.place, self.version = weakref.ref(x.untyped_storage()), place(x), version(x)
        self.copy = x if x.is_cuda else x.clone()

    def is_still(self, x: Tensor) -> bool:
        if self.version == version(x) is not None and self.memory() is x.untyped_storage() and self.place == place(x):
            return True
        return not x.is_cuda and equal(x, self.copy)  # a GPU would have to be waited for


def place(x: Tensor) -> tuple[Any, ...]:
    """Which part of its memory a tensor is."""
    return x.data_ptr(), x.dtype, x.shape, x.stride()


def version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version


class Kept(NamedTuple):
    memory: Any  # weak reference to the image's storage
    stream: int | None  # that made it: another one would have to wait
    marks: tuple[Any, ...]
    values: list[Value]
    result: Any


class ImageCache:
    """Remembers one result for one image: tied to the memory and version of its tensor, and dropped with the memory.

    Not to the tensor: sam2's predictor makes a view of the image for every click. Copies, pickles and state dicts of
    the module that owns it are empty of it.
    """

    def __init__(self) -> None:
        self._kept: Kept | None = None

    def get(self, image: Tensor, others: list[Tensor], parameters: list[Tensor], make: Callable[[], Any]) -> Any:
        """``make()``, or its last result if ``image`` is the same part of the same memory, unchanged, ``others`` have
        the same values, and so have the ``parameters``."""
        if torch.compiler.is_compiling() or any(x.is_inference() for x in parameters):
            return make()
        # A tensor of inference mode has no version counter: there its values are compared, 0.3 ms for SAM's.
        values = [image, *others] if image.is_inference() else others
        watched = parameters if image.is_inference() else [image, *parameters]
        memory = image.untyped_storage()
        marks = (_C.isa(), place(image), *((x.data_ptr(), x._version) for x in watched))
        stream, recording = stream_of(image), image.is_cuda and capturing()
        kept = self._kept  # read once: another thread may be here too
        known = kept and kept.memory() is memory and kept.marks == marks and (recording or kept.stream == stream)
        if kept and known and all(map(Value.is_still, kept.values, values)):
            return kept.result
        result = make()
        if not recording:  # what a CUDA graph computes is there after its replay
            self._kept = Kept(weakref.ref(memory, self._drop), stream, marks, [Value(x) for x in values], result)
        return result

    def _drop(self, memory: Any) -> None:
        if self._kept and self._kept.memory is memory:
            self._kept = None

    def __reduce__(self) -> Any:
        return ImageCache, ()


def stream_of(x: Tensor) -> int | None:
    """The current one of its device."""
    return torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else None


def capturing() -> bool:
    """Whether a CUDA graph is recorded; before it, all streams have been waited for."""
    return torch.cuda.is_current_stream_capturing()


def equal(x: Tensor, y: Tensor) -> bool:
    return x.shape == y.shape and x.dtype == y.dtype and torch.equal(x, y)
