"""The suite of whole calls: it runs, goes on where it was, and writes the tables that its records say."""

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")
import whole_calls
from calls import tables

SCRIPT = Path(whole_calls.__file__)


@pytest.fixture
def suite(fresh_python, tmp_path):
    """``suite(…)``: what it prints on its standard output; it says nothing else where there is no terminal."""

    def run(*arguments):
        given = ["--small", "--rounds=1", "--threads=1", f"--results={tmp_path}/r.jsonl", f"--cache={tmp_path}/cache"]
        code = f"import runpy, sys; sys.argv[1:] = {[*given, *arguments]}; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
        return fresh_python(f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); {code}")

    return run


def records(tmp_path):
    return [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]


def test_it_runs_and_goes_on(suite, tmp_path):
    what = ["--hosts", "Sam2VideoModel", "SamModel", "--calls", "click", "1 object", "--peers", "ONNX Runtime"]
    text = suite(*what)
    click, frame = records(tmp_path)
    assert (click["call"], frame["call"]) == ("click", "frame, 1 object")
    assert set(click["peers"]) == {"eager", "fastprompt", "ONNX Runtime"}
    for record in (click, frame):
        assert record["peers"]["eager"]["error"] == 0
        assert record["peers"]["fastprompt"]["error"] < 1e-4
        assert 0.1 < record["peers"]["eager"]["std"][0] < 10
        assert record["report"]["replaced"] >= 2
    assert click["peers"]["ONNX Runtime"]["error"] < 1e-4
    assert set(frame["peers"]) == {"eager", "fastprompt"}  # nothing exports a frame
    assert "2 calls to measure" in text
    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    (tmp_path / "r.jsonl").write_text(lines[0] + "\n" + lines[1] + "\n" + lines[1][:50])  # killed while it wrote
    assert suite(*what).startswith("0 calls to measure")


def record(host, call, ours, **peers):
    found = {name.replace("_", " "): {"min": t, "error": error} for name, (t, error) in peers.items()}
    found["fastprompt"] = {"min": ours, "error": 4e-6}
    versions = {"torch": "2", "transformers": "5", "fastprompt": "0"}
    more = {"small": False, "all_peers": True, "cpu": "a CPU", "isa": "avx2", "bf16": "plain", "versions": versions}
    return {"host": host, "call": call, "precision": "highest", "threads": 2, "peers": found} | more


def test_the_best_peer_computes_the_same():
    wrong = record("A", "encode", 1.0, eager=(3.0, 0.0), ONNX_Runtime=(2.0, 0.5))
    assert tables.best_peer(wrong)[0] == "eager"
    assert tables.best_peer(record("A", "encode", 1.0, eager=(3.0, 0.0), sdpa=(2.0, 1e-6)))[0] == "sdpa"
    alone = record("A", "encode", 1.0)
    alone["peers"]["eager"] = {"failed": "not installed"}
    assert tables.ratio(alone) is None


def test_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    for name in ("docs/hosts.md", "README.md"):
        (tmp_path / name).write_text(f"before\n{tables.BEGIN}\n\nold\n\n{tables.END}\nafter\n")
    assert tables.write([record("A", "encode", 1.0, eager=(2.0, 0.0)) | {"small": True}]) == 1  # measures nothing
    assert "old" in (tmp_path / "README.md").read_text()
    found = [record("A", "encode", 1.0, eager=(2.0, 0.0)), record("B", "click", 0.01, eager=(0.0102, 0.0))]
    assert tables.write(found) == 0
    for name in ("docs/hosts.md", "README.md"):
        text = (tmp_path / name).read_text()
        assert text.startswith("before\n")
        assert text.endswith("after\n")
        assert "old" not in text
    whole = (tmp_path / "docs/hosts.md").read_text().replace(tables.TIMES, "x")
    assert "| A | encode | eager 2.00 s | 1.00 s | **2.0x** | 4e-6 | 0 |" in whole
    assert "| B | click | eager 10.2 ms | 10.0 ms | 1.02x | 4e-6 | 0 |" in whole
    assert "Gain nothing: B (click)." in whole
    assert "| A | **2.0x** |  |  |  |" in (tmp_path / "README.md").read_text().replace(tables.TIMES, "x")


def test_the_pages_have_their_marks():
    for name in ("docs/hosts.md", "README.md"):
        text = (tables.ROOT / name).read_text("utf-8")
        assert text.count(tables.BEGIN) == 1
        assert tables.END in text.partition(tables.BEGIN)[2]
