"""Our nodes as Python operators of OpenVINO. Imported only where it is."""

from typing import Any

import numpy as np
import openvino
from openvino import Op, PartialShape, Type
from openvino.frontend.onnx import ConversionExtension

from fastprompt.export._kernels import run
from fastprompt.export._operators import DOMAIN, OPERATORS

FLOATS = ("f16", "f32", "f64")


def shape(node: Any, n: int) -> list[Any]:
    """Sizes of input n; unknown ones where its rank is not known."""
    found = node.get_input_partial_shape(n)
    return list(found) if found.rank.is_static else []


def outputs_of(node: Any, name: str, a: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Type and shape of every output."""
    own, first, integer = node.get_input_element_type(0), shape(node, 0), Type.i64
    unknown = openvino.Dimension()

    def of(n: int, *axes: int) -> list[Any]:
        sizes = shape(node, n)
        return [sizes[k] if sizes else unknown for k in axes]

    if name == "TwoWayTransformer":
        return [(own, of(2, 0, 1, 2)), (own, [*of(2, 0), *of(0, 1, 2, 3)])]
    if name == "MaskHead":
        sides = [openvino.Dimension(4 * d.get_length()) if d.is_static else unknown for d in of(0, 2, 3)]
        return [(own, [*of(1, 0, 1), *sides])]
    if name in ("ResizeMasks", "ResizeLogits"):
        height, width = a["size"]
        width = (width + 7) // 8 if a.get("packed") else width
        count, kind = of(0, 0), Type.u8 if "packed" in a else Type.f32
        return [(kind, [*count, height, width]), (integer, count), (integer, [*count, 4]), (Type.f32, count)]
    if name.startswith("PromptToImage"):
        return [(own, of(2, 0, 1, 2, 3))]
    if name.startswith("ImageToPrompt"):
        return [(own, [*of(2, 0), *of(0, 1, 2, 3)])]
    if name in ("EuclideanDistanceTransform", "GeodesicDistance"):
        return [(Type.f32, of(0 if name.startswith("E") else 1, 0, 1, 2, 3, 4))]
    if name == "CosineScores":
        return [(own, of(0, 0, 1))]
    if name == "PruneTokens":
        return [(own, [*of(0, 0), a["count"], *of(0, 2)]), (integer, [*of(0, 0), a["count"]])]
    if name == "GatherTokens":
        return [(own, [*of(1, 0, 1), *of(0, 2)])]
    if name == "ScatterTokens":
        return [(own, [*of(1, 0), a["count"], *of(1, 2)])]
    if name == "MatchTokens":
        (count,) = of(0, 1)
        rest = openvino.Dimension(count.get_length() - a["merged"]) if count.is_static else unknown
        return [(integer, [*of(0, 0), rest]), (integer, of(0, 0, 1))]
    if name == "MergeTokens":
        return [(own, [*of(2, 0, 1), *of(0, 2)])]
    return [(own, first or PartialShape.dynamic())]


def operator(name: str) -> Any:
    """A class of nodes."""

    class OurNode(Op):
        class_type_info = openvino.DiscreteTypeInfo(name, DOMAIN)

        def __init__(self, inputs: Any = None, attributes: dict[str, Any] | None = None) -> None:
            super().__init__(self)
            self.attributes = attributes or {}
            self.memory: dict[str, Any] = {}
            if inputs is not None:
                self.set_arguments(inputs)
                self.constructor_validate_and_infer_types()

        def get_type_info(self) -> Any:
            return OurNode.class_type_info

        def validate_and_infer_types(self) -> None:
            found = outputs_of(self, name, self.attributes)
            self.set_output_size(len(found))
            for n, (kind, sizes) in enumerate(found):
                self.set_output_type(n, kind, sizes if isinstance(sizes, PartialShape) else PartialShape(sizes))

        def clone_with_new_inputs(self, inputs: Any) -> Any:
            return OurNode(inputs, self.attributes)

        def has_evaluate(self) -> bool:
            return True

        def evaluate(self, outputs: Any, inputs: Any) -> bool:
            found = run(name, [np.asarray(x.data) for x in inputs], self.attributes, self.memory)
            for out, x in zip(outputs, found, strict=True):
                out.shape = x.shape
                out.data[:] = x
            return True

    OurNode.__name__ = name
    return OurNode


def extension(name: str) -> Any:
    kind, fields = operator(name), OPERATORS[name].attributes

    def convert(node: Any) -> Any:
        found = {}
        for key, form in fields.items():
            value = node.get_attribute(key, None if form not in ("ints", "floats") else [])
            found[key] = list(value) if form in ("ints", "floats") else value
        inputs = [node.get_input(n) for n in range(node.get_input_size())]
        return kind(inputs, found).outputs()

    return ConversionExtension(name, DOMAIN, convert)


def extensions() -> list[Any]:
    return [extension(name) for name in OPERATORS]
