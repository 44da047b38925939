"""Fast, exact kernels for promptable image segmentation. Start with ``python -m fastprompt info``."""

from typing import Any

from fastprompt import export
from fastprompt._runtime import backend, get_num_threads, set_num_threads
from fastprompt.models import accelerate, disabled, report, restore
from fastprompt.ops import *
from fastprompt.ops import __all__ as _functions

__all__ = ["__version__", "accelerate", "backend", "disabled", "export", "get_num_threads", "report", "restore"]  # noqa: F405
__all__ += ["set_num_threads"]
__all__ += _functions


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # 10 ms that an import need not pay; pyproject.toml has the number

        return version("fastprompt")
    raise AttributeError(f"module 'fastprompt' has no attribute {name!r}")
