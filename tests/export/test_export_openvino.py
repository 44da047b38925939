"""Our extension of OpenVINO: built here, its threads and files, and what it says when something is wrong."""

import io
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("torch", reason="needs the package torch")
pytest.importorskip("openvino", reason="needs the package openvino")

import export_cases as cases
import openvino
from test_export_matrix import openvino_extension

import fastprompt as fp
from fastprompt.export import _library
from fastprompt.export._openvino import build as builder

KINDS = ["c++", "python"]
CONFIG = {"INFERENCE_PRECISION_HINT": "f32"}


def core_with(kind):
    core = openvino.Core()
    for extension in openvino_extension(kind):
        core.add_extension(extension)
    return core


def compiled(name, kind, **config):
    core = core_with(kind)
    model = core.read_model(io.BytesIO(cases.model(name, "portable").SerializeToString()))
    return core.compile_model(model, "CPU", {**CONFIG, **config})


def difference(name, found):
    return cases.compare(name, [found[k].copy() for k in range(len(found))])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["MaskDecoder", "MaskDecoder, many tokens", "GeodesicDistance"])
def test_threads_of_openvino(name, threads):
    model = compiled(name, "c++", INFERENCE_NUM_THREADS=threads)
    for _ in range(3):
        assert difference(name, model(cases.feeds(name))) <= 1e-5


def test_two_requests_at_a_time():
    model, worst = compiled("MaskDecoder", "c++", INFERENCE_NUM_THREADS=2, NUM_STREAMS=2), []

    def call():
        request = model.create_infer_request()
        for _ in range(10):
            worst.append(difference("MaskDecoder", request.infer(cases.feeds("MaskDecoder"))))

    threads = [threading.Thread(target=call) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(worst) == 30
    assert max(worst) <= 1e-5


@pytest.mark.parametrize("name", ["GeodesicDistance", "MaskDecoder", "ResizeMasks, packed", "MatchTokens"])
def test_files_of_openvino(tmp_path, name):
    """Attributes of every kind survive in an .xml; without the extension it is refused."""
    model = core_with("c++").read_model(io.BytesIO(cases.model(name, "portable").SerializeToString()))
    openvino.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    core = core_with("c++")
    assert difference(name, core.compile_model(core.read_model(tmp_path / "model.xml"), "CPU", CONFIG)(cases.feeds(name))) <= 1e-5  # fmt: skip
    with pytest.raises(RuntimeError, match="fastprompt"):
        openvino.Core().read_model(tmp_path / "model.xml")


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_are_known_before_it_runs(kind):
    core = core_with(kind)
    model = core.read_model(io.BytesIO(cases.model("MaskDecoder", "portable").SerializeToString()))
    model.reshape({k: list(x.shape) for k, x in cases.feeds("MaskDecoder").items()})
    assert [list(x.shape) for x in model.outputs] == [list(x.shape) for x in cases.found("MaskDecoder").want]
    model.reshape({"in0": [2, 32, -1, 7]})
    assert str(model.output(1).partial_shape) == "[4,3,?,28]"


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_inputs_are_told(kind):
    feeds = dict(cases.feeds("TwoWayTransformer"))
    feeds["in2"] = feeds["in2"][:3]
    with pytest.raises(Exception, match="fastprompt TwoWayTransformer: there must be equally many prompts"):
        compiled("TwoWayTransformer", kind)(feeds)


def test_nothing_is_built_twice(monkeypatch):
    (path,) = openvino_extension("c++")
    monkeypatch.setattr(builder, "build", lambda *a: pytest.fail("built again"))
    assert fp.export.openvino_extension("c++") == [path]
    assert fp.export.openvino_extension() == [path]


def test_python_stands_in_and_says_why(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(builder.shutil, "which", lambda program: None)
    with pytest.raises(RuntimeError, match="there is no CMake: pip install cmake"):
        fp.export.openvino_extension("c++")
    with pytest.warns(UserWarning, match=r"Python operators for OpenVINO instead of C\+\+: there is no CMake"):
        assert len(fp.export.openvino_extension()) == len(cases.RECORDS)
    monkeypatch.setattr(builder.shutil, "which", lambda program: program if program == "cmake" else None)
    with pytest.raises(RuntimeError, match=r"there is no C\+\+ compiler"):
        fp.export.openvino_extension("c++")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(fp.export.openvino_extension("python")) == len(cases.RECORDS)
    with pytest.raises(ValueError, match=r"kind must be one of auto, c\+\+, python, got 'C'"):
        fp.export.openvino_extension("C")


def test_a_library_that_is_not_there(monkeypatch):
    (path,) = openvino_extension("c++")
    code = f"import openvino; openvino.Core().add_extension({path!r})"
    environment = {"FASTPROMPT_LIBRARY": "/nowhere.so", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode
    assert "/nowhere.so" in done.stderr
    assert "FASTPROMPT_LIBRARY names another" in done.stderr


def test_nodes_in_python():
    node = _library.Node("CosineScores", {})
    tokens, prompts = cases.found("CosineScores").inputs
    assert node.outputs([([2, -1, 16], 1), (None, 1)]) == [([2, -1], 1)]
    np.testing.assert_array_equal(node.run([tokens, prompts])[0], cases.found("CosineScores").want[0])
    with pytest.raises(ValueError, match="fastprompt CosineScores: prompts must be"):
        node.run([tokens, prompts[..., :-1]])
    with pytest.raises(ValueError, match="fastprompt CosineScores: an input is missing"):
        node.run([tokens])
    with pytest.raises(ValueError, match="fastprompt has no operator 'Nothing'"):
        _library.Node("Nothing", {})
    empty = _library.Node("GatherTokens", {}).run([np.ones((1, 2, 16), np.float16), np.array([[1, 0]])])[0]
    assert empty.dtype == np.float16
    assert empty.shape == (1, 2, 16)
