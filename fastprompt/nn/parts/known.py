"""Whether what lies under a drop-in is what it was written for: asked at every call, answered anew after a change."""

import sys
from typing import Any

import torch
from torch import Tensor, nn

from fastprompt import _C
from fastprompt._drop_ins import full_name, host_of, is_drop_in, original
from fastprompt.nn.parts.transforms import transformed

RECORDING = "transformers.utils.output_capturing"  # its hooks do nothing but record, where that is asked for
HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
HOOKS_OF_ALL = [getattr(nn.modules.module, f"_global{name}") for name in HOOKS]
PLAIN = (Tensor, nn.Parameter)  # a subclass may compute something else: quantised weights do


class Look:
    """What was seen under a module, and said of it. Copies and pickles of the module are empty of it."""

    def __init__(self, seen: Any = None, reason: str | None = None, parameters: list[Tensor] | None = None) -> None:
        self.seen, self.reason, self.parameters = seen, reason, parameters or []

    def __reduce__(self) -> Any:
        return Look, ()


def look(module: nn.Module) -> Look:
    """The last look at a drop-in while nothing under it has changed, which takes 40 us to see for SAM's decoder."""
    kept = module.__dict__.get("_fastprompt_look")
    if kept is None or kept.seen is None or not _C.unchanged(module, kept.seen):
        kept = Look(_C.watched(module), why_not(module, type(module)), parameters(module))
        module.__dict__["_fastprompt_look"] = kept
    return kept


def unknown(module: nn.Module, *tensors: Any) -> str | None:
    """Why a drop-in must not compute what is under it now, of these tensors; None: it knows all of it."""
    if why := transformed(*tensors):
        return why
    if torch.compiler.is_compiling():
        return when_traced(module)
    if any(HOOKS_OF_ALL):
        return "hooks of all modules are registered"
    return look(module).reason or recorded(module)


def when_traced(module: nn.Module) -> str | None:
    return why_not(module, type(module))


# torch.compile calls it while it traces, and takes what it says for a constant; another module in the place of one that
# the drop-in reads makes it trace again. torch.compiler.assume_constant_result does the same, and takes 1 s to import.
when_traced._dynamo_marked_constant = True  # type: ignore[attr-defined]


def seen(module: nn.Module) -> Look:
    """The look that :func:`unknown` has had in this call."""
    kept = module.__dict__.get("_fastprompt_look")
    return look(module) if kept is None or kept.seen is None else kept


def own_parameters(module: nn.Module) -> list[Tensor]:
    """Those under a drop-in, as :func:`unknown` saw them in this call."""
    return parameters(module) if torch.compiler.is_compiling() else seen(module).parameters


def why_not(module: nn.Module, ours: Any) -> str | None:
    """Why a module of a host cannot be computed by the drop-in ``ours``; None: it can."""
    try:
        return strange(module, getattr(ours, "around", False)) or ours.unsupported(module)
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        return f"its parts are not those of its class: {error}"


def strange(root: nn.Module, alone: bool = False) -> str | None:
    """What under a module is not its host's or torch's own: classes, methods, hooks, weights. ``alone``: what is inside
    is asked for itself."""
    packages = of_the_host(root)
    for name, module in [("", root)] if alone else root.named_modules():
        place, cls = name or "it", original(type(module))
        if not full_name(cls).startswith(packages):
            return f"{place} is a {full_name(cls)}"
        method = getattr(getattr(cls, "forward", None), "__module__", None) or ""
        if not f"{method}.".startswith(packages):
            return f"the forward of {full_name(cls)} has been replaced by one of {method}"
        if module is not root and (what := touched(module)):
            return f"{place} has {what}"
        for key, x in (*module._parameters.items(), *module._buffers.items()):
            if x is not None and not is_plain(x):
                return f"{f'{name}.{key}'.lstrip('.')} is a {type(x).__name__}"
    return None


def is_plain(x: Tensor) -> bool:
    stands_in = torch.compiler.is_compiling() and type(x).__module__.startswith("torch._subclasses.")
    return type(x) in PLAIN or stands_in  # torch.export traces with tensors without numbers


def touched(module: nn.Module) -> str | None:
    """What the user has put on a module inside, which would not be called."""
    if "forward" in module.__dict__:
        return "a forward of its own"
    hooks = [hook for name in HOOKS for hook in getattr(module, name).values()]
    return "hooks" if any(getattr(hook, "__module__", None) != RECORDING for hook in hooks) else None


def of_the_host(root: nn.Module) -> tuple[str, ...]:
    """How the names of classes begin that a module of this host is made of."""
    host = next((host_of(cls) for cls in type(root).__mro__ if is_drop_in(cls)), type(root))
    package = host.__module__.partition(".")[0]
    own = ("transformers.models.", "transformers.activations.") if package == "transformers" else (f"{package}.",)
    return (*own, "torch.nn.modules.")


def other_parts(module: nn.Module, *known: str) -> str | None:
    """Modules of a layer beside those that a drop-in knows: an adapter in a fork of its host, say."""
    others = sorted(set(module._modules) - set(known))
    return f"it has parts that are not its host's: {', '.join(others)}" if others else None


def is_gelu(activation: Any) -> bool:
    """The exact one."""
    name = type(activation).__name__
    return name in ("GELU", "GELUActivation") and getattr(activation, "approximate", "none") == "none"


def recorded(root: nn.Module) -> str | None:
    """Whether a model of transformers collects results of modules inside now, as ``output_attentions`` asks."""
    wanted = collecting()
    if not wanted:
        return None
    for module in root.modules():
        for hook in module._forward_hooks.values() if module is not root else ():
            names, cells = hook.__code__.co_freevars, hook.__closure__ or ()
            if "key" in names and cells[names.index("key")].cell_contents in wanted:
                return "results of modules inside are asked for"
    return None


def collecting() -> Any:
    """The names of what a model of transformers collects now."""
    module = sys.modules.get(RECORDING)
    if module is None or torch.compiler.is_compiling():
        return ()
    collector = getattr(module, "_active_collector", None)
    return (collector.get() if collector else None) or ()


def parameters(module: nn.Module) -> list[Tensor]:
    """All parameters of a module, six times as fast as ``module.parameters()``; one that is shared comes twice."""
    found: list[Tensor] = []
    waiting = [module]
    while waiting:
        here = waiting.pop()
        found += [p for p in here._parameters.values() if p is not None]
        waiting += [m for m in here._modules.values() if m is not None]
    return found


__all__ = ["Look", "collecting", "is_gelu", "look", "other_parts", "own_parameters", "parameters", "seen", "touched"]
__all__ += ["unknown", "why_not"]
