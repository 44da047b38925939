"""float16 and bfloat16 for engines: casts in the graph, because a strongly typed network has the types of its file.

The rule is that of ``torch.autocast``: products and convolutions take half the bytes, and what only moves or adds their
results stays with them; LayerNorm, softmax, exponentials, sums, and whatever adds a float32 tensor (a residual stream)
are float32. Tensors that reach a sine or cosine are positions, and stay float32 from the input on.
"""

from typing import Any

PRODUCTS = {"MatMul", "Gemm", "Conv", "ConvTranspose"}
# Half in, half out, where no float32 tensor comes in beside.
CARRIERS = {
    "Add", "Sub", "Mul", "Relu", "Reshape", "Transpose", "Concat", "Split", "Slice", "Squeeze", "Unsqueeze", "Expand",
    "Pad", "Identity", "Flatten", "DepthToSpace", "SpaceToDepth",
}  # fmt: skip
DATA = {"Reshape": 1, "Slice": 1, "Squeeze": 1, "Unsqueeze": 1, "Expand": 1, "Split": 1}  # inputs that are not shapes
TYPES = {"float16": 10, "bfloat16": 16}
FLOAT = 1


def ancestors_of_angles(graph: Any) -> set[str]:
    """Names of all tensors that a sine or cosine depends on."""
    made_by = {name: node for node in graph.node for name in node.output}
    found: set[str] = set()
    waiting = [x for node in graph.node if node.op_type in ("Sin", "Cos") for x in node.input]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += made_by[name].input if name in made_by else ()
    return found


class Casting:
    """One pass over the nodes, in their order."""

    def __init__(self, model: Any, precision: str, halves: set[str]) -> None:
        import onnx.shape_inference

        self.to, self.nodes = TYPES[precision], []  # type: ignore[var-annotated]
        # TensorRT-RTX 1.7 has no ConvTranspose in bfloat16 ("Could not infer output types for operation: deconv").
        self.products = (PRODUCTS - {"ConvTranspose"} if precision == "bfloat16" else PRODUCTS) | halves
        self.exact = ancestors_of_angles(model.graph)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self.types = {x.name: x.data_type for x in model.graph.initializer}
        for value in [*inferred.value_info, *inferred.input, *inferred.output]:
            self.types[value.name] = value.type.tensor_type.elem_type
        self.weights = {x.name: x for x in model.graph.initializer}
        self.constants = set(self.weights)
        self.half: set[str] = set()  # tensors that are half by now
        self.casts: dict[tuple[str, int], str] = {}
        self.halved: list[Any] = []  # weights
        self.outputs = {x.name for x in model.graph.output}

    def cast(self, name: str, to: int) -> str:
        """The name of ``name`` as ``to``."""
        import onnx

        if (name, to) not in self.casts:
            self.casts[name, to] = made = f"{name}_{'float32' if to == FLOAT else 'half'}"
            if name in self.weights:
                self.halved.append(halved(self.weights[name], made, to))
            else:
                self.nodes.append(onnx.helper.make_node("Cast", [name], [made], f"cast_{made}", to=to))
        return self.casts[name, to]

    def floats(self, node: Any) -> list[int]:
        """Places of the inputs that hold numbers of the model."""
        inputs = list(node.input)[: DATA.get(node.op_type)]
        return [k for k, x in enumerate(inputs) if x and (x in self.half or self.types.get(x) == FLOAT)]

    def takes_half(self, node: Any, places: list[int]) -> bool:
        if any(x in self.exact for x in node.output):
            return False
        names = [node.input[k] for k in places]
        if node.op_type in self.products:
            return bool(names)
        others = [x for x in names if x not in self.half and x not in self.constants]
        return node.op_type in CARRIERS and any(x in self.half for x in names) and not others

    def visit(self, node: Any) -> None:
        given = [x for x in node.input if x]
        if all(x in self.constants for x in given[: 1 if node.op_type == "CastLike" else None]):
            self.constants.update(node.output)
        places = self.floats(node)
        to_half = self.takes_half(node, places)
        for k in places:
            if (node.input[k] in self.half) != to_half:
                node.input[k] = self.cast(node.input[k], self.to if to_half else FLOAT)
        self.as_given(node)
        self.nodes.append(node)
        if to_half:
            results = [x for x in node.output if self.types.get(x, FLOAT) == FLOAT]
            self.half.update(results)
            for name in filter(self.outputs.__contains__, results):
                self.keep_output(node, name)

    def as_given(self, node: Any) -> None:
        """CastLike follows its second input, and subgraphs read tensors of the graph around them: both see float32."""
        for attribute in node.attribute:
            for inner in attribute.g.node if attribute.HasField("g") else ():
                for k, x in enumerate(inner.input):
                    if x in self.half:
                        inner.input[k] = self.cast(x, FLOAT)

    def keep_output(self, node: Any, name: str) -> None:
        """An output of the model stays float32 under its name."""
        import onnx

        made = f"{name}_half"
        node.output[list(node.output).index(name)] = made
        self.half.discard(name)
        self.half.add(made)
        self.nodes.append(onnx.helper.make_node("Cast", [made], [name], f"cast_{name}", to=FLOAT))


def halved(tensor: Any, name: str, to: int) -> Any:
    import numpy as np
    import onnx

    values = onnx.numpy_helper.to_array(tensor)
    if to == TYPES["float16"]:
        return onnx.numpy_helper.from_array(values.astype(np.float16), name)
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)  # to nearest, ties to even
    return onnx.helper.make_tensor(name, to, tensor.dims, rounded.tobytes(), raw=True)


def cast_model(model: Any, precision: str, halves: set[str]) -> Any:
    """A copy of ``model`` whose products are in ``precision``. ``halves``: plugins that take it as well."""
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    work = Casting(made, precision, halves)
    nodes = list(made.graph.node)
    for node in nodes:
        work.visit(node)
    used = {x for node in work.nodes for x in node.input} | captured(work.nodes)
    weights = [x for x in [*made.graph.initializer, *work.halved] if x.name in used]
    for field, values in ((made.graph.node, work.nodes), (made.graph.initializer, weights)):
        del field[:]
        field.extend(values)
    del made.graph.value_info[:]  # of types that are others now
    for opset in made.opset_import:
        if opset.domain == "" and precision == "bfloat16":
            opset.version = max(opset.version, 22)  # the first one with Conv of bfloat16; nothing else changed since 20
    return made


def captured(nodes: Any) -> set[str]:
    """Names that the bodies of Loop and If read."""
    found: set[str] = set()
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= {x for inner in attribute.g.node for x in inner.input} | captured(attribute.g.node)
                found |= {x.name for x in attribute.g.output}
    return found
