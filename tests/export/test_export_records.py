"""What is said of a node in Python and in C++ is the same."""

import ctypes
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="needs the package onnx")

from onnx import ModelProto, helper

from fastprompt.export import _library
from fastprompt.export._nodes import DOMAIN, RECORDS, Record
from fastprompt.export._nodes._record import KINDS
from fastprompt.export._onnx.functions import function_of


def known():
    ask = _library.library().fastprompt_node_name
    ask.restype, ask.argtypes = ctypes.c_char_p, [ctypes.c_int32]
    assert ask(-1) is None
    found = []
    while name := ask(len(found)):
        found.append(name.decode())
    return found


def test_both_have_the_same_nodes():
    assert sorted(RECORDS) == known()


@pytest.mark.parametrize("name", RECORDS)
def test_inputs_outputs_and_attributes(name):
    record = RECORDS[name]
    inputs, outputs, attributes = _library.Node(name, {}).described()
    letters = "".join(letter.partition("?")[0] for letter in record.inputs.values())
    if record.weights:  # in C++ all are one list
        assert set(letters) == {"T", "+"}
        assert inputs == "T+"
    else:
        assert letters == inputs
    assert "".join(record.outputs.values()) == outputs
    pairs = [item.split(":") for item in attributes.split()]
    assert {key: KINDS[letter] for key, letter in pairs} == record.attributes
    assert [key for key, _ in pairs] == list(record.attributes)


def test_a_family_imports_no_other():
    """So that a node is added in one place."""
    for file in Path(_library.__file__).with_name("_nodes").glob("[a-z]*.py"):
        imports = [line for line in file.read_text().splitlines() if "import" in line and "export._nodes" in line]
        assert all("export._nodes._" in line for line in imports), file


@pytest.fixture
def records(monkeypatch):
    """In which one may be added."""
    monkeypatch.setattr("fastprompt.export._nodes._record.RECORDS", RECORDS)
    before = dict(RECORDS)
    yield RECORDS
    RECORDS.clear()
    RECORDS.update(before)


def test_expressions(records):
    """Constants once, with the type of the floats; references stay; a value that is asked for twice, and an input."""

    def body(g, x, n):
        y = (x * 2.0 + "@shift") * 2.0
        return [y, y, n + 1]

    Record("Doubled", "x:T n:i", "y:T z:T m:i", "shift:f", body=body)
    function = function_of("Doubled", {"shift": 0.5})
    kinds = [node.op_type for node in function.node]
    assert kinds.count("Constant") == kinds.count("CastLike") + 1 == 3
    assert [a.ref_attr_name for node in function.node for a in node.attribute if a.ref_attr_name] == ["shift"]
    assert list(function.output) == ["y", "z", "m"]
    made = {name for node in function.node for name in node.output}
    assert {"y", "z", "m"} <= made
    model = helper.make_model(helper.make_graph([], "x", [], []), functions=[function])
    assert ModelProto.FromString(model.SerializeToString()).functions[0].domain == DOMAIN
