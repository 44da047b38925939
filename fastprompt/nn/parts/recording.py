"""How transformers records a model's outputs, hidden states and attention weights, of our classes as of its own."""

import functools
import sys
from typing import Any

import torch
from torch import nn

MODULE = "transformers.utils.output_capturing"


def registry() -> Any:
    """What each class of models can record, by ``str(class)``: only constructors fill it. None: another version."""
    module = sys.modules.get(MODULE)
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


def attentions_are_captured(name: str = "attentions") -> bool:
    """Whether a model collects the weights from its modules' results, as ``output_attentions`` asks."""
    module = sys.modules.get(MODULE)
    if module is None or torch.compiler.is_compiling():
        return False
    collector = getattr(module, "_active_collector", None)
    return bool(collector and name in (collector.get() or ()))


def has_hooks(module: nn.Module) -> bool:
    """Whether modules inside have hooks of the user, which would not be called. Those of transformers only record."""
    for inner in module.modules():
        if inner is module:
            continue
        hooks = (*inner._forward_hooks.values(), *inner._forward_pre_hooks.values())
        if any(getattr(hook, "__module__", None) != MODULE for hook in hooks):
            return True
    return False
