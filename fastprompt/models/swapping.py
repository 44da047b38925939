"""``accelerate``: find the modules of a model that have a drop-in, and swap their classes."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from fastprompt._drop_ins import full_name, host_of, is_drop_in, original
from fastprompt._pruning import Prune, Pruned
from fastprompt.models.hosts import PRUNABLE, drop_in, pruned_encoder
from fastprompt.models.remainder import remainder, warn_of_nothing

if TYPE_CHECKING:
    from torch import nn

Model = TypeVar("Model", bound="nn.Module")


@dataclass
class Report:
    """What :func:`accelerate` has done to a model; ``print`` it."""

    replaced: dict[str, str] = field(default_factory=dict)  # name of the module: class of the host
    skipped: dict[str, str] = field(default_factory=dict)  # name of the module: reason
    pruned: dict[str, Pruned] = field(default_factory=dict)  # name of the encoder: how much of it
    remains: dict[str, str] = field(default_factory=dict)  # name of a large part with nothing of these: what, how large

    def __str__(self) -> str:
        lines = [f"replaced  {name or '(the model)'}: {host}" for name, host in self.replaced.items()]
        lines += [f"skipped   {name or '(the model)'}: {reason}" for name, reason in self.skipped.items()]
        lines += [f"pruned    {name or '(the model)'}: {how}" for name, how in self.pruned.items()]
        lines = lines or ["nothing to replace: no module has a drop-in"]
        return "\n".join([*lines, *(f"remains   {name}: {what}, as it was" for name, what in self.remains.items())])


def accelerate(model: Model, *, prune: Prune | None = None) -> Model:
    """Replace what can be replaced in ``model``, in place; the same numbers, sooner. Returns ``model``.

    A module keeps its parameters, buffers, hooks, device and dtype: only its class changes, to a subclass of what it
    was. So state dicts, pickles and ``isinstance`` go on working. Calls that a drop-in does not cover take the host's
    path and say so once. A second call changes nothing; :func:`restore` undoes it, :func:`disabled` switches it off.
    A model in which nothing can be replaced gives a warning.

    Args:
        model: an ``nn.Module`` of transformers (Sam, SamHQ, Sam2 and its video model; Sam3Tracker, EdgeTam and theirs
            without the encoder; SegGpt, VitDet, and SAM's encoder in GotOcr2, PPFormulaNet, SLANeXt, DeepseekOcr2,
            UnlimitedOcr; CLIPSeg), segment-anything, segment-anything-hq, mobile_sam, sam2, Hiera of timm, the
            repositories of ZegCLIP and CRIS, anything that has one inside, or a ``DistMaps`` of RITM or its forks.
        prune: drop tokens (:class:`Prune`): **this changes the results**, see docs/pruning_models.md and
            :func:`compare`. Whole windows of the image encoders of Sam and SamHQ of transformers, segment-anything and
            mobile_sam (its ViT), single tokens of timm's ``VisionTransformer``. Another one takes its place; a call
            without one leaves it.

    Raises:
        TypeError: ``model`` is no module, or ``prune`` no :class:`Prune`.
        ValueError: there is no encoder to prune, or not in this way; then nothing has been replaced.

    Example:
        >>> import fastprompt as fp
        >>> from transformers import SamConfig, SamModel
        >>> model = fp.accelerate(SamModel(SamConfig()).eval())
        >>> print(fp.report(model.mask_decoder))
        replaced  (the model): transformers.models.sam.modeling_sam.SamMaskDecoder
    """
    encoders = [] if prune is None else checked_encoders(model, prune)
    # All are looked at before the first is replaced: what cannot be looked at leaves the model as it was.
    known = [pair for pair in candidates(model).values() if refusal(*pair) is None]
    for module, ours in known:
        module.__class__ = ours
    for module, ours in encoders:
        module.__class__ = ours
        module.__dict__["_fastprompt_prune"] = prune
    done = report(model)
    if not done.replaced and not done.pruned:
        warn_of_nothing(model, done.skipped, done.remains)
    return model


def restore(model: Model) -> Model:
    """Undo :func:`accelerate`, in place. Returns ``model``."""
    for module in checked(model).modules():
        undo(module)
    return model


def undo(module: Any) -> None:
    """:func:`restore` of one module, not of those inside."""
    if is_drop_in(type(module)):
        for name in [k for k in module.__dict__ if k.startswith("_fastprompt_")]:
            del module.__dict__[name]
        module.__class__ = host_of(type(module))


def report(model: Any) -> Report:
    """What is replaced in ``model`` now, what could not be and why, what is pruned, and which large parts stay the
    host's: those with a tenth of the parameters or more, a rough measure of time."""
    found = Report()
    for name, module in checked(model).named_modules():
        if hasattr(module, "_fastprompt_prune"):
            found.pruned[name] = module.pruned()
        elif is_drop_in(type(module)):
            found.replaced[name] = full_name(host_of(type(module)))
            if reason := refusal(module, type(module)):
                found.skipped[name] = f"takes the host's path: {reason}"
    for name, (module, ours) in candidates(model).items():
        found.skipped[name] = refusal(module, ours) or "not accelerated: call fastprompt.accelerate"
    known = [model.get_submodule(name) for name in (*found.replaced, *found.skipped, *found.pruned)]
    known = [x for x in known if not is_around(type(x)) and any(True for _ in x.parameters())]
    found.remains = remainder(model, {id(module) for module in known})
    return found


def is_around(cls: type) -> bool:
    """Whether the drop-in of a class asks the modules inside, and is not in their place."""
    ours = cls if is_drop_in(cls) else drop_in(cls)
    return getattr(ours, "around", False)


def refusal(module: Any, ours: Any) -> str | None:
    """Why a module cannot be replaced; None: it can."""
    from fastprompt.nn.parts.known import why_not  # which imports torch

    return "it has a forward of its own" if "forward" in module.__dict__ else why_not(module, ours)


def checked(model: Any) -> Any:
    if not hasattr(model, "named_modules"):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    return model


def candidates(model: Any) -> dict[str, tuple[Any, Any]]:
    """Modules that have a drop-in and are not replaced yet, by name."""
    modules = {name: (module, drop_in(type(module))) for name, module in checked(model).named_modules()}
    return {name: pair for name, pair in modules.items() if pair[1] is not None}


def checked_encoders(model: Any, prune: Any) -> list[tuple[Any, Any]]:
    """Encoders that can be pruned, pruned ones among them, each with its drop-in."""
    if not isinstance(prune, Prune):
        raise TypeError(f"prune must be a fastprompt.Prune, got {type(prune).__name__}")
    found = []
    for name, module in checked(model).named_modules():
        pruned = pruned_encoder(original(type(module)))
        if pruned is None:
            continue
        if reason := pruned.unsupported(module, prune):
            raise ValueError(f"{name or 'the model'} cannot be pruned with {prune}: {reason}")
        found.append((module, pruned))
    if not found:
        raise ValueError(f"model has no encoder that can be pruned: {', '.join(PRUNABLE)}")
    return found


__all__ = ["Report", "accelerate", "checked", "report", "restore", "undo"]
