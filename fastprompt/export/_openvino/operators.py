"""Our nodes as Python operators of OpenVINO, where its C++ extension cannot be built. Imported only where it is."""

from typing import Any

import numpy as np
import openvino
from openvino import Op, PartialShape, Type
from openvino.frontend.onnx import ConversionExtension

from fastprompt.export._library import Node
from fastprompt.export._nodes import DOMAIN, RECORDS

# ONNX's numbers of OpenVINO's types.
TYPES = {1: Type.f32, 2: Type.u8, 6: Type.i32, 7: Type.i64, 9: Type.boolean, 10: Type.f16, 11: Type.f64, 16: Type.bf16}


def known(node: Any, n: int) -> tuple[list[int] | None, int]:
    """What is known of input n: sizes, -1 for an axis that is not known, and the number of its type."""
    shape, kind = node.get_input_partial_shape(n), node.get_input_element_type(n)
    number = next((number for number, t in TYPES.items() if t == kind), 1)
    return [d.get_length() if d.is_static else -1 for d in shape] if shape.rank.is_static else None, number


def operator(name: str) -> Any:
    """A class of nodes."""

    class OurNode(Op):
        class_type_info = openvino.DiscreteTypeInfo(name, DOMAIN)

        def __init__(self, inputs: Any = None, attributes: dict[str, Any] | None = None) -> None:
            super().__init__(self)
            self.attributes = attributes or {}
            self.node = Node(name, self.attributes)
            if inputs is not None:
                self.set_arguments(inputs)
                self.constructor_validate_and_infer_types()

        def get_type_info(self) -> Any:
            return OurNode.class_type_info

        def validate_and_infer_types(self) -> None:
            found = self.node.outputs([known(self, n) for n in range(self.get_input_size())])
            self.set_output_size(len(found))
            for n, (shape, number) in enumerate(found):
                self.set_output_type(n, TYPES[number], PartialShape(shape))

        def clone_with_new_inputs(self, inputs: Any) -> Any:
            return OurNode(inputs, self.attributes)

        def has_evaluate(self) -> bool:
            return True

        def evaluate(self, outputs: Any, inputs: Any) -> bool:
            for out, x in zip(outputs, self.node.run([np.asarray(x.data) for x in inputs]), strict=True):
                out.shape = x.shape
                out.data[:] = x
            return True

    OurNode.__name__ = name
    return OurNode


def extension(name: str) -> Any:
    kind, fields = operator(name), RECORDS[name].attributes

    def convert(node: Any) -> Any:
        found = {}
        for key, form in fields.items():
            value = node.get_attribute(key, None if form not in ("ints", "floats") else [])
            found[key] = list(value) if form in ("ints", "floats") else value
        inputs = [node.get_input(n) for n in range(node.get_input_size())]
        return kind(inputs, found).outputs()

    return ConversionExtension(name, DOMAIN, convert)


def extensions() -> list[Any]:
    return [extension(name) for name in RECORDS]
