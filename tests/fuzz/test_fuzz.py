"""A minute of the fuzzer, and the calls that once were finds. ``make fuzz`` runs it under sanitizers, for longer."""

import multiprocessing

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
from fuzz import doors, run

CALLS = {"raw": 500, "public": 1500, "fields": 2000, "nodes": 2000, "files": 800}
FOUND = {  # by door: seeds of calls that once were wrong
    "raw": [1004995, 1006337, 1012780, 1049682, 62, 71, 78, 99, 164, 226, 293, 466, 529, 740, 1210, 1231, 5135, 100332],
    "public": [1139714, 36, 42, 344, 1290, 1695],
    "fields": [5318, 7243, 101000],  # and under UBSan 197, 377, 422, 478
    "nodes": [7739],
    "files": [],
}


def fuzz(door, *several):
    """Counts and finds of runs with such options, in a process of its own: the fuzzer sets limits, and how memory is
    filled."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=run.in_turn, args=(door, several, theirs))
    process.start()
    made = ours.recv() if ours.poll(300) else [({door: {}}, [(door, 0, "does not answer")])]
    process.join()
    return [counts[door] for counts, _ in made], [find for _, finds in made for find in finds]


@pytest.mark.parametrize("door", CALLS)
def test_door(door):
    (counts,), finds = fuzz(door, {"seconds": 250, "calls": CALLS[door]})
    assert finds == []
    assert counts["right"] > 0.1 * CALLS[door]
    assert counts["refused"] > 0.1 * CALLS[door]


@pytest.mark.parametrize("door", [door for door in FOUND if FOUND[door]])
def test_what_was_found(door):
    assert fuzz(door, *({"seconds": 60, "first": seed, "calls": 1} for seed in FOUND[door]))[1] == []


def test_a_find_is_told(monkeypatch):
    """A wrong exception, a crash and a hang."""
    wrong = {1: "raise KeyError(1)", 2: "os.kill(os.getpid(), 11)", 3: "time.sleep(60)"}

    def door(seed):
        exec("import os, time\n" + wrong.get(seed, ""))
        return "right"

    monkeypatch.setitem(doors.DOORS, "wrong", door)
    monkeypatch.setattr(doors, "prepare", lambda: None)
    monkeypatch.setattr(run, "PATIENCE", 1.0)
    counts, finds = run.run(["wrong"], seconds=60, calls=5)
    assert [(seed, what.split()[0]) for _, seed, what in finds] == [(1, "in"), (2, "crashes"), (3, "hangs")]
    assert counts["wrong"]["right"] == 2
