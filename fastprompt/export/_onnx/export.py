"""``fastprompt.export.onnx``: one file for every runtime, compared with the model before it is written."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from fastprompt._choices import choice
from fastprompt._switches import exporting
from fastprompt.export._nodes._body import OPSET
from fastprompt.export._nodes._translate import table
from fastprompt.export._onnx.functions import attach, our_nodes

PARTS = ("decoder", "encoder", "memory_attention", "memory_encoder")  # the last two of a model for videos
FLAVORS = ("portable", "plugin", "inlined")
LIMIT = 2**31 - 1  # bytes of a protobuf


class Exported(NamedTuple):
    """What :func:`onnx` has written."""

    path: str
    flavor: str
    nodes: dict[str, int]  # ours, and how many of each
    errors: dict[str, float]  # largest difference from the model, by the shapes of the inputs


def onnx(
    model: Any,
    path: Any,
    *,
    flavor: str = "portable",
    part: str = "decoder",
    multimask: bool = True,
    mask_prompts: bool = False,
    images: bool = False,
    args: tuple[Any, ...] | None = None,
    checks: list[tuple[Any, ...]] | None = None,
    input_names: list[str] | None = None,
    output_names: list[str] | None = None,
    dynamic_shapes: Any = None,
    tolerance: float = 1e-4,
) -> Exported:
    r"""Write a model as one ONNX file whose kernels of ours are nodes of domain ``fastprompt``.

    ===========  ======================================================================================
    ``portable``  nodes, and what they mean in standard ONNX as functions in the file: ONNX Runtime runs it as it
                  is, and faster where our library is registered; TensorRT takes plugin or function
    ``plugin``    nodes alone: for a runtime with our library, and for TensorRT 10.1
    ``inlined``   standard ONNX alone: for OpenVINO without our extension, and for other compilers
    ===========  ======================================================================================

    The file is run at shapes other than the example's, in ONNX Runtime or else in onnx's own evaluator, and compared
    with the model; only then it is written.

    Args:
        model: transformers' ``SamModel``, ``SamHQModel``, ``Sam2Model`` or ``Sam2VideoModel``, or segment-anything's
            ``Sam``, of which ``part`` is taken; or any module that calls functions of this package, with ``args``.
            Modules that have a drop-in get it for the export.
        path: of the file. Weights are inside; at most 2 GB.
        flavor: see above.
        part: of SAM: "decoder" takes ``image_embeddings`` (1, C, h, w), ``points`` (P, N, 2), (x, y) pixels of the
            network's input, and ``labels`` (P, N) int64 with any P and N (see docs/export.md), and gives ``masks``
            (P, K, 4 h, 4 w) and ``scores`` (P, K); "encoder" takes ``pixels`` (B, 3, H, W). Of
            ``Sam2VideoModel`` also "memory_attention" and "memory_encoder", and its decoder takes an embedding for each
            object: docs/export.md has all inputs and outputs.
        multimask: whether the decoder gives SAM's three masks, or the one.
        mask_prompts: whether it also takes ``mask_input`` (P, 1, 4 h, 4 w), logits of the last click say, and
            ``has_mask_input`` (P), 0 where there is none.
        images: whether it takes several images: ``image_embeddings`` (B, C, h, w), and an axis B before P everywhere.
        args: example inputs of any other module.
        checks: further inputs to compare at; default: the example with every axis of ``dynamic_shapes`` longer, shorter
            and of size 1.
        input_names, output_names, dynamic_shapes: as in ``torch.onnx.export``; names for axes.
        tolerance: largest difference from the model, relative to the largest number of an output (at least 1).

    Returns:
        :class:`Exported`.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.
        RuntimeError: the file does not give the model's numbers; nothing is written.

    Example:
        >>> import fastprompt as fp
        >>> fp.export.onnx(model, "decoder.onnx")  # doctest: +SKIP
    """
    check(model, flavor, part)
    import torch

    from fastprompt.export._onnx import sam_files
    from fastprompt.export._onnx.verify import compare

    if args is None:
        if not sam_files.is_sam(model):
            raise ValueError(f"args must hold example inputs: {type(model).__name__} is no SAM that is known here")
        model, options = sam_files.of_part(model, part, multimask, mask_prompts, images)
        args, checks = options["args"], options.get("checks") if checks is None else checks
        input_names, output_names = options["input_names"], options["output_names"]
        dynamic_shapes = options["dynamic_shapes"]
    names = {"input_names": input_names, "output_names": output_names, "dynamic_shapes": dynamic_shapes}
    with torch.no_grad(), in_eval_mode(model):
        proto = traced(model, args, names)
        finished, runnable = finish(proto, flavor)
        errors = compare(model, runnable, args, checks, dynamic_shapes, tolerance)
    data = finished.SerializeToString()
    with open(path, "wb") as file:
        file.write(data)
    return Exported(os.fspath(path), flavor, counts(finished), errors)


def check(model: Any, flavor: str, part: str) -> None:
    choice("flavor", flavor, FLAVORS)
    choice("part", part, PARTS)
    if not hasattr(model, "named_modules"):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for package in ("onnx", "onnxscript"):
        try:
            __import__(package)
        except ImportError:
            raise ImportError(f"export needs the package {package}: pip install onnx onnxscript") from None
    sizes = sum(p.numel() * p.element_size() for p in model.parameters())
    if sizes > LIMIT:
        raise ValueError(f"model must fit one file of 2 GB, got {sizes / 2**30:.1f} GB of parameters: export a part")


@contextlib.contextmanager
def in_eval_mode(model: Any) -> Iterator[None]:
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def traced(model: Any, args: tuple[Any, ...], names: dict[str, Any]) -> Any:
    """With drop-ins while it is traced, and as it was afterwards."""
    import warnings

    import torch

    from fastprompt.models import accelerate, undo

    before = [(module, type(module)) for module in model.modules()]
    accelerate(model)
    try:
        with exporting(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch.onnx: an axis named twice, a deprecation
            options: dict[str, Any] = {"opset_version": OPSET, "external_data": False, **names}
            program = torch.onnx.export(
                model, args, dynamo=True, verbose=False, custom_translation_table=table(), **options
            )
            assert program is not None
            return program.model_proto
    finally:
        for module, kind in before:
            if type(module) is not kind:
                undo(module)


def finish(proto: Any, flavor: str) -> tuple[Any, Any]:
    """The file of a flavor, and one for the comparison, which runs without our library where that is possible."""
    import onnx
    import onnx.inliner

    plain = onnx.ModelProto()
    plain.CopyFrom(proto)
    try:
        attach(plain, rename=flavor != "portable")
    except ValueError:
        if flavor != "plugin":
            raise
        return proto, proto  # nothing but our library can run it
    inlined = onnx.inliner.inline_local_functions(plain) if flavor != "portable" else plain
    finished = {"portable": plain, "plugin": proto, "inlined": inlined}[flavor]
    onnx.checker.check_model(finished, full_check=True)
    return finished, inlined


def counts(model: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for node in our_nodes(model.graph):
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return found
