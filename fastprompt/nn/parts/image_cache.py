"""What a decoder keeps of an image between two prompts, and how tensors are known again."""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastprompt import _C

SOME, MANY = 64, 4096  # cache lines of a tensor that are looked at: 0.4 us, and 30 us of a click's 23 000


class Seen:
    """Tensors as they were: where they lie, torch's count of the writes, and a number made of some of their bytes.

    ``x.data``, NumPy, another library or process write without being counted. What they change is seen where it is in
    one of the cache lines that are looked at: small tensors are looked at in full, others in ``lines`` places.
    """

    def __init__(self, tensors: list[Tensor], lines: int = SOME) -> None:
        self.marks, self.lines = marks(tensors), lines
        self.blocks = [block(x) for x in tensors if x.device.type == "cpu"]  # a GPU would have to be waited for
        self.number = _C.sample(self.blocks, lines)

    def are(self, tensors: list[Tensor]) -> bool:
        """The blocks are read only where a tensor of the same memory is given, so that it is there."""
        return self.marks == marks(tensors) and _C.sample(self.blocks, self.lines) == self.number


def marks(tensors: list[Tensor]) -> list[Any]:
    return [(*place(x), version(x)) for x in tensors]


def block(x: Tensor) -> tuple[int, int]:
    """Address and number of bytes from the first element to the last."""
    if not x.numel():
        return 0, 0
    last = sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True))
    return x.data_ptr(), (last + 1) * x.element_size()


class Value:
    """A tensor as it was: known again at once if it is the same memory, else by its values."""

    def __init__(self, x: Tensor) -> None:
        self.memory, self.place = weakref.ref(x.untyped_storage()), place(x)
        self.seen = None if x.is_inference() else Seen([x], MANY)  # its writes are not counted: compared in full
        self.copy = x if x.is_cuda else x.clone()

    def is_still(self, x: Tensor) -> bool:
        here = self.memory() is x.untyped_storage() and self.place == place(x)
        if here and self.seen and self.seen.are([x]):
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
    image: Seen  # of nothing in inference mode
    weights: Seen
    values: list[Value]
    result: Any


class ImageCache:
    """Remembers one result for one image: tied to the memory of its tensor as it was seen, and dropped with the memory.

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
        values, counted = ([image, *others], []) if image.is_inference() else (others, [image])
        memory, marks = image.untyped_storage(), (_C.isa(), place(image))
        stream, recording = stream_of(image), image.is_cuda and capturing()
        kept = self._kept  # read once: another thread may be here too
        known = kept and kept.memory() is memory and kept.marks == marks and (recording or kept.stream == stream)
        same = kept and known and kept.weights.are(parameters) and kept.image.are(counted)
        if kept and same and all(map(Value.is_still, kept.values, values)):
            return kept.result
        if recording:  # what a CUDA graph computes is there after its replay
            return make()
        # Before it is computed: what another thread writes meanwhile is a change.
        seen = Seen(counted, MANY), Seen(parameters), [Value(x) for x in values]
        result = make()
        self._kept = Kept(weakref.ref(memory, self._drop), stream, marks, *seen, result)
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
