"""Models as files for other runtimes: ONNX, ONNX Runtime, OpenVINO, TensorRT, each imported only when it is used."""

from typing import Any

from fastprompt._choices import choice
from fastprompt.export import onnxruntime, quick_plugins
from fastprompt.export._onnx.export import Exported, onnx
from fastprompt.export._onnx.inspecting import Inspected, inspect
from fastprompt.export._tensorrt.engine import Built, tensorrt

__all__ = [
    "Built",
    "Exported",
    "Inspected",
    "inspect",
    "onnx",
    "onnxruntime",
    "openvino_extension",
    "quick_plugins",
    "tensorrt",
]


def openvino_extension(kind: str = "auto") -> list[Any]:
    """Our nodes for OpenVINO: ``for extension in openvino_extension(): core.add_extension(extension)``.

    In C++ it is one library, which is compiled against the OpenVINO that is installed when it is first asked for (CMake
    and a C++ compiler are needed) and kept in ``~/.cache/fastprompt``: our kernels on OpenVINO's own threads, without
    Python. Python operators run the same kernels on the threads of :func:`fastprompt.set_num_threads`, one
    at a time. A model that is read with either must be of flavor "portable" or "plugin"; without, use "inlined".

    Args:
        kind: "c++", "python", or "auto": C++ where it can be built, else Python with a warning that says why not.

    Returns:
        What ``core.add_extension`` takes, one after the other: the path of the library, or an object for each operator.

    Raises:
        ImportError: OpenVINO is not installed.
        RuntimeError: with "c++", why it cannot be built.
        ValueError: another ``kind``.

    Example:
        >>> import fastprompt as fp, openvino
        >>> core = openvino.Core()
        >>> for extension in fp.export.openvino_extension():
        ...     core.add_extension(extension)
    """
    choice("kind", kind, ("auto", "c++", "python"))
    from fastprompt.export._openvino import build

    if kind != "python":
        try:
            return [build.extension_path()]
        except build.CannotBuild as error:
            if kind == "c++":
                raise
            import warnings

            warnings.warn(f"fastprompt: Python operators for OpenVINO instead of C++: {error}", stacklevel=2)
    from fastprompt.export._openvino import operators

    return operators.extensions()
