"""Files and numbers that are none: inspect, the comparison of a file with its model, labels of exported decoders."""

import os
import types

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
import fastprompt as fp  # noqa: E402
from fastprompt.export._onnx import sam, verify  # noqa: E402


def test_inspect_of_no_model(tmp_path):
    empty, text = tmp_path / "empty.onnx", tmp_path / "text.onnx"
    empty.write_bytes(b"")
    text.write_text("no model")
    with pytest.raises(ValueError, match=r"empty.onnx is no ONNX file: there is no graph in it"):
        fp.export.inspect(empty)
    with pytest.raises(ValueError, match=r"text.onnx is no ONNX file: "):
        fp.export.inspect(str(text))
    with pytest.raises(FileNotFoundError):
        fp.export.inspect(tmp_path / "missing.onnx")
    with open(empty, "rb") as file:
        for path in (file.fileno(), None, b"x"):
            with pytest.raises(TypeError, match="path must be that of a file or a ModelProto, got"):
                fp.export.inspect(path)
        os.fstat(file.fileno())  # still open


def test_a_difference_is_of_the_largest_number():
    want = torch.tensor([1e-5, -4e-5, float("inf")])
    assert verify.error(want, want) == 0
    assert verify.error(torch.tensor([0.0, 0.0, float("inf")]), want) == pytest.approx(1)
    assert verify.error(want * torch.tensor([1, 1.5, 1]), want) == pytest.approx(0.5)
    assert verify.error(torch.full((2,), 1e-3), torch.zeros(2)) == pytest.approx(1e-3)  # nothing to compare with
    assert verify.error(torch.tensor([1.0, 3e3]), torch.tensor([1.0, 2e3])) == pytest.approx(0.5)


class Embed(torch.nn.Module):
    """The part of a decoder that reads labels."""

    def __init__(self):
        super().__init__()
        self.size, self.of_transformers = (8, 8), False
        self.register_buffer("kinds", torch.arange(20.0).reshape(5, 4))
        self.features = types.SimpleNamespace(_pe_encoding=lambda at: torch.cat([at, at], -1))

    forward = sam.SamDecoder.embed


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's exporter, of itself
def test_other_labels_are_no_row_of_the_table(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    points, labels = torch.rand(1, 5, 2) * 8, torch.tensor([[-1, 0, 1, 2, 3]])
    module = Embed().eval()
    want = module(points, labels)
    at = (points + 0.5) / 8
    assert torch.equal(want[:, 1:], torch.cat([at, at], -1)[:, 1:] + module.kinds[None, 1:])
    assert torch.equal(want[:, 0], module.kinds[None, 0])
    path = tmp_path / "embed.onnx"
    torch.onnx.export(module, (points, labels), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]
    run = lambda x: session.run(None, dict(zip(names, (points.numpy(), x.numpy()), strict=True)))[0]  # noqa: E731
    torch.testing.assert_close(torch.from_numpy(run(labels)), want)
    for label in (-2, -6, -10, 4, 7):
        with pytest.raises(Exception, match="out of data bounds"):
            run(labels.where(labels != 2, label))
        with pytest.raises(IndexError):
            module(points, labels.where(labels != 2, label))
