"""Nodes of ours in ordinary TensorRT: the calls that ``fastprompt.export.tensorrt`` makes, and what its parser sees."""

import importlib.util
import json
import sys
import textwrap

import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
torch = pytest.importorskip("torch", reason="needs the package torch")

import export_cases as cases  # noqa: E402

import fastprompt as fp  # noqa: E402
from fastprompt.export._tensorrt import engine, plugins  # noqa: E402

rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_libs") is None, reason="tensorrt-rtx-cu13-libs is not installed"
)


@pytest.fixture
def ordinary(tmp_path, monkeypatch):
    """A module ``tensorrt`` that is TensorRT-RTX with a registry which only writes down what is loaded, and a parser which
    looks at nothing but the nodes: with a plugin the one of RTX ends the process."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "tensorrt.py").write_text(
        textwrap.dedent("""
        import json, os
        from fastprompt.export._tensorrt.build import load
        globals().update({k: v for k, v in vars(load("tensorrt-rtx")).items() if not k.startswith("__")})
        __version__ = "11.0 (a stand-in)"
        said = {"loaded": [], "serialized": [], "nodes": []}
        class Registry:
            def load_library(self, path): said["loaded"].append(path); return path
        get_plugin_registry = Registry
        class OnnxParser:
            num_errors = 0
            def __init__(self, network, logger): pass
            def parse_from_file(self, path):
                import onnx
                for n in onnx.load(path).graph.node:
                    texts = {a.name: a.s.decode() for a in n.attribute if a.type == 3 and a.name.startswith("plugin_")}
                    said["nodes"].append([n.domain, n.op_type, texts])
                return True
        class Builder:
            def __init__(self, logger): pass
            def create_network(self, flags): return Network()
            def create_builder_config(self): return Config()
            def create_optimization_profile(self): return Profile()
            def build_serialized_network(self, network, config):
                said["serialized"] = config.plugins_to_serialize
                return json.dumps(said).encode()
        class Network: num_layers = 1
        class Profile:
            def set_shape(self, name, *sizes): said[name] = sizes
        class Config:
            plugins_to_serialize = []
            def add_optimization_profile(self, profile): pass
            def set_flag(self, flag): pass
            def clear_flag(self, flag): said["cleared"] = str(flag)
    """)
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(engine, "installed", lambda name: name == "tensorrt")

    def build(model, **options):
        built = fp.export.tensorrt(model, tmp_path / "x.plan", target="tensorrt", **options)
        return built, json.loads((tmp_path / "x.plan").read_text())

    return build


def fixed_but(name, free):
    """The model of a case whose axes are fixed but for ``free``, {(input, axis): name}."""
    model = cases.model(name, "portable")
    for n, value in enumerate(model.graph.input):
        for k, axis in enumerate(value.type.tensor_type.shape.dim):
            size = cases.found(name).inputs[n].shape[k]
            axis.Clear()
            axis.dim_param = free.get((n, k), "")
            if (n, k) not in free:
                axis.dim_value = size
    return model


@rtx
def test_nodes_become_plugins_of_tensorrt(ordinary):
    """The calls that are made of TensorRT, and the nodes that its parser sees; no TensorRT runs."""
    pytest.importorskip("triton", reason="triton is not installed")
    import plugin_host

    library = plugin_host.library()
    free = {(0, 0): "batch", (0, 1): "tokens", (1, 0): "batch"}
    built, said = ordinary(fixed_but("CosineScores", free), plugins=library, profile="tokens=4:64:4096")
    assert built.nodes == ["1 x CosineScores: plugin"]
    assert said["loaded"] == said["serialized"] == [str(library)]
    assert said["in0"] == [[1, 4, 16], [1, 64, 16], [4, 4096, 16]]
    assert "TF32" in said["cleared"]
    assert said["nodes"] == [
        ["fastprompt", "CosineScores", {"plugin_namespace": "fastprompt", "plugin_version": "1.ptx"}]
    ]
    built, said = ordinary(fixed_but("GeodesicDistance", {(0, 0): "batch", (1, 0): "batch"}), plugins=library)
    assert built.nodes == ["1 x GeodesicDistance: plugin"]
    assert [kind for _, kind, _ in said["nodes"]] == ["Cast", "Cast", "GeodesicDistance"]
    built, said = ordinary(fixed_but("GeodesicDistance, volume", {}), plugins=library)
    assert built.nodes == ["1 x GeodesicDistance: function form, the plugin takes pictures, of depth 1"]
    assert {domain for domain, _, _ in said["nodes"]} == {""}
    built, _ = ordinary(
        cases.model("MatchTokens", "portable"), plugins=library, profile=",".join(f"din0_{k}=16" for k in range(3))
    )
    assert built.nodes == ["1 x MatchTokens: function form, not found in the plugin library"]


@rtx
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_attention_plugins_take_half(ordinary, precision):
    pytest.importorskip("triton", reason="triton is not installed")
    import plugin_host

    model = fixed_but("ImageToPromptAttention", {(2, 2): "points", (3, 2): "points", (4, 2): "points"})
    built, said = ordinary(model, plugins=plugin_host.library(), precision=precision)
    assert built.nodes == ["1 x ImageToPromptAttention: plugin"]
    kinds = [kind for _, kind, _ in said["nodes"]]
    assert kinds.count("ImageToPromptAttention") == 1
    assert kinds.count("Cast") == 7  # six inputs, one output; lengths are integers


def test_what_is_not_annotated_keeps_its_version(monkeypatch):
    monkeypatch.setattr(plugins, "plugins_of", lambda path: set())
    library = plugins.Library("x.so", cases.model("CosineScores", "portable"), "float32")
    node = library.annotated({}).graph.node[0]
    assert library.why_not(node) == "not found in the plugin library"
    assert {a.name: a.s for a in node.attribute}["plugin_version"] == b"1"


def test_the_build_runs_in_another_process():
    assert "tensorrt_rtx_bindings" not in sys.modules
