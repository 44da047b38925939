# mypy: ignore-errors
"""How onnxscript makes a node of ours. Imported only where it is."""

from typing import Any

import onnx
import onnxscript
from onnxscript import opset20 as op

from fastprompt.export._operators import DOMAIN, OPERATORS, PLUGIN, VERSION

FLOATS = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)"]
OTHERS = [f"tensor({x})" for x in ("int64", "int32", "int8", "uint8", "bool", "int16")]
KINDS = {"int": "INT", "float": "FLOAT", "ints": "INTS", "floats": "FLOATS", "string": "STRING"}


def schema(name: str) -> Any:
    """So that onnxscript knows the node; nothing is registered anywhere."""
    S, operator = onnx.defs.OpSchema, OPERATORS[name]
    inputs, outputs = operator.inputs.split(), operator.outputs.split()
    inputs = inputs[-1:] if inputs[-1] == "…" else inputs  # onnxscript gives the first ones twice beside a variadic one
    types = [f"T{n}" for n in range(len(inputs) + len(outputs))]
    names = [*inputs, *outputs]
    parameters = []
    for n, kind in zip(names, types, strict=True):
        many = n == "…"
        option = S.FormalParameterOption.Variadic if many else S.FormalParameterOption.Single
        parameters.append(S.FormalParameter("weights" if many else n, kind, param_option=option))
    attributes = [
        S.Attribute(k, getattr(S.AttrType, KINDS[v]), "", required=False) for k, v in operator.attributes.items()
    ]
    attributes += [S.Attribute(k, S.AttrType.STRING, "", required=False) for k in PLUGIN]
    return S(
        name,
        DOMAIN,
        VERSION,
        inputs=parameters[: len(inputs)],
        outputs=parameters[len(inputs) :],
        type_constraints=[(t, FLOATS + OTHERS, "") for t in types],
        attributes=attributes,
    )


NODES = {name: onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, VERSION), name, schema(name)) for name in OPERATORS}


def node(name: str, *inputs: Any, **attributes: Any) -> Any:
    return NODES[name](*inputs, **attributes, **PLUGIN)


def nothing(axes: int) -> Any:
    """Added to anything, it changes nothing: what stands for an input that is not given."""
    return op.Reshape(op.Constant(value_floats=[0.0]), op.Constant(value_ints=[1] * axes))


def endless() -> Any:
    """Lengths of prompts of which all tokens exist."""
    return op.Constant(value_ints=[2**62])
