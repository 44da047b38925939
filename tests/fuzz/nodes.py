"""The door of ONNX files: their nodes."""

import functools

from fuzz.outcomes import attempt, differs
from fuzz.values import Draw, change

import fastprompt as fp


@functools.cache
def node_cases():
    import export_cases

    return {name: export_cases.found(name) for name in export_cases.CASES}


def nodes(seed):
    """Most through the C interface; some in ONNX Runtime, where a session takes a thousand times as long."""
    draw = Draw(f"nodes {seed}")
    name = draw.choice(list(node_cases()))
    case = node_cases()[name]
    operator = name.partition(",")[0]
    inputs, attributes = list(case.inputs), dict(case.attributes)
    what = []
    for _ in range(draw.choice((0, 1, 1, 1, 2))):
        if attributes and draw.random() < 0.6:
            key = draw.choice(list(attributes))
            attributes[key] = change(draw, attributes[key])[1]
            what.append(f"{key}={attributes[key]}"[:60])
        else:
            k = draw.randrange(len(inputs))
            way, inputs[k] = change(draw, inputs[k])
            what.append(f"{k}:{way}")
    what = " ".join(what)
    if not all(fits_node(x) for x in attributes.values()) or not all(
        x.dtype.name in NAMES and x.dtype.isnative for x in inputs
    ):
        return "refused"  # no such file can be written
    in_session = seed % 200 == 0
    found = attempt(name, what, run_session if in_session else run_node, operator, inputs, attributes)
    if isinstance(found, Exception):
        return "refused"
    if not what:
        differs(name, what, found, case.want)
    return "right"


NAMES = ("float32", "float64", "float16", "uint8", "bool", "int32", "int64")


def fits_node(x):
    items = x if isinstance(x, (list, tuple)) else [x]
    return x is not None and all(not isinstance(y, int) or -(2**63) <= y < 2**63 for y in items) and None not in items


def run_node(operator, inputs, attributes):
    from fastprompt.export._library import Node

    return Node(operator, attributes).run(inputs)


def run_session(operator, inputs, attributes):
    import onnx
    import onnxruntime

    helper, numbers = onnx.helper, onnx.helper.np_dtype_to_tensor_dtype
    names = [f"in{n}" for n in range(len(inputs))]
    from fastprompt.export._library import Node

    outputs = [f"out{n}" for n in range(len(Node(operator, attributes).described()[1]))]
    made = helper.make_node(
        operator, names, outputs, domain="fastprompt", **{k: v for k, v in attributes.items() if v != []}
    )
    given = [helper.make_tensor_value_info(n, numbers(x.dtype), x.shape) for n, x in zip(names, inputs, strict=True)]
    kinds = Node(operator, attributes).outputs([(list(x.shape), numbers(x.dtype)) for x in inputs])
    results = [helper.make_tensor_value_info(n, kind, None) for n, (_, kind) in zip(outputs, kinds, strict=True)]
    graph = helper.make_graph([made], "fuzz", given, results)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("fastprompt", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    options = fp.export.onnxruntime.register(onnxruntime.SessionOptions())
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return session.run(None, dict(zip(names, inputs, strict=True)))
    except Exception as error:  # of the runtime, whose exceptions have no common class
        raise ValueError(str(error)) from None
