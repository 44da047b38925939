"""Models as files for other runtimes: ONNX, ONNX Runtime, OpenVINO, TensorRT, each imported only when it is used."""

from typing import Any

from fastprompt.export import onnxruntime
from fastprompt.export._inspect import Inspected, inspect
from fastprompt.export._onnx import Exported, onnx
from fastprompt.export._tensorrt import Built, tensorrt

__all__ = ["Built", "Exported", "Inspected", "inspect", "onnx", "onnxruntime", "openvino_extension", "tensorrt"]


def openvino_extension() -> list[Any]:
    """Our nodes for OpenVINO, as Python operators: ``for e in openvino_extension(): core.add_extension(e)``.

    They call the kernels of this package, on the CPU and one at a time (they hold Python's lock). A model that is read
    with them must be of flavor "portable" or "plugin". Without them, use flavor "inlined".

    Raises:
        ImportError: OpenVINO is not installed.

    Example:
        >>> import fastprompt as fp, openvino
        >>> core = openvino.Core()
        >>> for extension in fp.export.openvino_extension():
        ...     core.add_extension(extension)
    """
    from fastprompt.export import _openvino

    return _openvino.extensions()
