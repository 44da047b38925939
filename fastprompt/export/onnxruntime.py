"""Our kernels inside ONNX Runtime: ``register(session_options)``, then sessions run our nodes with them."""

from pathlib import Path
from typing import Any

from fastprompt import _C

__all__ = ["library_path", "register"]

OLDEST = (1, 17)


def library_path() -> str:
    """The custom-operator library: for ``RegisterCustomOpsLibrary`` in C, C++, C# and Java as well.

    It needs neither Python nor torch, and is linked to nothing but the C++ library.

    >>> import fastprompt as fp
    >>> fp.export.onnxruntime.library_path().endswith(("fastprompt_onnxruntime.so", ".dylib", ".dll"))
    True
    """
    for folder in folders():
        for found in sorted(folder.glob("fastprompt_onnxruntime.*")):
            if found.suffix in (".so", ".dylib", ".dll"):
                return str(found)
    raise FileNotFoundError("this build of fastprompt has no library for ONNX Runtime: reinstall it")


def folders() -> list[Path]:
    """Where what CMake builds is: an editable install keeps it apart from the Python files."""
    return [Path(__file__).parents[1], Path(str(_C.__file__)).parent]


def register(session_options: Any) -> Any:
    """Make sessions with these options run nodes of domain ``fastprompt`` with our kernels. Returns the options.

    Every operator and every float type is registered; float16, bfloat16 and float64 are computed in float32. The
    kernels run on the session's threads (``intra_op_num_threads``).

    Args:
        session_options: an ``onnxruntime.SessionOptions``.

    Raises:
        TypeError: it is something else.
        RuntimeError: ONNX Runtime is older than 1.17.

    Example:
        >>> import fastprompt as fp, onnxruntime
        >>> options = fp.export.onnxruntime.register(onnxruntime.SessionOptions())
        >>> session = onnxruntime.InferenceSession("decoder.onnx", options)  # doctest: +SKIP
    """
    if not hasattr(session_options, "register_custom_ops_library"):
        raise TypeError(
            f"session_options must be onnxruntime.SessionOptions, got {type(session_options).__name__} (or a build of "
            "ONNX Runtime without custom operators)"
        )
    import onnxruntime

    version = tuple(int(x) for x in onnxruntime.__version__.split(".")[:2])
    if version < OLDEST:
        raise RuntimeError(f"fastprompt needs ONNX Runtime 1.17 or newer, got {onnxruntime.__version__}")
    session_options.register_custom_ops_library(library_path())
    return session_options
