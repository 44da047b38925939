"""``fastprompt.export.inspect``: what is ours in a file, and what each runtime does with it."""

import os
from typing import Any, NamedTuple

from fastprompt.export._nodes import DOMAIN
from fastprompt.export._onnx.functions import kept_by, our_nodes

# What runs a file of a flavor, and how.
RUNTIMES = {
    "portable": {
        "ONNX Runtime": "runs it as standard ONNX; our kernels with fastprompt.export.onnxruntime.register(options)",
        "OpenVINO": "does not expand functions: needs fastprompt.export.openvino_extension(), or flavor='inlined'",
        "TensorRT": "fastprompt.export.tensorrt: a plugin where there is one, else standard ONNX; bare: it depends",
        "onnx.reference": "runs it",
    },
    "plugin": {
        "ONNX Runtime": "only with fastprompt.export.onnxruntime.register(options)",
        "OpenVINO": "only with fastprompt.export.openvino_extension()",
        "TensorRT": "fastprompt.export.tensorrt: a plugin where there is one, else standard ONNX; bare: plugins only",
        "onnx.reference": "cannot run it",
    },
    "inlined": {
        name: "runs it as standard ONNX" for name in ("ONNX Runtime", "OpenVINO", "TensorRT", "onnx.reference")
    },
}
OLDEST = 18  # opset whose reductions take their axes as an input
TOPK = 3840  # TensorRT's largest k


class Inspected(NamedTuple):
    """``print`` it."""

    flavor: str
    nodes: dict[str, int]  # ours, and how many of each
    functions: list[str]  # those that have a body in the file
    inputs: dict[str, str]
    outputs: dict[str, str]
    opset: int
    runtimes: dict[str, str]
    notes: list[str]

    def __str__(self) -> str:
        lines = [f"flavor    {self.flavor}, opset {self.opset}"]
        lines += [f"input     {name}: {shape}" for name, shape in self.inputs.items()]
        lines += [f"output    {name}: {shape}" for name, shape in self.outputs.items()]
        for name, count in self.nodes.items():
            lines.append(f"node      {name} x {count}, {'with' if name in self.functions else 'without'} a body")
        lines += [f"{name:20s} {text}" for name, text in self.runtimes.items()]
        return "\n".join(lines + [f"note      {text}" for text in self.notes])


def inspect(path: Any) -> Inspected:
    """What is ours in an ONNX file, and what each runtime will do with it.

    Args:
        path: of the file, or a ``ModelProto``.

    Returns:
        :class:`Inspected`: flavor, nodes, functions, inputs and outputs with their axes, opset, what each runtime does,
        and notes on what a runtime will refuse.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is no ONNX file. TypeError: this is no path.

    Example:
        >>> import fastprompt as fp
        >>> print(fp.export.inspect("decoder.onnx"))  # doctest: +SKIP
    """
    import onnx

    model = path if isinstance(path, onnx.ModelProto) else load(path)
    nodes: dict[str, int] = {}
    for node in our_nodes(model.graph):
        nodes[node.op_type] = nodes.get(node.op_type, 0) + 1
    functions = sorted({f.name for f in model.functions if f.domain == DOMAIN} & set(nodes))
    flavor = "inlined" if not nodes else "portable" if set(functions) == set(nodes) else "plugin"
    opset = {o.domain: o.version for o in model.opset_import}.get("", 0)
    inputs, outputs = ({v.name: axes(v) for v in vs} for vs in (model.graph.input, model.graph.output))
    return Inspected(flavor, nodes, functions, inputs, outputs, opset, RUNTIMES[flavor], notes_on(model))


def load(path: Any) -> Any:
    import onnx

    if not isinstance(path, (str, os.PathLike)):  # a number is a file descriptor to open()
        raise TypeError(f"path must be that of a file or a ModelProto, got {path!r}")
    try:
        model = onnx.load(path)
    except OSError:
        raise
    except Exception as error:  # protobuf's, which has no class of its own in every version, and external data's
        raise ValueError(f"{os.fspath(path)} is no ONNX file: {error}") from None
    if not model.HasField("graph"):  # an empty file is an empty message
        raise ValueError(f"{os.fspath(path)} is no ONNX file: there is no graph in it")
    return model


def axes(value: Any) -> str:
    import onnx

    tensor = value.type.tensor_type
    sizes = ", ".join(d.dim_param or str(d.dim_value) for d in tensor.shape.dim)
    return f"{onnx.TensorProto.DataType.Name(tensor.elem_type).lower()} ({sizes})"


def notes_on(model: Any) -> list[str]:
    """What TensorRT and older tools stumble over."""
    found = []
    kinds = {node.op_type for node in model.graph.node}
    for kind, why in (
        ("OneHot", "TensorRT cannot use it in a shape"),
        ("Tile", "TensorRT wants its repeats as a constant"),
        ("If", "TensorRT builds both branches, and fails where their ranks differ"),
    ):
        if kind in kinds:
            found.append(f"{kind}: {why}")
    for node in our_nodes(model.graph):
        number = kept_by(node)
        if number > TOPK:
            found.append(
                f"{node.op_type} keeps {number} tokens: TensorRT's TopK takes at most {TOPK}, its plugin does not"
            )
    opset = {o.domain: o.version for o in model.opset_import}.get("", 0)
    if model.functions and opset < OLDEST:
        found.append(f"opset {opset}: the bodies are written for {OLDEST} and newer, older ones read them otherwise")
    if any(x.data_location for x in model.graph.initializer):
        found.append("weights are in another file: keep both together")
    return found
