"""Our nodes on NumPy arrays, for runtimes that call Python: the kernels of the library, without torch."""

import ctypes
import functools
from typing import Any

import numpy as np

from fastprompt._runtime import get_num_threads
from fastprompt.export.onnxruntime import library_path

AXES, TEXT = 8, 512  # of csrc/export/node_abi.h
# ONNX's numbers of the types that kernels read and write.
TYPES = {1: np.float32, 2: np.uint8, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64}
NUMBERS = {np.dtype(kind).name: number for number, kind in TYPES.items()}
Shape = list[int] | None  # -1: an axis that is not known; None: no axis is


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("axes", ctypes.c_int32),
        ("sizes", ctypes.c_int64 * AXES),
    )

    def describe(self, sizes: Shape, number: int) -> None:
        self.type, self.axes = number, -1 if sizes is None else len(sizes)
        for k, size in enumerate(sizes or ()):
            self.sizes[k] = size

    def shape(self) -> list[int]:
        return list(self.sizes[: max(self.axes, 0)])


ONE = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.POINTER(Tensor))


class Host(ctypes.Structure):
    _fields_ = (
        ("self", ctypes.c_void_p),
        ("inputs", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("input", ONE),
        ("output", ONE),
        ("parallel", ctypes.c_void_p),
    )


@functools.cache
def library() -> ctypes.CDLL:
    found = ctypes.CDLL(library_path())
    text, pointer = ctypes.c_char_p, ctypes.c_void_p
    for name, result, arguments in (
        ("new", pointer, (text,)),
        ("delete", None, (pointer,)),
        ("ints", None, (pointer, text, pointer, ctypes.c_int32)),
        ("floats", None, (pointer, text, pointer, ctypes.c_int32)),
        ("text", None, (pointer, text, text)),
        ("attributes", text, (pointer,)),
        ("input_types", text, (pointer,)),
        ("output_types", text, (pointer,)),
        ("outputs", ctypes.c_int32, (pointer, ctypes.POINTER(Tensor), ctypes.c_int32, ctypes.POINTER(Tensor), text)),
        ("run", ctypes.c_int32, (pointer, ctypes.POINTER(Host), text)),
    ):
        function = getattr(found, f"fastprompt_node_{name}")
        function.restype, function.argtypes = result, arguments
    return found


class Node:
    """One node, and what it keeps from call to call.

    >>> Node("CosineScores", {}).run([np.ones((1, 2, 16), np.float32), np.ones((1, 1, 16), np.float32)])[0].tolist()
    [[1.0, 1.0]]
    """

    def __init__(self, name: str, attributes: dict[str, Any]) -> None:
        self._library = library()
        self._node = self._library.fastprompt_node_new(name.encode())
        if not self._node:
            raise ValueError(f"fastprompt has no operator {name!r}")
        for key, value in attributes.items():
            self._set(key.encode(), value)

    def __del__(self) -> None:
        if getattr(self, "_node", None):
            self._library.fastprompt_node_delete(self._node)

    def _set(self, key: bytes, value: Any) -> None:
        if isinstance(value, str):
            self._library.fastprompt_node_text(self._node, key, value.encode())
            return
        numbers = np.atleast_1d(np.asarray(value))
        integers = numbers.dtype.kind in "iu" and numbers.size > 0
        for kind, set_to in ((np.int64, "ints"), (np.float32, "floats")):
            if set_to == "floats" or integers or not numbers.size:  # an empty list has no type of its own
                given = np.ascontiguousarray(numbers, kind)
                getattr(self._library, f"fastprompt_node_{set_to}")(self._node, key, given.ctypes.data, given.size)

    def described(self) -> tuple[str, str, str]:
        """Types of the inputs and outputs, and the attributes, in the letters of csrc/export/node_abi.h."""
        functions = (f"fastprompt_node_{x}" for x in ("input_types", "output_types", "attributes"))
        inputs, outputs, attributes = (getattr(self._library, f)(self._node).decode() for f in functions)
        return inputs, outputs, attributes

    def outputs(self, inputs: list[tuple[Shape, int]]) -> list[tuple[list[int], int]]:
        """Shapes and numbers of the types of the outputs, for those of the inputs."""
        given, found, error = (Tensor * len(inputs))(), (Tensor * AXES)(), ctypes.create_string_buffer(TEXT)
        for tensor, (shape, number) in zip(given, inputs, strict=True):
            tensor.describe(shape, number)
        count = self._library.fastprompt_node_outputs(self._node, given, len(inputs), found, error)
        if count < 0:
            raise ValueError(error.value.decode())
        return [(x.shape(), x.type) for x in found[:count]]

    def run(self, inputs: list[Any]) -> list[Any]:
        """The outputs; the kernels run on :func:`fastprompt.set_num_threads` threads."""
        arrays, made = [np.ascontiguousarray(x) for x in inputs], dict[int, Any]()
        types = self.outputs([(list(x.shape), NUMBERS[x.dtype.name]) for x in arrays])

        def read(_: Any, n: int, tensor: Any) -> int:
            x = arrays[n]
            tensor[0].describe(list(x.shape), NUMBERS[x.dtype.name])
            tensor[0].data = x.ctypes.data
            return 0

        def make(_: Any, n: int, tensor: Any) -> int:
            try:
                made[n] = np.empty(tensor[0].shape(), TYPES[types[n][1]])
            except MemoryError:
                return 1
            tensor[0].data, tensor[0].type = made[n].ctypes.data, types[n][1]
            return 0

        host = Host(None, len(arrays), get_num_threads(), ONE(read), ONE(make), None)
        error = ctypes.create_string_buffer(TEXT)
        if self._library.fastprompt_node_run(self._node, host, error):
            raise ValueError(error.value.decode())
        return [made[n] for n in range(len(types))]
