"""Every operator in every runtime, as docs/export_matrix.md has it: ``python tests/export/test_export_matrix.py`` writes it."""

import io
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("torch", reason="needs the package torch")

import export_cases as cases
import matrix_tensorrt
import onnx
from onnx.reference import ReferenceEvaluator

import fastprompt as fp

TABLE = Path(__file__).parents[2] / "docs/export_matrix.md"
LIMIT = 1e-5
KNOWN = r"\(-1\) is not a registered function/op|No conversion rule found for operations|No schema registered|No implementation"


def checker(name):
    for flavor in ("portable", "plugin", "inlined"):
        onnx.checker.check_model(cases.model(name, flavor), full_check=True)
    return []


def evaluator(name):
    return ReferenceEvaluator(cases.model(name, "portable")).run(None, cases.feeds(name))


def ort(flavor, registered):
    def run(name):
        onnxruntime = pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 2, 4
        if registered:
            fp.export.onnxruntime.register(options)
        session = onnxruntime.InferenceSession(cases.model(name, flavor).SerializeToString(), options)
        return session.run(None, cases.feeds(name))

    return run


def openvino_extension(kind):
    try:
        return fp.export.openvino_extension(kind)
    except RuntimeError as error:
        pytest.skip(f"OpenVINO's extension: {error}")


def openvino(flavor, kind):
    def run(name):
        ov = pytest.importorskip("openvino", reason="needs the package openvino")
        core = ov.Core()
        for extension in openvino_extension(kind) if kind else ():
            core.add_extension(extension)
        model = core.read_model(io.BytesIO(cases.model(name, flavor).SerializeToString()))
        config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        found = core.compile_model(model, "CPU", config).create_infer_request().infer(cases.feeds(name))
        return [found[k].copy() for k in range(len(found))]

    return run


COLUMNS = {
    "checker, three flavors": checker,
    "onnx.reference": evaluator,
    "ONNX Runtime": ort("portable", False),
    "ONNX Runtime, inlined": ort("inlined", False),
    "ONNX Runtime + library": ort("portable", True),
    "ONNX Runtime + library, plugin": ort("plugin", True),
    "ONNX Runtime, plugin": ort("plugin", False),
    "OpenVINO, inlined": openvino("inlined", None),
    "OpenVINO + extension": openvino("portable", "c++"),
    "OpenVINO + Python operators": openvino("portable", "python"),
    "OpenVINO, portable": openvino("portable", None),
    **matrix_tensorrt.COLUMNS,
}


def cell(name, column):
    """ "ok", or what the runtime says."""
    try:
        got = COLUMNS[column](name)
    except Exception as error:
        known = re.search(KNOWN, str(error))
        return (known.group() if known else str(error).split("\n")[0]).replace("|", "/")
    worst = cases.compare(name, got) if got else 0.0
    return "ok" if worst <= LIMIT else f"differs by {worst:.1e}"


def table():
    lines = ["| operator | " + " | ".join(COLUMNS) + " |", "| --- " * (len(COLUMNS) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(cell(name, c) for c in COLUMNS) + " |" for name in cases.CASES]
    return lines


def committed():
    rows = [[x.strip() for x in line.strip("|\n").split("|")] for line in TABLE.read_text().split("\n") if "|" in line]
    return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}


@pytest.mark.filterwarnings("ignore")  # of the runtimes
@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_is_as_it_is_committed(column):
    want = committed()
    assert set(want) == set(cases.CASES)
    assert {name: cell(name, column) for name in cases.CASES} == {name: row[column] for name, row in want.items()}


HEAD = """# Every operator in every runtime

One node as a model, every axis dynamic, against torch's operator: "ok" is a largest difference of at most 1e-5, else what
the runtime says. Made by `python tests/export/test_export_matrix.py`, checked by `pytest tests/export/test_export_matrix.py`.

Of TensorRT nothing runs here, for that needs a GPU: "ok" says that TensorRT-RTX built an engine of the body for that GPU,
and that a plugin met its contract in the registry of TensorRT-lean, with the launches of nodes that bring their kernels
executed on the CPU. With {versions}.

"""

if __name__ == "__main__":
    TABLE.write_text(HEAD.format(versions=matrix_tensorrt.versions()) + "\n".join(table()) + "\n")
    sys.stdout.write(TABLE.read_text())
