"""``python -m fastprompt export``."""

import warnings

import pytest

pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxscript", reason="needs the package onnxscript")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")
pytest.importorskip("transformers", reason="needs the package transformers")

import test_export
import test_export_sam
import torch

import fastprompt as fp
from fastprompt.__main__ import main
from fastprompt.cli import export


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter
        yield tmp_path


def test_list(capsys):
    assert main(["export", "--list"]) == 0
    text = capsys.readouterr().out
    for name in (*export.MODELS, *export.TARGETS, *export.FLAVORS):
        assert f"  {name} " in text


def test_a_checkpoint_of_transformers(folder, capsys):
    test_export.transformers_sam().save_pretrained("weights")
    capsys.readouterr()
    assert main(["export", "sam-decoder", "--checkpoint", "weights", "--single-mask"]) == 0
    text = capsys.readouterr().out
    assert "wrote     sam-decoder.onnx" in text
    assert "takes     points: float (prompts, points, 2)" in text
    assert "gives     masks: float (prompts, 1, 20, 20)" in text
    assert "nodes     MaskDecoder x 1" in text
    assert text.count("verified  ") == 4
    assert 'onnxruntime.InferenceSession("sam-decoder.onnx"' in text
    assert fp.export.inspect("sam-decoder.onnx").flavor == "portable"


def test_a_file_of_segment_anything(folder, capsys, monkeypatch):
    model = test_export.segment_anything()
    import segment_anything

    def build(checkpoint):
        made = test_export.segment_anything()
        made.load_state_dict(torch.load(checkpoint, weights_only=True))
        return made

    monkeypatch.setitem(segment_anything.sam_model_registry, "vit_b", build)
    torch.save(model.state_dict(), "sam.pth")
    given = ["--checkpoint", "sam.pth", "--type", "vit_b", "--flavor", "inlined", "-o", "encoder.onnx"]
    assert main(["export", "sam-encoder", *given]) == 0
    assert "standard ONNX only" in capsys.readouterr().out
    torch.save({"x": torch.ones(1)}, "other.pth")
    given[1] = "other.pth"
    assert main(["export", "sam-encoder", *given]) == 2
    assert "other.pth holds no vit_b" in capsys.readouterr().err


def test_random_weights_of_a_config(folder, capsys):
    test_export_sam.sam2().config.to_json_file("config.json")
    assert main(["export", "sam2-decoder", "--random", "--config", "config.json", "--target", "openvino"]) == 0
    text = capsys.readouterr().out
    assert "gives     object_scores" in text
    assert "openvino_extension()" in text


@pytest.mark.parametrize("host", sorted({m.host for m in export.MODELS.values()}))
def test_small_models_of_random_weights(host):
    import transformers

    model = getattr(transformers, host)(export.small(host))
    assert sum(p.numel() for p in model.parameters()) < 60e6
    assert hasattr(model, "mask_decoder")


def test_an_engine(folder, capsys, monkeypatch):
    """The file, then the engine, by fastprompt.export.tensorrt."""
    test_export.transformers_sam().save_pretrained("weights")
    calls = []
    monkeypatch.setattr(fp.export, "tensorrt", lambda *a, **k: calls.append((a, k)) or "built", raising=False)
    given = ["--checkpoint", "weights", "--target", "tensorrt-rtx", "--profile", "prompts=1:1:4"]
    assert main(["export", "sam-decoder", *given]) == 0
    ((paths, options),) = calls
    assert [str(p) for p in paths] == ["sam-decoder.onnx", "sam-decoder.engine"]
    assert options == {"profile": "prompts=1:1:4", "precision": "float32", "target": "tensorrt-rtx"}
    assert "built" in capsys.readouterr().out

    def missing(*a, **k):
        raise ImportError("TensorRT is not installed: pip install tensorrt")

    monkeypatch.setattr(fp.export, "tensorrt", missing, raising=False)
    monkeypatch.setattr(export, "write", lambda *a: None)
    monkeypatch.setattr(export, "report", lambda written: None)
    assert main(["export", "sam-decoder", *given]) == 2
    assert "error: TensorRT is not installed" in capsys.readouterr().err
    monkeypatch.delattr(fp.export, "tensorrt")
    assert main(["export", "sam-decoder", *given]) == 2
    assert "sam-decoder.onnx is written: use trtexec" in capsys.readouterr().err


def test_a_file_that_differs(folder, capsys, monkeypatch):
    def differs(*a, **k):
        raise RuntimeError("the file differs from the model by 1 of the largest number")

    monkeypatch.setattr(export, "load", lambda *a: None)
    monkeypatch.setattr(export, "write", differs)
    assert main(["export", "sam-decoder", "--random"]) == 1
    assert "fastprompt export: the file differs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([], "MODEL is missing: see `fastprompt export --list`"),
        (["sam-dekoder", "--random"], "MODEL must be one of sam-decoder, "),
        (["sam-decoder"], "give either --checkpoint or --random"),
        (["sam-decoder", "--random", "--checkpoint", "x"], "give either --checkpoint or --random"),
        (["sam-decoder", "--checkpoint", "x", "--config", "y"], "--config is for --random"),
        (["sam-decoder", "--checkpoint", "x.pth"], "--type must be given with a .pth"),
        (["sam2-decoder", "--checkpoint", "x.pth", "--type", "vit_b"], "sam2-decoder is taken from transformers"),
        (["sam-decoder", "--checkpoint", "x.pth", "--type", "vit_b"], "there is no file x.pth"),
        (["sam-decoder", "--checkpoint", "./nowhere"], "--checkpoint: "),
        (["sam-encoder", "--random", "--mask-prompts"], "--mask-prompts is an option of decoders"),
        (["sam-decoder", "--random", "--target", "tensorrt", "-o", "x.onnx"], "--output must name an engine"),
    ],
)
def test_mistakes(capsys, given, text):
    assert main(["export", *given]) == 2
    assert text in capsys.readouterr().err
