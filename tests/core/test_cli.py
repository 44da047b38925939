"""The command line. No test asserts a time."""

import json
import sys

import numpy as np
import pytest

import fastprompt as fp
from fastprompt import _C, _gpu, _selftest
from fastprompt import segment as library
from fastprompt.__main__ import main, parser
from fastprompt._selftest.check import Check, difference
from fastprompt.cli import segment as command
from fastprompt.ops._operator import OPERATORS, launch
from fastprompt.segment import prompt_seeds, segment

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("skimage")


@pytest.fixture
def photo(tmp_path, monkeypatch):
    """A bright 20 x 12 rectangle on a dark ground, in a file of the current directory."""
    monkeypatch.chdir(tmp_path)
    pixels = np.full((40, 60, 3), 30, np.uint8)
    pixels[10:22, 20:40] = (200, 180, 40)
    Image.fromarray(pixels).save("photo.png")
    return pixels


def rectangle():
    mask = np.zeros((40, 60), bool)
    mask[10:22, 20:40] = True
    return mask


def saved(path):
    with Image.open(path) as file:
        return np.asarray(file)


def saved_mask(path="segment-mask.png"):
    pixels = saved(path)
    assert set(np.unique(pixels)) <= {0, 255}
    return pixels == 255


# ---------------------------------------------------------------- info


def test_info_json(capsys):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["versions"]["fastprompt"] == fp.__version__
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["isa"] == _C.isa()
    assert facts["bf16"] == _C.bf16()
    assert facts["backends"].keys() == {"cpu", "reference", "cuda", "triton"}
    for state in facts["backends"].values():
        assert state["available"] == (state["reason"] is None) == (state["fix"] is None)
    assert facts["operators"]["geodesic_distance"] == ["cpu", "reference"]


def test_info_text_names_reasons(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for backend in ("cuda", "triton"):
        why = _gpu.reason(backend)
        assert why is None or (why in out and f"fix: {_gpu.fix(backend)}" in out)


def test_info_imports_no_optional_package(fresh_python):
    code = (
        "import sys; from fastprompt.__main__ import main; main(['info', '--json']);"
        "assert not {'torch', 'PIL', 'skimage', 'onnx', 'triton'} & set(sys.modules)"
    )
    json.loads(fresh_python(code))


# ---------------------------------------------------------------- doctor


def test_doctor_passes_and_restores_settings(capsys):
    before = _C.isa(), fp.get_num_threads()
    assert main(["doctor"]) == 0
    assert (_C.isa(), fp.get_num_threads()) == before
    out = capsys.readouterr().out
    assert "checks passed" in out
    assert "geodesic_distance  3-D geodistk_fm exact" in out
    assert "export  GeodesicDistance" in out


def test_doctor_finds_a_wrong_kernel(capsys, monkeypatch):
    def wrong(*args):
        asked = kernel(*args)
        launch(asked)
        fields = asked[1]
        if _C.isa() == _C.best_isa() and fields["metric"] == "geodistk":
            fields["out"][..., -1] += 1

    few = [c for c in _selftest.checks() if "2-D" in c.variant and "raster" in c.variant]
    kernel = OPERATORS["geodesic_distance"].call
    monkeypatch.setattr(OPERATORS["geodesic_distance"], "call", wrong)
    monkeypatch.setattr(_selftest, "checks", lambda: iter(few))
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert f"1 of {len(few)} checks FAILED" in out
    assert f"{_C.best_isa()}, threads=2: error" in out
    assert "python -m fastprompt info --json" in out


def test_doctor_survives_a_crash_of_a_check(capsys, monkeypatch):
    def broken():
        raise RuntimeError("no such register")

    monkeypatch.setattr(_selftest, "checks", lambda: iter([Check("some_operator", "", broken)]))
    assert main(["doctor"]) == 1
    assert "RuntimeError: no such register" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("got", "wanted", "error"),
    [
        ([1.0, np.inf], [1.0, np.inf], 0.0),
        ([1.0, 2.0], [1.0, np.inf], np.inf),
        ([np.nan, 2.0], [1.0, 2.0], np.inf),
        ([1.0, 3.0], [1.0, 2.0], 0.5),
        ([1.0], [1.0, 2.0], np.inf),
        ([np.inf], [np.inf], 0.0),
    ],
)
def test_difference(got, wanted, error):
    assert difference(got, wanted) == error


# ---------------------------------------------------------------- segment


def test_segment_built_in_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["segment"]) == 0
    mask = saved_mask()
    assert mask.shape == (512, 512)
    assert 0.50 < mask.mean() < 0.56  # 53 % is the astronaut
    for x, y, positive in command.ASTRONAUT:
        assert mask[y, x] == positive, (x, y)
    for x, y in ((225, 150), (170, 385), (250, 400), (360, 500), (110, 440), (250, 280)):  # mouth, badge, straps, …
        assert mask[y, x], (x, y)
    for x, y in ((50, 50), (410, 60), (490, 20), (380, 320), (330, 160), (10, 250), (100, 150)):  # flag, shuttle, …
        assert not mask[y, x], (x, y)
    assert saved("segment-overlay.png").shape == (512, 512, 3)
    out = capsys.readouterr().out
    assert out.count("\nclick ") == len(command.ASTRONAUT)
    assert "wrote    segment-mask.png" in out


@pytest.mark.parametrize("extra", [[], ["--no-filter"]], ids=["filter", "no-filter"])
@pytest.mark.parametrize(
    "prompts",
    [
        ["--positive", "30,15", "--negative", "5,5"],
        ["--negative", "5,5", "50,35", "--positive", "30,15", "22,12"],
        ["--positive", "30,15", "--box", "15,5,45,30"],
        ["--scribble", "colour.png"],
        ["--scribble", "grey.png"],
        ["--scribble", "grey.png", "--positive", "38,20", "--box", "2,2,57,37"],
    ],
    ids=["clicks", "negative first", "box", "colour scribble", "grey scribble", "all"],
)
@pytest.mark.usefixtures("photo")
def test_segment_finds_a_rectangle(prompts, extra):
    strokes = np.zeros((40, 60, 4), np.uint8)
    strokes[15, 24:36] = (20, 220, 30, 255)
    strokes[35, 4:50] = (230, 20, 10, 255)
    strokes[15, 2:9] = (20, 220, 30, 60)  # all but transparent: no stroke
    Image.fromarray(strokes).save("colour.png")
    grey = np.zeros((40, 60), np.uint8)
    grey[15, 24:36], grey[35, 4:50], grey[2] = 255, 128, 77
    Image.fromarray(grey).save("grey.png")
    files = ["-o", "mask.png", "--overlay", "overlay.jpg"]
    assert main(["segment", "photo.png", *prompts, *extra, *files]) == 0
    np.testing.assert_array_equal(saved_mask("mask.png"), rectangle())
    assert saved("overlay.jpg").shape == (40, 60, 3)


def test_filter_removes_specks_but_no_prompt(photo):
    noisy = photo.copy()
    noisy[15, 30] = noisy[4, 4] = 255 - noisy[15, 30]
    mask = segment(noisy.transpose(2, 0, 1), [(22, 12), (30, 15)], [(5, 5), (4, 4)])
    assert mask[15, 30]
    assert not mask[4, 4]
    np.testing.assert_array_equal(mask, rectangle())


def test_segment_takes_a_grey_image_and_floats(photo):
    grey = photo[..., 0]
    for image in (grey, grey.astype(np.float64) / 255):
        np.testing.assert_array_equal(segment(image, [(30, 15)], [(5, 5)]), rectangle())


def test_seeds():
    seeds = prompt_seeds((4, 5), [(4, 3)], [(0.9, 0)], box=(0, 0, 4, 3))
    assert np.argwhere(seeds).tolist() == [[0, 3, 4], [1, 0, 0]]
    assert prompt_seeds((4, 5), box=(1, 1, 2, 2))[1].sum() == 4 * 5 - 4


ERRORS = {
    "outside": ("photo.png --positive 60,3 --negative 1,1", "positive point 60,3 is outside the image of 60 x 40"),
    "below zero": ("photo.png --positive 3,3 --negative=-1,1", "negative point -1,1 is outside"),
    "malformed": ("photo.png --positive 3;3", "expected X,Y in whole pixels, got '3;3'"),
    "fraction": ("photo.png --positive 3.5,3", "expected X,Y in whole pixels, got '3.5,3'"),
    "three numbers": ("photo.png --positive 3,3,3", "expected X,Y"),
    "image last": ("--positive 3,3 photo.png", "put IMAGE before the options"),
    "box": ("photo.png --positive 3,3 --box 1,2,3", "expected X0,Y0,X1,Y1"),
    "box reversed": ("photo.png --positive 3,3 --box 9,9,1,1", "X0 <= X1"),
    "box outside": ("photo.png --positive 3,3 --box 0,0,60,3", "inside the image of 60 x 40"),
    "missing file": ("none.png --positive 3,3", "none.png: No such file"),
    "not a picture": ("text.png --positive 3,3", "text.png: not a picture"),
    "contradiction": ("photo.png --positive 3,4 --negative 3,4", "pixel 3,4 is both positive and negative"),
    "click off the box": ("photo.png --positive 3,4 --box 9,9,20,20", "pixel 3,4 is positive, but outside the box"),
    "no positive": ("photo.png --negative 3,4", "no positive prompt: give at least one positive point or scribble"),
    "no negative": ("photo.png --positive 3,4", "no negative prompt: give at least one negative point or scribble, or"),
    "nothing": ("photo.png", "no positive prompt"),
    "lam": ("photo.png --positive 3,4 --negative 9,9 --lam 2", "lam must be between 0 and 1"),
    "theta": ("photo.png --positive 3,4 --negative 30,15 --theta -1", "theta must be between"),
    "scribble size": ("photo.png --scribble small.png", "scribbles must be 60 x 40 pixels like the picture, got 5 x 4"),
    "empty scribble": ("photo.png --scribble blank.png", "blank.png: no strokes"),
    "output kind": ("photo.png --positive 3,4 --negative 30,15 -o mask.xyz", "mask.xyz: unknown kind"),
}


@pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS.keys())
@pytest.mark.usefixtures("photo")
def test_segment_errors(arguments, message, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no picture")
    Image.new("L", (5, 4)).save("small.png")
    Image.new("L", (60, 40)).save("blank.png")
    assert main(["segment", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


@pytest.mark.parametrize(("module", "package"), [("PIL", "pillow"), ("skimage", "scikit-image")])
def test_missing_packages(module, package, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    arguments = ["photo.png", "--positive", "3,3"] if module == "PIL" else []
    assert main(["segment", *arguments]) == 2
    assert f"{package} is not installed; run: pip install {package}\n" in capsys.readouterr().err


def test_deep_picture_uses_its_range(tmp_path):
    deep = np.array([[1000, 1000, 2000]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(command.load(str(tmp_path / "deep.png"), "astronaut")[1][0, :, 0], [0, 0, 255])


# ---------------------------------------------------------------- bench


def test_bench_writes_json(tmp_path, capsys):
    pytest.importorskip("scipy")
    file, tiny = tmp_path / "bench.json", ["--sizes", "24", "--volumes", "6", "--rounds", "2", "--threads", "1", "2"]
    before = fp.get_num_threads()
    assert main(["bench", "geodesic", *tiny, "--against", "csgraph", "MCP", "--json", str(file)]) == 0
    assert fp.get_num_threads() == before
    report = json.loads(file.read_text())
    assert report["versions"]["fastprompt"] == fp.__version__
    results = report["results"]
    assert len(results) == 2 * 3 * 3  # threads, cases, implementations
    assert {tuple(r["shape"]) for r in results} == {(3, 24, 24), (1, 24, 24), (1, 6, 6, 6)}
    assert {(r["threads"], r["clock"]) for r in results} == {(1, "cpu"), (2, "wall")}
    for r in results:
        assert len(r["wall_ms"]) == len(r["cpu_ms"]) == 2
        assert not r["check"].startswith("WRONG"), r
        assert (r["check"] == "speed only") == ("MCP" in r["implementation"])
    captured = capsys.readouterr()
    assert "scipy csgraph.dijkstra" in captured.out
    assert captured.err == ""  # no progress bar where nobody looks


def test_bench_reports_a_wrong_result(monkeypatch, capsys):
    from fastprompt.cli import peers

    liar = peers.Peer("liar", "numpy", lambda case, threads: lambda: np.zeros(case.seeds.shape), "bits")
    monkeypatch.setattr(
        peers, "GROUPS", [peers.Group("geodesic", "exact", peers.geodesic("fastgeodis", "exact"), [liar])]
    )
    assert main(["bench", "geodesic", "--sizes", "8", "--volumes", "--rounds", "1"]) == 1
    assert "WRONG: 63 pixels differ" in capsys.readouterr().out


def test_bench_knows_no_such_peer(capsys):
    assert main(["bench", "--against", "nobody"]) == 2
    assert "no peer to measure" in capsys.readouterr().err


# ---------------------------------------------------------------- all


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["bench", "--help"], ["--version"]])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["bench", "--rounds", "0"]])
def test_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_defaults_are_those_of_the_library():
    options = parser().parse_args(["segment"])
    assert (options.lam, options.theta) == (library.LAM, library.THETA)
