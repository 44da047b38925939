"""Our library inside ONNX Runtime: dtypes, threads, what it keeps, and what it says when something is wrong."""

import ctypes
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")
pytest.importorskip("torch", reason="needs the package torch")

import export_cases as cases
import onnxruntime

import fastprompt as fp

HALF = {"float16": 2e-3, "bfloat16": 2e-2, "float64": 1e-6}  # of the largest number


def session(model, threads=2, registered=True, level=4):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, level
    if registered:
        fp.export.onnxruntime.register(options)
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def value(x, dtype):
    """An OrtValue, floats in ``dtype``."""
    if x.dtype != np.float32:
        return onnxruntime.OrtValue.ortvalue_from_numpy(x)
    if dtype != "bfloat16":
        return onnxruntime.OrtValue.ortvalue_from_numpy(x.astype(dtype))
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="needs the package ml_dtypes")
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(x.astype(ml_dtypes.bfloat16), cases.TYPES[dtype])


def numbers(x):
    """Of an OrtValue, as float64; bfloat16 is the upper half of float32."""
    if x.data_type() != "tensor(bfloat16)":
        return x.numpy().astype(np.float64)
    count = int(np.prod(x.shape()))
    raw = np.ctypeslib.as_array(ctypes.cast(x.data_ptr(), ctypes.POINTER(ctypes.c_uint16)), (count,))
    return (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64).reshape(x.shape())


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", [n for n in cases.CASES if n.partition(",")[0] != "MatchTokens"])
def test_every_dtype(name, dtype):
    """A library that lacks a dtype makes a file fail that runs without it."""
    own = session(cases.model(name, "portable", dtype))
    got = own.run_with_ort_values(None, {k: value(x, dtype) for k, x in cases.feeds(name).items()})
    if name.startswith(("Resize", "Geodesic")) and dtype != "float64":
        return  # rounded inputs give other masks and paths: that it runs is all
    for g, w in zip(map(numbers, got), cases.found(name).want, strict=True):
        known = np.isfinite(w)
        assert np.array_equal(np.isnan(g), np.isnan(w))
        scale = max(1.0, float(np.abs(w[known]).max(initial=0)))
        assert float(np.abs(g[known] - w[known]).max(initial=0)) <= HALF[dtype] * scale


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(
    "name", ["TwoWayTransformer", "MaskDecoder", "MaskHead", "RelativePositionAttention", "GeodesicDistance"]
)
def test_threads_of_the_session(name, threads):
    own = session(cases.model(name, "plugin"), threads)
    for _ in range(3):
        assert cases.compare(name, own.run(None, cases.feeds(name))) <= 1e-5


def test_two_runs_at_a_time():
    own, feeds, worst = session(cases.model("TwoWayTransformer", "plugin")), cases.feeds("TwoWayTransformer"), []

    def call():
        for _ in range(10):
            worst.append(cases.compare("TwoWayTransformer", own.run(None, feeds)))

    threads = [threading.Thread(target=call) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(worst) == 30
    assert max(worst) <= 1e-5


@pytest.mark.parametrize("changed", ["in0", "in1", "in15"])  # image, position, a weight of the image's side
def test_what_is_kept_of_an_image_follows_its_numbers(changed):
    feeds = dict(cases.feeds("TwoWayTransformer"))
    kept, fresh = (session(cases.model("TwoWayTransformer", "plugin")) for _ in range(2))
    before = kept.run(None, feeds)[0]
    feeds[changed] = feeds[changed].copy()
    feeds[changed].flat[-1] += 1
    got, want = kept.run(None, feeds), fresh.run(None, feeds)
    assert not np.array_equal(got[0], before)
    for x, y in zip(got, want, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_registered_operator_wins_over_the_function():
    """Its error message is the proof: the function would run with such a width."""
    model = cases.model("RelativePositionAttention", "portable")
    feeds = {k: x[..., :5] if k in ("in0", "in1", "in2", "in3", "in4") else x for k, x in cases.feeds("RelativePositionAttention").items()}  # fmt: skip
    assert session(model, registered=False).run(None, feeds)[0].shape == (2, 35, 2, 5)
    with pytest.raises(Exception, match=r"width of a head must be a multiple of 16.*flavor='inlined'"):
        session(model).run(None, feeds)


WRONG = [
    ("TwoWayTransformer", "in2", lambda x: x[:3], "equally many prompts for every image"),
    ("TwoWayTransformer", "in5", lambda x: x[:, :-1], "a weight of the transformer has a wrong size"),
    ("MaskDecoder", "in1", lambda x: x.repeat(3, 0), "dense must be of all prompts, of each image or of each prompt"),
    ("MaskDecoder", "in2", lambda x: x[..., :-1], "position must be"),
    ("MaskDecoder", "in3", lambda x: x[:, :3], "the tokens of the masks must lie in the prompt"),
    ("MaskDecoder, details", "in92", lambda x: x[..., :-1], "details must be"),
    ("MaskHead", "in1", lambda x: x[..., :-1], "weights must be"),
    ("RelativePositionAttention", "in1", lambda x: x[:, :-1], "k and v must have the shape of q"),
    ("GridAttention, windows", "in3", lambda x: x[:, :-1], "pad_key and pad_value must be"),
    ("TurnedMemoryRead", "in3", lambda x: x[:-1], "cos and sin must be"),
    ("TurnedMemoryRead", "in7", lambda x: x + 1, "unturned must leave a multiple of the rows of key_cos"),
    ("ProjectedMemoryRead", "in9", lambda x: x - 9, "unturned must be between 0 and the number of keys"),
    ("ProjectedMemoryRead", "in3", lambda x: x[:-1], "weight must be"),
    ("PromptToImageAttention", "in4", lambda x: x + 2, "lengths must be between 1 and the tokens"),
    ("ImageToPromptProjected", "in5", lambda x: x[:-1], "weights must be heads x width by C"),
    ("MergeTokens", "in3", lambda x: x + 9, "target must lie in the merged tokens"),
    ("MergeTokens", "in2", lambda x: x - 9, "kept must lie in the tokens"),
    ("ScatterTokens", "in2", lambda x: x[:, :-1], "index must have a number for each row"),
    ("PruneTokens", "in2", lambda x: ~x & True, "always marks more tokens than are kept"),
    ("GeodesicDistance", "in1", lambda x: x[..., :-1], "start .B, K, D, H, W"),
]


@pytest.mark.parametrize(("name", "which", "change", "text"), WRONG)
def test_wrong_inputs_are_told(name, which, change, text):
    """A file can hold anything: nothing is read beyond a tensor."""
    feeds = dict(cases.feeds(name))
    feeds[which] = np.ascontiguousarray(change(feeds[which]))
    with pytest.raises(Exception, match=f"fastprompt {name.partition(',')[0]}: .*{text}"):
        session(cases.model(name, "plugin")).run(None, feeds)


def test_rows_that_are_nowhere():
    feeds = dict(cases.feeds("GatherTokens"))
    feeds["in1"] = np.array([[-(2**62), 2**62, 8], [0, 1, 2]])
    rows = session(cases.model("GatherTokens", "plugin")).run(None, feeds)[0]
    assert not rows[0, :2].any()
    np.testing.assert_array_equal(rows[0, 2], feeds["in0"][0, 8])


def test_what_is_kept_of_an_image_for_masks():
    """Low-rank and direct form by turns: with a mask of each prompt there is nothing to keep."""
    feeds = dict(cases.feeds("MaskDecoder"))
    own = session(cases.model("MaskDecoder", "plugin"))
    want = own.run(None, feeds)
    mask = {**feeds, "in1": cases.feeds("MaskDecoder, a mask for each prompt")["in1"]}
    of_mask = session(cases.model("MaskDecoder", "plugin")).run(None, mask)
    many = {**feeds, "in3": np.repeat(feeds["in3"], 9, 1)}
    of_many = session(cases.model("MaskDecoder", "plugin")).run(None, many)
    same_everywhere = {**feeds, "in1": np.broadcast_to(feeds["in1"], (4, 32, 5, 7)).copy()}
    for given, expected in ((mask, of_mask), (many, of_many), (feeds, want), (same_everywhere, want), (mask, of_mask)):
        for x, y in zip(own.run(None, given), expected, strict=True):
            np.testing.assert_array_equal(x, y)
    changed = {**feeds, "in1": feeds["in1"] + 1}
    fresh = session(cases.model("MaskDecoder", "plugin")).run(None, changed)
    assert not np.array_equal(fresh[1], want[1])
    np.testing.assert_array_equal(own.run(None, changed)[1], fresh[1])


@pytest.mark.parametrize("flavor", ["portable", "inlined"])
def test_no_prompts(flavor):
    """A click tool without clicks."""
    feeds = dict(cases.feeds("TwoWayTransformer"))
    feeds["in2"] = feeds["in2"][:0]
    tokens, attended = session(cases.model("TwoWayTransformer", flavor)).run(None, feeds)
    assert tokens.shape == (0, 3, 32)
    assert attended.shape == (0, 32, 5, 7)
    feeds = dict(cases.feeds("MaskHead"))
    feeds["in0"], feeds["in1"] = feeds["in0"][:0], feeds["in1"][:0]
    assert session(cases.model("MaskHead", flavor)).run(None, feeds)[0].shape == (0, 3, 20, 28)
    feeds = dict(cases.feeds("MaskDecoder"))
    feeds["in3"] = feeds["in3"][:0]
    assert session(cases.model("MaskDecoder", flavor)).run(None, feeds)[1].shape == (0, 3, 20, 28)


def test_a_file_without_bodies_and_without_the_library():
    with pytest.raises(Exception, match=r"fastprompt:CosineScores\(-1\) is not a registered function/op"):
        session(cases.model("CosineScores", "plugin"), registered=False)


def test_a_dtype_without_kernel_is_told():
    import onnx

    model = cases.model("CosineScores", "plugin")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.INT32
    with pytest.raises(Exception, match=r"Type 'tensor\(int32\)' of input parameter .* is invalid"):
        session(model)


def test_an_opset_that_is_too_old_is_told():
    model = cases.model("CosineScores", "portable")
    model.opset_import[0].version = model.functions[0].opset_import[0].version = 13
    assert "opset 13: the bodies are written for 18 and newer" in str(fp.export.inspect(model))
    for registered in (False, True):  # functions are checked where the library would stand in for them as well
        with pytest.raises(Exception, match="Invalid input count for op ReduceMax in function CosineScores"):
            session(model, registered=registered)


def test_register_takes_options_only():
    with pytest.raises(TypeError, match=r"session_options must be onnxruntime\.SessionOptions, got dict"):
        fp.export.onnxruntime.register({})


def test_an_old_runtime_is_told(monkeypatch):
    monkeypatch.setattr(onnxruntime, "__version__", "1.16.3")
    with pytest.raises(RuntimeError, match=r"needs ONNX Runtime 1\.17 or newer, got 1\.16\.3"):
        fp.export.onnxruntime.register(onnxruntime.SessionOptions())


@pytest.mark.skipif(sys.platform != "linux", reason="reads an ELF file with nm")
def test_the_library_needs_neither_python_nor_torch_nor_the_runtime():
    path = fp.export.onnxruntime.library_path()
    run = lambda *a: subprocess.run(a, capture_output=True, text=True, check=True).stdout  # noqa: E731
    exported = re.findall(r" T (\w+)", run("nm", "-D", "--defined-only", path))
    assert "RegisterCustomOps" in exported
    assert all(x == "RegisterCustomOps" or x.startswith("fastprompt_node_") for x in exported)
    wanted = run("nm", "-D", "--undefined-only", path)
    assert not re.search(r" U (Py|_Py|Ort|.*torch)", wanted)


def test_importing_the_package_imports_no_runtime(fresh_python):
    code = (
        "import sys, fastprompt; print([m for m in ('onnx', 'onnxruntime', 'openvino', 'torch') if m in sys.modules])"
    )
    assert fresh_python(code).strip() == "[]"
