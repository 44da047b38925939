"""Small calls of every operator, to be compared with the reference on the machine at hand: ``fastprompt doctor``.

A file a family, whose ``checks()`` are found by being there.
"""

import importlib
import pkgutil
from collections.abc import Iterator

import fastprompt as fp
from fastprompt._selftest.check import Check

WITHOUT_KERNEL = {"fourier_position_encoding", "mask_to_rle", "rle_to_mask"}  # NumPy is their only form


def checks() -> Iterator[Check]:
    """All checks, family by family."""
    for module in pkgutil.iter_modules(__path__):
        if module.name != "check":
            yield from importlib.import_module(f"{__name__}.{module.name}").checks()


def untested() -> list[str]:
    """Public operators with a kernel and without a check."""
    return sorted(set(operators()) - WITHOUT_KERNEL - {check.operator for check in checks()})


def operators() -> list[str]:
    """Names of the public functions of ``fastprompt.ops``."""
    modules = {name: getattr(getattr(fp, name, None), "__module__", "") for name in fp.__all__ if name.islower()}
    return sorted(name for name, module in modules.items() if module.startswith("fastprompt.ops."))
