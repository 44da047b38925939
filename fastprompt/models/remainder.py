"""What of a model stays the host's, and a warning where that is all of it."""

import warnings
from collections.abc import Iterator
from typing import Any

from fastprompt._drop_ins import full_name

LARGE = 0.1  # of the model's parameters: a rough measure of time that needs no run


def remainder(model: Any, known: set[int]) -> dict[str, str]:
    """The parts without any module of ``known`` (ids), each as large as can be, that hold ``LARGE`` or more."""
    total = size(model)
    found = {name: (full_name(type(part)), size(part)) for name, part in parts(model, known)}
    return {
        name: f"{cls}, {count / total:.0%} of the parameters"
        for name, (cls, count) in found.items()
        if count and count >= LARGE * total
    }


def parts(module: Any, known: set[int], name: str = "") -> Iterator[tuple[str, Any]]:
    if id(module) in known:
        return
    if name and not any(id(inner) in known for inner in module.modules()):
        yield name, module
        return
    for child, inner in module.named_children():
        yield from parts(inner, known, f"{name}.{child}".lstrip("."))


def size(module: Any) -> int:
    from torch.nn.parameter import is_lazy

    return sum(p.numel() for p in module.parameters() if not is_lazy(p))


def warn_of_nothing(model: Any, skipped: dict[str, str], remains: dict[str, str]) -> None:
    """Says that :func:`accelerate` found nothing to do in a model of this class; Python says it once for each place."""
    if any(type(module).__module__.startswith("fastprompt.") for module in model.modules()):
        return
    if skipped:
        name, reason = next(iter(skipped.items()))
        why = f"{name or 'it'} cannot be replaced: {reason}"
        help_ = "print(fastprompt.report(model)) lists all reasons"
    else:
        large = f"; most of it is {', '.join(remains)}" if remains else ""
        why = f"no module of it has a drop-in{large}"
        help_ = "the hosts that gain are listed in fastprompt's README and docs/hosts.md"
    text = f"fastprompt: accelerate replaced nothing in {full_name(type(model))}: {why}. It runs as before; {help_}"
    warnings.warn(text, stacklevel=3)


__all__ = ["remainder", "warn_of_nothing"]
