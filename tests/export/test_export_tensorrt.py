"""``fastprompt.export.tensorrt``: what it refuses before TensorRT is asked, what it makes of a file, engines of
TensorRT-RTX, which builds without a GPU."""

import importlib.util
import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")
torch = pytest.importorskip("torch", reason="needs the package torch")

import export_cases as cases  # noqa: E402

import fastprompt as fp  # noqa: E402
from fastprompt.export._onnx import precision as precisions  # noqa: E402
from fastprompt.export._tensorrt import engine, profiles  # noqa: E402
from fastprompt.export._tensorrt import model as lowering  # noqa: E402

rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_libs") is None, reason="tensorrt-rtx-cu13-libs is not installed"
)
CAPABILITIES = ["sm_86", "sm_89", "sm_120"]


def small(opset=20, kind=1, axes=("batch", 4), extra=()):
    """A product, a LayerNorm and a softmax; ``extra`` nodes behind them."""
    graph = onnx.parser.parse_graph(
        f"""g (float[{axes[0]}, {axes[1]}] x) => (float[n, m] y) <float[4, 4] w, float[4] s>
        {{ a = MatMul (x, w)  b = LayerNormalization <axis = -1> (a, s)  y = Softmax <axis = -1> (b) }}"""
    )
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in (("w", (4, 4)), ("s", (4,)))
    )
    graph.input[0].type.tensor_type.elem_type = kind
    graph.node.extend(extra)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)


# ---------------------------------------------------------------- profiles


def test_profiles_are_made_of_the_names_of_axes():
    model = small()
    assert profiles.ranges(model, "batch=1:2:8") == {"batch": (1, 2, 8)}
    assert profiles.ranges(model, "batch=3") == {"batch": (3, 3, 3)}
    assert profiles.ranges(model, "") == {"batch": (1, 1, 4)}
    assert profiles.shapes(model, profiles.ranges(model, "batch=1:2:8")) == {"x": [[1, 4], [2, 4], [8, 4]]}
    unnamed = small()
    unnamed.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    assert profiles.ranges(unnamed, "x.0=2") == {"x.0": (2, 2, 2)}


@pytest.mark.parametrize(
    ("model", "options", "error", "text"),
    [
        (small(), {"precision": "int8"}, ValueError, "precision must be one of float32, tf32, float16, bfloat16, got 'int8'"),
        (small(), {"target": "trt"}, ValueError, "target must be one of tensorrt, tensorrt-rtx, None, got 'trt'"),
        (small(), {"profile": "points=1:2:3"}, ValueError, "profile names 'points', which is no dynamic axis of the model; it has: batch"),
        (small(axes=("rows", 4)), {}, ValueError, "profile must say how large rows may be, for example profile='rows=1:1:8'"),
        (small(), {"profile": "batch=1x4"}, ValueError, "profile must be like 'prompts=1:8:64,points=1:3:10'.* got 'batch=1x4'"),
        (small(), {"profile": "batch=4:2:8"}, ValueError, "profile of batch must be smallest <= usual <= largest and at least 1, got 4:2:8"),
        (small(), {"profile": "batch=0:2:8"}, ValueError, "at least 1, got 0:2:8"),
        (small(16), {}, ValueError, "onnx must be of opset 17 or newer, got 16"),
        (small(kind=11), {}, ValueError, "onnx has x of type double; TensorRT has float, uint8, int8, int32, int64"),
        (small(), {"capabilities": "sm_90"}, ValueError, "capabilities must be of sm_75, .*, got 'sm_90'"),
        (small(), {"capabilities": "sm_75"}, ValueError, "precision must be 'float16' for sm_75"),
        (small(), {"plugins": "x.so"}, ValueError, "plugins are for TensorRT only: TensorRT-RTX takes none"),
    ],
)  # fmt: skip
def test_wrong_use(monkeypatch, tmp_path, model, options, error, text):
    monkeypatch.setattr(engine, "installed", lambda name: True)
    with pytest.raises(error, match=text):
        fp.export.tensorrt(model, tmp_path / "x.plan", **{"target": "tensorrt-rtx"} | options)
    assert not list(tmp_path.iterdir())


def test_nothing_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "installed", lambda name: False)
    with pytest.raises(
        ImportError, match="tensorrt or tensorrt-rtx is not installed: pip install tensorrt, or pip inst"
    ):
        fp.export.tensorrt(small(), tmp_path / "x.plan")
    with pytest.raises(ImportError, match="tensorrt-rtx is not installed: pip install tensorrt-rtx-cu13-libs"):
        fp.export.tensorrt(small(), tmp_path / "x.plan", target="tensorrt-rtx")


def topk(k):
    nodes = [onnx.helper.make_node("Constant", [], ["k"], value_ints=[k])]
    return small(extra=[*nodes, onnx.helper.make_node("TopK", ["y", "k"], ["best", "place"])])


def test_topk_over_the_limit():
    with pytest.raises(ValueError, match="onnx has a TopK of 3841: TensorRT takes at most 3840"):
        lowering.check(topk(3841))
    lowering.check(topk(3840))


def pruning(count, tokens="tokens"):
    c = cases.found("PruneTokens")
    model = cases.model("PruneTokens", "plugin")
    next(a for a in model.graph.node[0].attribute if a.name == "count").i = count
    for n, x in enumerate(c.inputs[:2]):
        for k, size in enumerate(("batch", tokens, x.shape[2] if x.ndim > 2 else None)[: x.ndim]):
            axis = model.graph.input[n].type.tensor_type.shape.dim[k]
            axis.Clear()
            setattr(axis, "dim_param" if isinstance(size, str) else "dim_value", size)
    return model


def test_pruning_that_tensorrt_cannot_do():
    ranges = {"tokens": profiles.Range(8, 16, 32), "batch": profiles.Range(1, 1, 4)}
    none = lambda node: "no plugin library was given"  # noqa: E731
    with pytest.raises(ValueError, match=r"onnx keeps 4000 tokens in PruneTokens, .* at most 3840"):
        lowering.check_pruning(pruning(4000), ranges, none)
    with pytest.raises(
        ValueError, match="profile of tokens must start at 9 or more, which PruneTokens keeps, got 8:16:32"
    ):
        lowering.check_pruning(pruning(9), ranges, none)
    lowering.check_pruning(pruning(8), ranges, none)


# ---------------------------------------------------------------- what the file becomes


@pytest.mark.parametrize("flavor", ["portable", "plugin", "inlined"])
def test_nodes_without_a_plugin_are_standard_onnx(flavor):
    model = cases.model("CosineScores", flavor)
    made, lines = lowering.lowered(model, lambda node: "no plugin library was given")
    assert {n.domain for n in made.graph.node} == {""}
    assert not made.functions
    assert lines == ([] if flavor == "inlined" else ["1 x CosineScores: function form, no plugin library was given"])
    onnx.checker.check_model(made, full_check=True)
    assert [n.domain for n in model.graph.node][:1] == ([""] if flavor == "inlined" else ["fastprompt"])  # not changed


def test_merging_without_a_scatter_that_adds():
    model = cases.model("MergeTokens", "portable")
    made, _ = lowering.lowered(model, lambda node: "no plugin library was given")
    assert not [n for n in made.graph.node if n.op_type == "ScatterElements"]
    assert cases.compare("MergeTokens", run(made, cases.feeds("MergeTokens"))) < 1e-5


def test_a_node_without_plugin_and_form_is_named():
    model = cases.model("GeodesicDistance", "plugin")
    next(a for a in model.graph.node[0].attribute if a.name == "method").s = b"toivanen"
    with pytest.raises(
        ValueError, match="onnx has a node GeodesicDistance that has no plugin here and no form in stand"
    ):
        lowering.lowered(model, lambda node: "no plugin library was given")


def run(model, feeds):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feeds)


def types_of(model):
    graph = onnx.shape_inference.infer_shapes(model).graph
    found = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.input, *graph.output]}
    return {(n.op_type, found[n.output[0]]) for n in graph.node}


@pytest.mark.parametrize(("precision", "kind", "tolerance"), [("float16", 10, 2e-3), ("bfloat16", 16, 2e-2)])
def test_products_in_half_and_the_rest_in_float32(precision, kind, tolerance):
    """A two-way transformer: attention, LayerNorm, MLP."""
    model = cases.model("TwoWayTransformer", "inlined")
    made = precisions.cast_model(model, precision, set())
    onnx.checker.check_model(made, full_check=True)
    found = types_of(made)
    assert {t for n, t in found if n == "MatMul"} == {kind}
    assert {t for n, t in found if n in ("Softmax", "LayerNormalization")} == {1}
    assert [v.type.tensor_type.elem_type for v in made.graph.output] == [1, 1]
    from onnx.reference import ReferenceEvaluator

    feeds = cases.feeds("TwoWayTransformer")
    got = run(made, feeds) if precision == "float16" else ReferenceEvaluator(made).run(None, feeds)
    for x, want in zip(got, run(model, feeds), strict=True):
        assert 1e-6 < abs(x - want).max() / abs(want).max() < tolerance


def test_coordinates_stay_float32():
    graph = onnx.parser.parse_graph(
        "g (float[n, 2] at, float[2, 4] w) => (float[n, 4] y) { a = MatMul (at, w) b = Sin (a) y = MatMul (b, v) }"
    )
    graph.initializer.append(onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "v"))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    made = precisions.cast_model(model, "float16", set())
    assert types_of(made) >= {("MatMul", 1), ("Sin", 1), ("MatMul", 10)}
    feeds = {"at": np.full((1, 2), 1000.25, np.float32), "w": np.full((2, 4), 3.1, np.float32)}
    np.testing.assert_allclose(run(made, feeds)[0], np.sin(feeds["at"] @ feeds["w"]), atol=1e-3)
    assert {x.name for x in made.graph.initializer} == {"v_half"}  # the float32 weight is gone


# ---------------------------------------------------------------- engines


@rtx
def test_an_engine_and_what_it_says(tmp_path):
    built = fp.export.tensorrt(
        small(), tmp_path / "x.plan", profile="batch=1:2:8", target="tensorrt-rtx", capabilities=CAPABILITIES
    )
    assert built.size == (tmp_path / "x.plan").stat().st_size > 1000
    for text in ("built with  tensorrt-rtx 1.", "for sm_86, sm_89, sm_120", "axis        batch 1:2:8"):
        assert text in str(built)
    built.fits(x=(8, 4))
    with pytest.raises(ValueError, match="axis batch of x must be 1 to 8, as this engine was built, got 9"):
        built.fits(x=(9, 4))
    with pytest.raises(ValueError, match="axis 4 of x must be 4 to 4"):
        built.fits(x=(2, 5))
    with pytest.raises(ValueError, match=r"x must have 2 axes, got shape \(2,\)"):
        built.fits(x=(2,))
    with pytest.raises(ValueError, match="y is no input of this engine: x"):
        built.fits(y=(2, 4))


@pytest.fixture(scope="module")
def sam(tmp_path_factory):
    """A file of every part of both hosts."""
    pytest.importorskip("onnxscript", reason="needs the package onnxscript")
    pytest.importorskip("transformers", reason="needs the package transformers")
    import test_export

    made = {}

    def get(host, part):
        if (host, part) not in made:
            torch.manual_seed(0)
            path = tmp_path_factory.mktemp("sam") / f"{host}_{part}.onnx"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch's exporter
                fp.export.onnx(test_export.MODELS[host](), path, part=part)
            made[host, part] = path
        return made[host, part]

    return get


@rtx
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("part", ["decoder", "encoder"])
@pytest.mark.parametrize("host", ["transformers", "segment_anything"])
def test_engines_of_sam(sam, tmp_path, host, part, precision):
    built = fp.export.tensorrt(
        sam(host, part), tmp_path / "sam.plan", target="tensorrt-rtx", capabilities=CAPABILITIES, precision=precision
    )
    if part == "decoder":
        assert built.profile == {"prompts": (1, 8, 64), "points": (1, 3, 10)}
        built.fits(points=(64, 10, 2), labels=(1, 1))
        assert built.nodes == ["1 x MaskDecoder: function form, no plugin library was given"]
        assert built.notes == []
    else:
        assert built.profile == {"batch": (1, 1, 4)}
    assert built.size > 1e6


@rtx
def test_what_tensorrt_refuses_is_said_in_its_words(tmp_path):
    with pytest.raises(RuntimeError, match="tensorrt-rtx refuses the model: unknown operator Frobnicate \\(node 3\\)"):
        fp.export.tensorrt(
            small(extra=[onnx.helper.make_node("Frobnicate", ["y"], ["z"])]), tmp_path / "x", target="tensorrt-rtx"
        )
    assert not list(tmp_path.iterdir())
