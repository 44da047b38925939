"""The one torch library that all operators register with. Imported only where torch is."""

from collections.abc import Callable
from typing import Any

import torch

_library = torch.library.Library("fastprompt", "FRAGMENT")

Fn = Callable[..., Any]


def define(schema: str, *, cpu: Fn, fake: Fn, backward: Fn | None = None, setup_context: Fn | None = None) -> Any:
    """Declare an operator, kernel, shapes and gradient: ``define("f(Tensor x) -> Tensor", cpu=f, fake=g)``."""
    name = _library.define(schema)
    qualified = f"fastprompt::{name}"
    _library.impl(name, cpu, "CPU")
    torch.library.register_fake(qualified, fake, lib=_library)
    if backward is not None:
        torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=_library)
    return getattr(torch.ops.fastprompt, name).default
