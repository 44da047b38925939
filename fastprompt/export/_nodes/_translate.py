"""From torch's operators to our nodes: the table of torch.onnx.export. Called only where onnxscript is."""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

from fastprompt.export._nodes._body import REFERENCES, Graph, Value
from fastprompt.export._nodes._record import DOMAIN, PLUGIN, RECORDS, TRANSLATIONS, VERSION, Record

FLOATS = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)"]
OTHERS = [f"tensor({x})" for x in ("int64", "int32", "int8", "uint8", "bool", "int16")]
# The exporter takes an argument without annotation for a tensor, one with it for a number.
ANNOTATIONS = {"int": int, "float": float, "bool": bool, "str": str, "List[int]": Sequence[int],
               "List[float]": Sequence[float], "Optional[float]": float | None}  # fmt: skip
MAKE = {"int": int, "float": float, "string": str, "ints": list, "floats": list}
ENDLESS = 2**62  # lengths of prompts of which all tokens exist


class Traced(Graph):
    """Adds to the graph of torch's exporter, which listens to onnxscript."""

    def add(self, name: str, inputs: list[Any], outputs: int, attributes: dict[str, Any]) -> list[Any]:
        from onnxscript import opset20

        made = getattr(opset20, name)(*inputs, **attributes)
        return list(made) if isinstance(made, Sequence) else [made]

    def ours(self, record: Record, **given: Any) -> Any:
        """Our node: inputs and attributes by name, what is None left out."""
        inputs: list[Any] = []
        for name, letter in record.inputs.items():
            x: Any = given.get(name)
            inputs += x if letter[-1] == "+" else [self.absent(letter) if x is None else x]
        attributes = {key: MAKE[kind](given[key]) for key, kind in record.attributes.items()}
        made = called(record.name)(*(x.of for x in inputs), **attributes, **PLUGIN)
        return [Value(self, x) for x in made] if len(record.outputs) > 1 else Value(self, made)

    def absent(self, letter: str) -> Value:
        """What stands for an input that is not given: added to anything, it changes nothing."""
        kind, _, axes = letter.partition("?")
        if kind == "i":
            return self.value([ENDLESS])
        shape = self.value([1] * int(axes))
        zero: Value = self.Constant(**{REFERENCES["floats"]: [0.0]}).reshape(shape)
        return zero.cast(9) if kind == "a" else zero


def schema(record: Record) -> Any:
    """So that onnxscript knows the node; nothing is registered anywhere."""
    import onnx

    S = onnx.defs.OpSchema
    inputs = list(record.inputs.items())
    inputs = inputs[-1:] if record.weights else inputs  # onnxscript gives the first ones twice beside a variadic one
    options, parameters = S.FormalParameterOption, []
    for n, (name, letter) in enumerate([*inputs, *record.outputs.items()]):
        option = options.Variadic if letter[-1] == "+" else options.Single
        parameters.append(S.FormalParameter(name, f"T{n}", param_option=option))
    kinds = record.attributes | dict.fromkeys(PLUGIN, "string")
    return S(
        record.name,
        DOMAIN,
        VERSION,
        inputs=parameters[: len(inputs)],
        outputs=parameters[len(inputs) :],
        type_constraints=[(f"T{n}", FLOATS + OTHERS, "") for n in range(len(parameters))],
        attributes=[S.Attribute(k, getattr(S.AttrType, v.upper()), "", required=False) for k, v in kinds.items()],
    )


@functools.cache
def called(name: str) -> Any:
    import onnxscript

    return onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, VERSION), name, schema(RECORDS[name]))


def registered() -> Any:
    """All operators of torch, ``torch.ops.fastprompt``."""
    import torch

    import fastprompt.ops._torch  # noqa: F401  registers them

    return torch.ops.fastprompt


def table() -> dict[Any, Any]:
    ops = registered()
    overloads = {name: getattr(ops, name).default for name in TRANSLATIONS}
    return {overload: translation(name, overload._schema) for name, overload in overloads.items()}


def translation(name: str, schema: Any) -> Any:
    """A function with the parameters of torch's operator."""
    names = [argument.name for argument in schema.arguments]

    def translate(*args: Any, **named: Any) -> Any:
        g = Traced({}, {})
        arguments = dict.fromkeys(names) | dict(zip(names, args, strict=False)) | named
        tensors = {a.name for a in schema.arguments if kind_of(a) not in ANNOTATIONS}
        wrapped = {k: wrap(g, x) if k in tensors else x for k, x in arguments.items()}
        g.like = next((x for x in wrapped.values() if isinstance(x, Value)), None)
        made = TRANSLATIONS[name](g, wrapped)
        return [x.of for x in made] if isinstance(made, (list, tuple)) else made.of

    kinds = {a.name: ANNOTATIONS[kind_of(a)] for a in schema.arguments if kind_of(a) in ANNOTATIONS}
    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(n, either, annotation=kinds.get(n, inspect.Parameter.empty)) for n in names]
    translate.__name__, translate.__annotations__ = name, kinds
    translate.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return translate


def kind_of(argument: Any) -> str:
    """A number that may be a size of a tensor comes as a tensor, of no axes; torch calls it int as well."""
    return "SymInt" if argument.real_type.kind() == "SymIntType" else str(argument.type)


def wrap(g: Graph, x: Any) -> Any:
    return [Value(g, item) for item in x] if isinstance(x, (list, tuple)) else None if x is None else Value(g, x)
