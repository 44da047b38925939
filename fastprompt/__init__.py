"""Fast, exact kernels for promptable image segmentation. Start with ``python -m fastprompt info``."""

import importlib
from typing import TYPE_CHECKING, Any

from fastprompt import metrics
from fastprompt._runtime import backend, get_num_threads, set_num_threads
from fastprompt.evaluation import ClickResults, evaluate_clicks
from fastprompt.models import accelerate, compare, disabled, prompt, report, restore
from fastprompt.models._prune import Prune
from fastprompt.ops import *
from fastprompt.ops import __all__ as _functions

if TYPE_CHECKING:
    from fastprompt import export as export

__all__ = ["ClickResults", "Prune", "__version__", "accelerate", "backend", "compare", "disabled"]  # noqa: F405
__all__ += ["evaluate_clicks", "export", "get_num_threads", "metrics", "prompt", "report", "restore"]
__all__ += ["set_num_threads"]
__all__ += _functions


def __getattr__(name: str) -> Any:
    if name == "export":  # 20 ms, most of it subprocess and tempfile
        return importlib.import_module("fastprompt.export")
    if name == "__version__":
        from importlib.metadata import version  # 10 ms that an import need not pay; pyproject.toml has the number

        return version("fastprompt")
    raise AttributeError(f"module 'fastprompt' has no attribute {name!r}")
