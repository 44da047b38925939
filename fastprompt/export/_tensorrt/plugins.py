"""Which of our nodes become plugins of TensorRT, with kernels where the plugin does not have its own; and why not."""

import ctypes
import os
from typing import Any

from fastprompt.export._kernels.plans import TYPES, NoPlan, Tensor, need
from fastprompt.export._nodes import PLUGIN, RECORDS
from fastprompt.export._onnx.functions import node_attributes, our_nodes
from fastprompt.export._tensorrt.profiles import Range

WITH_PTX = "1.ptx"  # version of the plugins that take their kernels from the node
PRODUCTS = {"float32": "tf32x3", "tf32": "tf32", "float16": "ieee", "bfloat16": "ieee"}  # of float32 tensors in Triton


def plugins_of(path: Any) -> set[tuple[str, str]]:
    """Names and versions in a library of ours."""
    file = os.fspath(path)
    if not os.path.exists(file):
        raise ValueError(f"plugins must be the path of libfastprompt_tensorrt.so, and there is no {file!r}")
    try:
        ask = ctypes.CDLL(file).fastprompt_plugins
    except (OSError, AttributeError) as error:
        raise ValueError(f"plugins must be the path of libfastprompt_tensorrt.so, got {file!r}: {error}") from None
    ask.restype = ctypes.c_char_p
    return {(name, version) for name, _, version in (x.partition(" ") for x in ask().decode().splitlines())}


class Library:
    """The plugins of the file at ``path``, or none, for the nodes of ``model``."""

    def __init__(self, path: Any, model: Any, precision: str) -> None:
        self.known = set() if path is None else plugins_of(path)
        self.missing = "no plugin library was given" if path is None else "not found in the plugin library"
        self.model, self.precision = model, precision
        self.refused: dict[str, str] = {}  # by the first output of a node: why it gets no plugin
        self.halves = {name for name, record in RECORDS.items() if record.halves} if self.known else set()

    def why_not(self, node: Any) -> str | None:
        """None: the node is a plugin."""
        return self.refused.get(node.output[0])

    def versions(self, name: str) -> set[str]:
        return {version for known, version in self.known if known == name}

    def annotated(self, found: dict[str, Range]) -> Any:
        """A copy of the model in which the nodes that get plugins carry what those need."""
        import onnx

        made = onnx.ModelProto()
        made.CopyFrom(self.model)
        tensors = tensors_of(made, found)
        top = {node.output[0] for node in made.graph.node}
        for node in our_nodes(made.graph):
            try:
                need(bool(self.versions(node.op_type)), self.missing)
                need(node.output[0] in top, "it stands in a Loop or If")
                self.prepare(node, made, tensors)
            except NoPlan as why:
                self.refused[node.output[0]] = str(why)
        return made

    def prepare(self, node: Any, model: Any, tensors: dict[str, Tensor]) -> None:
        import onnx

        need(all(x in tensors for x in node.input), "the shapes of its inputs are unknown")
        given, attributes = [tensors[x] for x in node.input], node_attributes(node)
        record = RECORDS[node.op_type]
        if record.own_plugin is not None:
            record.own_plugin(given, attributes)
            for place, to in enumerate(record.plugin_types):
                cast_input(model.graph, node, place, given[place], to)
            return
        halved = self.precision in TYPES_OF_HALVES and record.halves
        if halved:
            half = TYPES_OF_HALVES[self.precision]
            given = [x._replace(type=half) if x.type == "f32" else x for x in given]
        if record.plan is None:
            raise NoPlan("it has no kernels")
        plan = record.plan(given, attributes, PRODUCTS[self.precision])
        for attribute in [a for a in node.attribute if a.name in (*PLUGIN, "plan", "ptx")]:
            node.attribute.remove(attribute)
        carried = PLUGIN | {"plugin_version": WITH_PTX, "plan": plan.text, "ptx": plan.ptx}
        node.attribute.extend(onnx.helper.make_attribute(k, v) for k, v in carried.items())


TYPES_OF_HALVES = {"float16": "f16", "bfloat16": "bf16"}


def cast_input(graph: Any, node: Any, place: int, tensor: Tensor, to: int) -> None:
    """TensorRT hands no uint8 to a plugin."""
    import onnx

    if tensor.type == TYPES[to]:
        return
    name = f"{node.output[0]}_input{place}"
    position = next(n for n, other in enumerate(graph.node) if other.output[:1] == node.output[:1])
    graph.node.insert(position, onnx.helper.make_node("Cast", [node.input[place]], [name], f"cast_{name}", to=to))
    node.input[place] = name


def tensors_of(model: Any, found: dict[str, Range]) -> dict[str, Tensor]:
    """What is known of every tensor of the model's own graph."""
    import onnx.shape_inference

    graph = onnx.shape_inference.infer_shapes(model).graph
    known = {}
    for value in [*graph.value_info, *graph.input, *graph.output]:
        tensor = value.type.tensor_type
        kind = {2: "u8"}.get(tensor.elem_type, TYPES.get(tensor.elem_type))
        if kind is None or not tensor.HasField("shape"):
            continue
        sizes: list[int | None] = []
        for k, axis in enumerate(tensor.shape.dim):
            name = axis.dim_param or f"{value.name}.{k}"
            largest = found[name].largest if name in found else None
            sizes.append(axis.dim_value if axis.HasField("dim_value") else largest)
        known[value.name] = Tensor(kind, tuple(sizes), tuple(x.HasField("dim_value") for x in tensor.shape.dim))
    for weight in graph.initializer:
        if weight.data_type in TYPES:
            sizes = list(weight.dims)
            known[weight.name] = Tensor(TYPES[weight.data_type], tuple(sizes), (True,) * len(sizes))
    return known
