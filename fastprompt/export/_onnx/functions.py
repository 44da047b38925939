"""Model-local functions: bodies of our nodes in the file itself, for runtimes that do not have our library."""

from typing import Any

from fastprompt.export._nodes import DOMAIN, RECORDS
from fastprompt.export._nodes._body import OPSET, function


def node_attributes(node: Any) -> dict[str, Any]:
    import onnx

    plain = lambda x: x.decode() if isinstance(x, bytes) else list(x) if not isinstance(x, (int, float)) else x  # noqa: E731
    return {a.name: plain(onnx.helper.get_attribute_value(a)) for a in node.attribute}


def kept_by(node: Any) -> int:
    """How many a TopK of the node's body keeps; 0: it has none."""
    record = RECORDS.get(node.op_type)
    return int(node_attributes(node).get(record.kept, 0)) if record else 0


def function_of(name: str, attributes: dict[str, Any], opset: int = OPSET, *, for_tensorrt: bool = False) -> Any:
    """The FunctionProto of a node with these attributes."""
    record = RECORDS[name]
    body = (for_tensorrt and record.for_tensorrt) or record.body
    return function(record, attributes, opset, body)


def attach(model: Any, *, rename: bool) -> None:
    """Add the functions of all our nodes to ``model``. Two nodes of a name may need two bodies: ``rename`` tells them
    apart, for a file in which nothing is left of the names; else it is an error."""
    found: dict[str, Any] = {}
    texts: dict[str, list[str]] = {}
    opset = {o.domain: o.version for o in model.opset_import}.get("", OPSET)
    for node in our_nodes(model.graph):
        function = function_of(node.op_type, node_attributes(node), opset)
        known = texts.setdefault(node.op_type, [])
        text = function.SerializeToString()
        if text not in known:
            known.append(text)
        variant = known.index(text)
        if variant and not rename:
            raise ValueError(
                f"a portable file holds one body for every operator, and two nodes of {node.op_type} need different "
                "ones (their attributes differ in more than numbers): use flavor='inlined' or flavor='plugin'"
            )
        if variant:
            function.name = node.op_type = f"{node.op_type}_{variant}"
        found[function.name] = function
    model.functions.extend(found.values())


def our_nodes(graph: Any) -> list[Any]:
    """Nodes of domain ``fastprompt``, those in bodies of Loop and If as well."""
    found = []
    for node in graph.node:
        if node.domain == DOMAIN:
            found.append(node)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += our_nodes(attribute.g)
    return found
