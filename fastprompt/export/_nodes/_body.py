"""Standard ONNX written as expressions: ``g.Softmax(x @ y + 1.0, axis=-1)`` adds five nodes to a body."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

from fastprompt.export._nodes._record import DOMAIN, PLUGIN, Record

OPSET = 20  # of ONNX, that the bodies are written in
FLOAT, BOOL, INT64 = 1, 9, 7  # ONNX's numbers
UNTIL_DONE = 2**63 - 1  # steps of a loop
REFERENCES = {"int": "value_int", "float": "value_float", "ints": "value_ints", "floats": "value_floats"}


def _both(name: str) -> tuple[Any, Any]:
    """``x + other`` and ``other + x``."""
    return lambda x, other: x.g.emit(name, x, other), lambda x, other: x.g.emit(name, other, x)


class Value:
    """A tensor of a body. Numbers beside it are constants: a float has the type of the body's floats, an int is int64,
    a list of ints a shape, and "@eps" the node's attribute, which stays a reference."""

    def __init__(self, g: "Graph", of: Any) -> None:
        self.g, self.of = g, of  # the name, or onnxscript's tensor

    __add__, __radd__ = _both("Add")
    __sub__, __rsub__ = _both("Sub")
    __mul__, __rmul__ = _both("Mul")
    __truediv__, __rtruediv__ = _both("Div")
    __matmul__, __rmatmul__ = _both("MatMul")
    __and__, __rand__ = _both("And")
    __or__, __ror__ = _both("Or")
    __lt__, __gt__ = _both("Less")
    __le__, __ge__ = _both("LessOrEqual")

    def __neg__(self) -> "Value":
        return self.g.Neg(self)

    def __invert__(self) -> "Value":
        return self.g.Not(self)

    def size(self, axis: int) -> "Value":
        """Of an axis, as a list of one."""
        return self.shape(axis, axis + 1)

    def shape(self, start: int | None = None, end: int | None = None) -> "Value":
        return self.g.Shape(self, start=start, end=end)

    def reshape(self, shape: Any, allowzero: int | None = None) -> "Value":
        return self.g.Reshape(self, shape, allowzero=allowzero)

    def turned(self, *perm: int) -> "Value":
        return self.g.Transpose(self, perm=list(perm))

    def unsqueezed(self, *axes: int) -> "Value":
        return self.g.Unsqueeze(self, list(axes))

    def cast(self, to: int) -> "Value":
        return self.g.Cast(self, to=to)


class Graph:
    """The body of a node. ``g.Gather(x, rows, axis=1)`` is any operator of ONNX, ``g.a`` the node's attributes.

    ``like``: floats are constants of its type; None: float32.
    """

    def __init__(self, kinds: dict[str, str], attributes: dict[str, Any]) -> None:
        self.kinds, self.a = kinds, attributes
        self.like: Value | None = None
        self.nodes: list[Any] = []  # those of the innermost loop
        self._body, self._numbers = self.nodes, itertools.count()
        self._constants: dict[Any, Value] = {}

    def __getattr__(self, name: str) -> Callable[..., Value]:
        if not name[0].isupper():
            raise AttributeError(name)
        return functools.partial(self.emit, name)

    def emit(self, name: str, *inputs: Any, **attributes: Any) -> Value:
        return self.several(1, name, *inputs, **attributes)[0]

    def several(self, outputs: int, name: str, *inputs: Any, **attributes: Any) -> list[Value]:
        """An operator with several outputs."""
        given = [None if x is None else self.value(x).of for x in inputs]
        made = self.add(name, given, outputs, {k: v for k, v in attributes.items() if v is not None})
        return [Value(self, x) for x in made]

    def add(self, name: str, inputs: list[Any], outputs: int, attributes: dict[str, Any]) -> list[Any]:
        """A node; the names of its outputs."""
        import onnx

        made = [f"{name.lower()}{next(self._numbers)}" for _ in range(outputs)]
        refers = lambda value: isinstance(value, str) and value[:1] == "@"  # noqa: E731
        own = {k: v for k, v in attributes.items() if not refers(v)}
        node = onnx.helper.make_node(name, [x or "" for x in inputs], made, **own)
        for key, text in attributes.items():
            if refers(text):
                kind = getattr(onnx.AttributeProto, self.kinds[text[1:]].upper())
                node.attribute.add(name=key, ref_attr_name=text[1:], type=kind)
        self.nodes.append(node)
        return made

    def value(self, x: Any) -> Value:
        """Constants stand in the outermost body, once."""
        if isinstance(x, Value):
            return x
        if isinstance(x, str):
            kind = self.kinds[x[1:]]
        else:
            x = [int(n) for n in x] if isinstance(x, (list, tuple)) else x
            kind = "ints" if isinstance(x, list) else "float" if isinstance(x, float) else "int"
        key = kind, repr(x)
        if key not in self._constants:
            self.nodes, inner = self._body, self.nodes
            made = self.emit("Constant", **{REFERENCES[kind]: x})
            cast = kind == "float" and self.like is not None
            self._constants[key] = self.emit("CastLike", made, self.like) if cast else made
            self.nodes = inner
        return self._constants[key]

    def loop(
        self, count: Any, carried: list[Value], axes: str, step: Callable[..., Any], scans: int = 0
    ) -> list[Value]:
        """``step(k, *carried)`` gives whether to go on (None: always), the carried tensors anew, and those of which all
        are kept, ``scans``. ``axes``: a letter for each axis of all these, which are float32."""
        import onnx

        helper, outer = onnx.helper, self.nodes
        yes = self.Cast(self.value(1), to=BOOL)
        body: list[Any] = []
        self.nodes = body
        names = [f"loop{next(self._numbers)}" for _ in range(2 + len(carried))]
        found = step(Value(self, names[0]), *(Value(self, n) for n in names[2:]))
        going, *made = [self.Identity(Value(self, names[1])) if x is None else x for x in found]
        tensor = lambda name: helper.make_tensor_value_info(name, FLOAT, list(axes))  # noqa: E731
        number = lambda name, kind: helper.make_tensor_value_info(name, kind, [])  # noqa: E731
        given = [number(names[0], INT64), number(names[1], BOOL), *map(tensor, names[2:])]
        results = [number(going.of, BOOL), *(tensor(x.of) for x in made)]
        graph = helper.make_graph(body, f"{names[0]}_body", given, results)
        self.nodes = outer
        return self.several(len(carried) + scans, "Loop", count, yes, *carried, body=graph)


def function(record: Record, attributes: dict[str, Any], opset: int, body: Callable[..., Any]) -> Any:
    """``body`` as a FunctionProto; its outputs get the names of the record's."""
    import onnx

    g = Graph(record.attributes, attributes)
    inputs = {name: Value(g, name) for name in record.input_names(attributes)}
    g.like = next((inputs[n] for n, letter in record.inputs.items() if n in inputs and letter[0] == "T"), None)
    g.like = g.like or (next(iter(inputs.values())) if "T+" in record.inputs.values() else None)
    made = body(g, *inputs.values())
    found: list[str] = []
    for value in made if isinstance(made, (list, tuple)) else [made]:
        taken = value.of in inputs or value.of in found
        found.append((g.Identity(value) if taken else value).of)
    for old, new in zip(found, record.outputs, strict=True):
        rename(g.nodes, old, new)
    opsets = [onnx.helper.make_opsetid("", opset)]
    names = [*record.attributes, *PLUGIN]
    return onnx.helper.make_function(
        DOMAIN, record.name, list(inputs), list(record.outputs), g.nodes, opsets, attributes=names
    )


def rename(nodes: list[Any], old: str, new: str) -> None:
    """In bodies of loops as well. ``old`` is made by one of the nodes."""
    for node in nodes:
        for names in (node.input, node.output):
            for k, name in enumerate(names):
                names[k] = new if name == old else name
        for attribute in node.attribute:
            rename(attribute.g.node, old, new)
