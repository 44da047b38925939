"""How transformers records a model's outputs, hidden states and attention weights, of our classes as of its own."""

import functools
import sys
from typing import Any

from fastprompt.nn.parts.known import RECORDING


def registry() -> Any:
    """What each class of models can record, by ``str(class)``: only constructors fill it. None: another version."""
    module = sys.modules.get(RECORDING)
    return getattr(module, "_CAN_RECORD_REGISTRY", None)


# What transformers asks a class of its models, and finds out by the module that the class is in.
ASKED = ("is_custom_code", "_can_set_attn_implementation", "_can_set_experts_implementation")


def passes_for(drop_in: Any, host: Any) -> None:
    """What transformers looks up by a model's class is the host's: the outputs that it can record, the old names of
    its parameters, the arguments of ``forward``."""
    known = registry()
    if known is not None:
        dict.__setitem__(known, str(drop_in), host._can_record_outputs)
    for name in ASKED:
        if hasattr(host, name):
            setattr(drop_in, name, getattr(host, name))
    ours = drop_in.forward

    @functools.wraps(host.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return ours(self, *args, **kwargs)

    drop_in.forward = forward
