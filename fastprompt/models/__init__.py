"""``accelerate``: find the modules of a model that have a drop-in, and swap their classes."""

import contextlib
import contextvars
import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fastprompt._runtime import current_backend
from fastprompt.models._compare import compare as compare
from fastprompt.models._prune import Prune, Pruned
from fastprompt.models._prune import prompt as prompt
from fastprompt.models._tiny_click import tiny_click as tiny_click

_T, _SA, _HQ = "transformers.models", "segment_anything.modeling", "segment_anything_hq.modeling"
# Module of the host, module of fastprompt.nn with its drop-ins, and their names, which are those of the host.
HOSTS = (
    (f"{_T}.sam.modeling_sam", "transformers_sam", "SamMaskDecoder", "SamPositionalEmbedding"),
    (
        f"{_T}.sam.modeling_sam",
        "transformers_sam",
        "SamVisionAttention",
        "SamVisionSdpaAttention",
        "SamVisionLayer",
    ),
    (f"{_T}.sam_hq.modeling_sam_hq", "transformers_sam_hq", "SamHQMaskDecoder", "SamHQPositionalEmbedding"),
    (
        f"{_T}.sam_hq.modeling_sam_hq",
        "transformers_sam_hq",
        "SamHQVisionAttention",
        "SamHQVisionSdpaAttention",
        "SamHQVisionLayer",
    ),
    (f"{_T}.sam2.modeling_sam2", "transformers_sam2", "Sam2MaskDecoder", "Sam2PositionalEmbedding"),
    (
        f"{_T}.sam3_tracker.modeling_sam3_tracker",
        "transformers_sam3_tracker",
        "Sam3TrackerMaskDecoder",
        "Sam3TrackerPositionalEmbedding",
    ),
    (f"{_T}.edgetam.modeling_edgetam", "transformers_edgetam", "EdgeTamMaskDecoder", "EdgeTamPositionalEmbedding"),
    (f"{_T}.seggpt.modeling_seggpt", "transformers_seggpt", "SegGptAttention", "SegGptLayer"),
    (f"{_T}.clipseg.modeling_clipseg", "transformers_clipseg", "CLIPSegVisionModel"),
    (f"{_SA}.mask_decoder", "segment_anything", "MaskDecoder"),
    (f"{_SA}.prompt_encoder", "segment_anything", "PositionEmbeddingRandom"),
    (f"{_SA}.image_encoder", "segment_anything", "Attention", "Block"),
    (f"{_HQ}.mask_decoder", "segment_anything_hq", "MaskDecoder"),
    (f"{_HQ}.mask_decoder_hq", "segment_anything_hq", "MaskDecoderHQ"),
    (f"{_HQ}.prompt_encoder", "segment_anything_hq", "PositionEmbeddingRandom"),
    (f"{_HQ}.image_encoder", "segment_anything_hq", "Attention", "Block"),
    ("mobile_sam.modeling.mask_decoder", "mobile_sam", "MaskDecoder"),
    ("mobile_sam.modeling.prompt_encoder", "mobile_sam", "PositionEmbeddingRandom"),
    ("mobile_sam.modeling.image_encoder", "mobile_sam", "Attention", "Block"),
    ("sam2.modeling.sam.mask_decoder", "sam2", "MaskDecoder"),
    ("sam2.modeling.position_encoding", "sam2", "PositionEmbeddingRandom"),
    ("models.decode_heads.decode_seg", "zegclip", "Attention"),
    ("model.layers", "cris", "TransformerDecoderLayer"),
)
DROP_INS = {f"{module}.{name}": where for module, where, *names in HOSTS for name in names}
# The same of encoders that can be pruned: swapped only where `accelerate` is told to.
PRUNABLE = {
    f"{_T}.sam.modeling_sam.SamVisionEncoder": "transformers_sam",
    f"{_T}.sam_hq.modeling_sam_hq.SamHQVisionEncoder": "transformers_sam_hq",
    f"{_SA}.image_encoder.ImageEncoderViT": "segment_anything",
    "mobile_sam.modeling.image_encoder.ImageEncoderViT": "mobile_sam",
    "timm.models.vision_transformer.VisionTransformer": "timm",
}

_disabled: contextvars.ContextVar[bool] = contextvars.ContextVar("fastprompt_disabled", default=False)


@dataclass
class Report:
    """What :func:`accelerate` has done to a model; ``print`` it."""

    replaced: dict[str, str] = field(default_factory=dict)  # name of the module: class of the host
    skipped: dict[str, str] = field(default_factory=dict)  # name of the module: reason
    pruned: dict[str, Pruned] = field(default_factory=dict)  # name of the encoder: how much of it

    def __str__(self) -> str:
        lines = [f"replaced  {name or '(the model)'}: {host}" for name, host in self.replaced.items()]
        lines += [f"skipped   {name or '(the model)'}: {reason}" for name, reason in self.skipped.items()]
        lines += [f"pruned    {name or '(the model)'}: {how}" for name, how in self.pruned.items()]
        return "\n".join(lines) or "nothing to replace: no module has a drop-in"


def accelerate(model: Any, *, prune: Prune | None = None) -> Any:
    """Replace what can be replaced in ``model``, in place; the same numbers, sooner. Returns ``model``.

    A module keeps its parameters, buffers, hooks, device and dtype: only its class changes, to a subclass of what it
    was. So state dicts, pickles and ``isinstance`` go on working. Calls that a drop-in does not cover take the host's
    path and say so once. A second call changes nothing; :func:`restore` undoes it, :func:`disabled` switches it off.

    Args:
        model: an ``nn.Module`` of transformers (Sam, SamHQ, Sam2, Sam3Tracker, EdgeTam, SegGpt, CLIPSeg),
            segment-anything, segment-anything-hq, mobile_sam, sam2, the repositories of ZegCLIP and CRIS, anything that
            has one inside, or a ``DistMaps`` of RITM or its forks.
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
    for module, drop_in in candidates(model).values():
        if drop_in.unsupported(module) is None:
            module.__class__ = drop_in
    for module, drop_in in encoders:
        module.__class__ = drop_in
        module.__dict__["_fastprompt_prune"] = prune
    return model


def restore(model: Any) -> Any:
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
    """What is replaced in ``model`` now, what could not be and why, and what is pruned."""
    found = Report()
    for name, module in checked(model).named_modules():
        if hasattr(module, "_fastprompt_prune"):
            found.pruned[name] = module.pruned()
        elif is_drop_in(type(module)):
            found.replaced[name] = full_name(host_of(type(module)))
    for name, (module, drop_in) in candidates(model).items():
        found.skipped[name] = drop_in.unsupported(module) or "not accelerated: call fastprompt.accelerate"
    return found


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Inside the block, accelerated modules take their host's path: for comparisons."""
    token = _disabled.set(True)
    try:
        yield
    finally:
        _disabled.reset(token)


def is_disabled() -> bool:
    """Inside :func:`disabled`, or of the backend "reference", which is the host itself here."""
    return is_off() or (not is_compiling() and current_backend() == "reference")


def is_off() -> bool:
    """Inside :func:`disabled`."""
    return not is_compiling() and _disabled.get()


def is_compiling() -> bool:
    import torch

    return torch.compiler.is_compiling()


def checked(model: Any) -> Any:
    if not hasattr(model, "named_modules"):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    return model


def candidates(model: Any) -> dict[str, tuple[Any, Any]]:
    """Modules that have a drop-in and are not replaced yet, by name."""
    found = {}
    for name, module in checked(model).named_modules():
        cls = type(module)
        where = DROP_INS.get(full_name(cls))
        if where:
            found[name] = module, getattr(importlib.import_module(f"fastprompt.nn.hosts.{where}"), cls.__name__)
        elif cls.__name__ == "DistMaps" and not cls.__module__.startswith("fastprompt.nn."):  # RITM's, in any module
            found[name] = module, importlib.import_module("fastprompt.nn.hosts.ritm").drop_in(cls)
    return found


def checked_encoders(model: Any, prune: Any) -> list[tuple[Any, Any]]:
    """Encoders that can be pruned, pruned ones among them, each with its drop-in."""
    if not isinstance(prune, Prune):
        raise TypeError(f"prune must be a fastprompt.Prune, got {type(prune).__name__}")
    found = []
    for name, module in checked(model).named_modules():
        host = original(type(module))
        where = PRUNABLE.get(full_name(host))
        if where is None:
            continue
        drop_in = getattr(importlib.import_module(f"fastprompt.nn.hosts.{where}"), host.__name__)
        if reason := drop_in.unsupported(module, prune):
            raise ValueError(f"{name or 'the model'} cannot be pruned with {prune}: {reason}")
        found.append((module, drop_in))
    if not found:
        raise ValueError(f"model has no encoder that can be pruned: {', '.join(PRUNABLE)}")
    return found


def full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def is_drop_in(cls: type) -> bool:
    if not cls.__module__.startswith("fastprompt.nn."):
        return False
    host = host_of(cls)
    return full_name(host) in DROP_INS or full_name(host) in PRUNABLE or (cls.__name__ == "DistMaps" == host.__name__)


def host_of(cls: type) -> type:
    return cls.__bases__[-1]


def original(cls: type) -> type:
    return host_of(cls) if is_drop_in(cls) else cls
