"""The command line. No test asserts a time."""

import json

import numpy as np
import pytest

import fastprompt as fp
from fastprompt import _C, _gpu, _selftest
from fastprompt.__main__ import main
from fastprompt._selftest.check import Check, difference
from fastprompt.ops._operator import OPERATORS, launch

pytest.importorskip("PIL.Image")
pytest.importorskip("skimage")


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
