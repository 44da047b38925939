"""A file as TensorRT's parsers read it: every node of ours either a plugin or standard ONNX, whatever their order of
precedence is; and what they would refuse, said before they are asked."""

from collections.abc import Callable
from typing import Any

from fastprompt.export._nodes import DOMAIN
from fastprompt.export._onnx.functions import function_of, kept_by, node_attributes, our_nodes
from fastprompt.export._onnx.inspecting import TOPK
from fastprompt.export._tensorrt.profiles import Range, dynamic_axes

OLDEST = 17  # opset: LayerNormalization; bodies need 18
BODIES = "fastprompt.body"  # domain of the functions that are about to be inlined
TYPES = {1, 2, 3, 6, 7, 9, 10, 16}  # float32, uint8, int8, int32, int64, bool, float16, bfloat16
REFUSED = {
    "NonZero": "its size depends on the numbers: TensorRT needs an output allocator and a bound",
    "OneHot": "TensorRT cannot use it in a shape",
    "If": "TensorRT builds both branches, and fails where their ranks differ",
}


def lowered(model: Any, why_not: Callable[[Any], str | None]) -> tuple[Any, list[str]]:
    """A copy in which our nodes without a plugin are standard ONNX, and a line on each kind of node. ``why_not``: why
    a node has no plugin, None where it has one.

    ValueError where a node has neither a plugin nor a form in standard ONNX."""
    import onnx
    import onnx.inliner

    made = onnx.ModelProto()
    made.CopyFrom(model)
    opset = {o.domain: o.version for o in made.opset_import}.get("", 0)
    functions = [f for f in made.functions if f.domain != DOMAIN]
    lines: dict[str, int] = {}
    for node in our_nodes(made.graph):
        reason = why_not(node)
        text = f"{node.op_type}: plugin" if reason is None else f"{node.op_type}: function form, {reason}"
        lines[text] = lines.get(text, 0) + 1
        if reason is not None:
            function = body(node, opset)
            function.name, function.domain = f"{node.op_type}_{len(functions)}", BODIES
            node.op_type, node.domain = function.name, BODIES
            functions.append(function)
    del made.functions[:]
    made.functions.extend(functions)
    made.opset_import.append(onnx.helper.make_opsetid(BODIES, 1))
    made = onnx.inliner.inline_local_functions(made) if functions else made
    for unused in [o for o in made.opset_import if o.domain == BODIES]:
        made.opset_import.remove(unused)
    return made, [f"{count} x {text}" for text, count in lines.items()]


def body(node: Any, opset: int) -> Any:
    try:
        return function_of(node.op_type, node_attributes(node), opset, for_tensorrt=True)
    except ValueError as error:
        raise ValueError(
            f"onnx has a node {node.op_type} that has no plugin here and no form in standard ONNX: {error}"
        ) from None


def check(model: Any) -> None:
    """ValueError: an opset or a dtype that no version of TensorRT takes, TopK over its limit."""
    import numpy as np
    import onnx

    opset = {o.domain: o.version for o in model.opset_import}.get("", 0)
    if opset < OLDEST:
        raise ValueError(f"onnx must be of opset {OLDEST} or newer, got {opset}: export it again with a newer one")
    names = onnx.TensorProto.DataType.Name
    for value in [*model.graph.input, *model.graph.output]:
        kind = value.type.tensor_type.elem_type
        if kind not in TYPES:
            known = ", ".join(names(x).lower() for x in sorted(TYPES))
            raise ValueError(f"onnx has {value.name} of type {names(kind).lower()}; TensorRT has {known}")
    constants = {x.name: onnx.numpy_helper.to_array(x) for x in model.graph.initializer if x.data_type == 7}
    constants |= {n.output[0]: constant(n) for n in model.graph.node if n.op_type == "Constant"}
    for node in model.graph.node:
        kept = constants.get(node.input[1]) if node.op_type == "TopK" else None
        if kept is not None and np.max(kept, initial=0) > TOPK:
            raise ValueError(f"onnx has a TopK of {np.max(kept)}: TensorRT takes at most {TOPK}")


def constant(node: Any) -> Any:
    import onnx

    value = onnx.helper.get_attribute_value(node.attribute[0])
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def check_pruning(model: Any, found: dict[str, Range], why_not: Callable[[Any], str | None]) -> None:
    """ValueError: a node that keeps more tokens than there are, or than TensorRT's TopK takes."""
    import onnx.shape_inference

    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {v.name: v.type.tensor_type.shape.dim for v in [*graph.value_info, *graph.input]}
    for node in our_nodes(model.graph):
        count, reason = kept_by(node), why_not(node)
        if not count:
            continue
        if count > TOPK and reason is not None:
            raise ValueError(
                f"onnx keeps {count} tokens in {node.op_type}, and TensorRT's TopK takes at most {TOPK}: "
                f"keep fewer, or use the plugin (function form, {reason})"
            )
        axis = shapes[node.input[0]][1] if len(shapes.get(node.input[0], ())) > 1 else None
        if axis is not None and axis.dim_param in found and found[axis.dim_param].smallest < count:
            raise ValueError(
                f"profile of {axis.dim_param} must start at {count} or more, which {node.op_type} keeps, got "
                f"{found[axis.dim_param]}"
            )


def notes(model: Any) -> list[str]:
    kinds = {node.op_type for node in model.graph.node}
    found = [f"{kind}: {why}" for kind, why in REFUSED.items() if kind in kinds]
    if any(node.op_type == "Loop" for node in model.graph.node):
        found.append("Loop: distances as standard ONNX relax all pixels at once; the plugin is far quicker")
    if not dynamic_axes(model):
        found.append("all shapes are fixed: the engine takes no others")
    return found
