"""Modules that are imported when something of them is first called: formulas in torch, GPU kernels, references."""

import functools
import importlib
from typing import Any


class Later:
    """A module, by the name that it will be imported by: ``Later("fastprompt.reference.pooling").film`` is a function
    that imports it and calls its ``film``."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Function(self._module, name)


class Function:
    def __init__(self, module: str, name: str) -> None:
        self._module, self.__name__ = module, name

    @functools.cached_property
    def __wrapped__(self) -> Any:
        try:
            return getattr(importlib.import_module(self._module), self.__name__)
        except ModuleNotFoundError as error:
            if error.name not in ("torch", "triton"):
                raise
            what = f"tensors on a GPU need {error.name}: pip install {error.name}, or call .cpu()"
            raise ValueError(what) from None

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.__wrapped__(*args, **options)


__all__ = ["Later"]
