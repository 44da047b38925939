"""The C++ example: compiled where the headers of ONNX Runtime are (ONNXRUNTIME_ROOT), and it gives the host's mask."""

import os
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxscript", reason="needs the package onnxscript")
pytest.importorskip("transformers", reason="needs the package transformers")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")

import hosts
import onnxruntime
import torch

import fastprompt as fp

SOURCE = Path(__file__).parents[2] / "examples/click_cpp"
SIZE = 16  # tokens along an axis: a frame of 256 pixels


def root(folder):
    """Headers of ONNXRUNTIME_ROOT, and the library of the installed package where there is none beside them."""
    given = os.environ.get("ONNXRUNTIME_ROOT")
    if not given:
        pytest.skip("ONNXRUNTIME_ROOT is not set: the package onnxruntime has no headers")
    if any(Path(given, "lib").glob("libonnxruntime.so*")):
        return given
    library = next(iter((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")))
    (folder / "lib").mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / "lib" / name).symlink_to(library)
    (folder / "include").symlink_to(Path(given, "include"))
    return folder


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if not shutil.which("cmake"):
        pytest.skip("needs CMake")
    folder = tmp_path_factory.mktemp("click")
    for command in (["-S", SOURCE, "-B", folder / "build", f"-DONNXRUNTIME_ROOT={root(folder)}"], ["--build", folder / "build"]):  # fmt: skip
        done = subprocess.run(["cmake", *map(str, command)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning:" not in done.stdout + done.stderr
    return folder / "build" / "click"


def clicked(program, *arguments, library=""):
    environment = {**os.environ, "FASTPROMPT_LIBRARY": library, "CLICK_THREADS": "2"}
    return subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, env=environment)


def pgm(path):
    data = path.read_bytes()
    head, size, _, pixels = data.split(b"\n", 3)
    assert head == b"P5"
    width, height = map(int, size.split())
    return np.frombuffer(pixels, np.uint8).reshape(height, width)


def test_a_click(program, tmp_path):
    model, path = hosts.sam(SIZE), tmp_path / "decoder.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter
        fp.export.onnx(model, path)
    embedding = torch.randn(1, 256, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    np.save(tmp_path / "embedding.npy", embedding.numpy())
    width, height, frame = 100, 70, 16 * SIZE
    points = torch.tensor([[[[30.0, 40.0], [80.0, 10.0]]]]) * frame / width
    with torch.no_grad():
        want = model(image_embeddings=embedding, input_points=points, input_labels=torch.tensor([[[1, 0]]]))
    best = int(want.iou_scores[0, 0].argmax())
    crop = (round(height * frame / width), frame)
    mask = fp.resize_masks(want.pred_masks[0, 0, best : best + 1], (height, width), frame=(frame, frame), crop=crop)
    expected = np.asarray(mask.masks[0] if hasattr(mask, "masks") else mask[0][0])
    for library in ("", fp.export.onnxruntime.library_path()):
        given = (path, tmp_path / "embedding.npy", f"{width}x{height}", tmp_path / "mask.pgm", "30,40", "80,10,0")
        done = clicked(program, *given, library=library)
        assert done.returncode == 0, done.stderr
        assert f"mask {best} of 3" in done.stdout
        got = pgm(tmp_path / "mask.pgm") == 255
        assert got.shape == (height, width)
        assert 0 < got.mean() < 1
        assert (got != expected).mean() < 1e-3  # pixels whose logit is 0 but for rounding


def test_what_it_says_when_something_is_wrong(program, tmp_path):
    np.save(tmp_path / "wrong.npy", np.zeros((1, 2)))
    for arguments, code, text in (
        ((), 2, "usage: click MODEL"),
        (("x.onnx", tmp_path / "nothing.npy", "9x9", "m.pgm", "1,1"), 1, "nothing.npy: not a .npy file"),
        (("x.onnx", tmp_path / "wrong.npy", "9x9", "m.pgm", "1,1"), 1, "float32 in C order is wanted"),
    ):
        done = clicked(program, *arguments)
        assert done.returncode == code
        assert text in done.stderr
