"""``evaluate_clicks`` and its results file: what is there is not computed again, and not believed unseen."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap

import click_samples
import numpy as np
import pytest
from click_samples import disks, samples

import fastprompt as fp


class Counted:
    def __init__(self, stop_after=None):
        self.calls, self.stop_after = 0, stop_after

    def __call__(self, *args):
        self.calls += 1
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        return disks(*args)


def same(a, b):
    np.testing.assert_equal(a.curves, b.curves)
    np.testing.assert_equal(a.clicks, b.clicks)
    assert a.metrics == b.metrics


def test_resume(tmp_path):
    file, whole = tmp_path / "results.jsonl", fp.evaluate_clicks(disks, samples())
    needed = [len(curve) for curve in whole.curves]
    with pytest.raises(KeyboardInterrupt):
        fp.evaluate_clicks(Counted(needed[0] + needed[1] + 1), samples(), results=file)
    again = Counted()
    same(fp.evaluate_clicks(again, samples(), results=file), whole)
    assert again.calls == sum(needed[2:])  # two samples were done
    idle = Counted()
    same(fp.evaluate_clicks(idle, samples(), results=file), whole)
    same(fp.evaluate_clicks(idle, iter(samples()), results=file), whole)
    assert idle.calls == 0
    assert os.listdir(tmp_path) == ["results.jsonl"]


def test_only_samples_without_results_are_read(tmp_path):
    class Lazy(list):
        read = 0

        def __getitem__(self, k):
            self.read += 1
            return super().__getitem__(k)

    file = tmp_path / "results.jsonl"
    fp.evaluate_clicks(disks, samples()[:4], results=file)
    lazy = Lazy(samples())
    fp.evaluate_clicks(disks, lazy, results=file)
    assert lazy.read == 2


def test_more_results_than_samples(tmp_path):
    fp.evaluate_clicks(disks, samples(), results=tmp_path / "r")
    same(fp.evaluate_clicks(disks, samples()[:2], results=tmp_path / "r"), fp.evaluate_clicks(disks, samples()[:2]))


@pytest.mark.parametrize("cut", [1, 5, 30, 10**9])
def test_a_torn_end(tmp_path, cut):
    """As after a full disk or a lost machine: the end of the file is missing; 10**9: all of it."""
    file, whole = tmp_path / "results.jsonl", fp.evaluate_clicks(disks, samples(3))
    fp.evaluate_clicks(disks, samples(3), results=file)
    data = file.read_bytes()
    file.write_bytes(data[: max(len(data) - cut, 0)])
    same(fp.evaluate_clicks(disks, samples(3), results=file), whole)
    assert file.read_bytes() == data


def test_killed(tmp_path):
    """SIGKILL in the middle of a sample, twice."""
    code = textwrap.dedent(f"""
        import os, signal, sys
        sys.path.insert(0, {os.path.dirname(click_samples.__file__)!r})
        import fastprompt as fp, click_samples as t
        calls = 0
        def predictor(*args):
            global calls
            calls += 1
            if calls == 45:
                os.kill(os.getpid(), signal.SIGKILL)
            return t.disks(*args)
        fp.evaluate_clicks(predictor, t.samples(), results="results.jsonl", name="disks")
    """)
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert 3 <= len(lines) < 7
    whole = fp.evaluate_clicks(disks, samples())
    same(fp.evaluate_clicks(disks, samples(), results=tmp_path / "results.jsonl", name="disks"), whole)


def test_what_is_in_the_file(tmp_path):
    file = tmp_path / "r"
    found = fp.evaluate_clicks(disks, samples(2), results=file, name="toy, disks")
    first, *rest = map(json.loads, file.read_text().splitlines())
    assert first["options"]["name"] == "toy, disks"
    assert [line["sample"] for line in rest] == [0, 1]
    assert rest[1]["iou"] == found.curves[1].tolist()
    assert rest[1]["clicks"] == found.clicks[1].tolist()


@pytest.mark.parametrize("other", [{"max_clicks": 7}, {"name": "b"}, {"ignore": 255}, {"stop_at": 0.5}], ids=str)
def test_results_of_another_run_are_refused(tmp_path, other):
    fp.evaluate_clicks(disks, samples(1), results=tmp_path / "r")
    before = (tmp_path / "r").read_bytes()
    with pytest.raises(ValueError, match=r"results: .* holds other options: .* expected"):
        fp.evaluate_clicks(disks, samples(1), results=tmp_path / "r", **other)
    assert (tmp_path / "r").read_bytes() == before


@pytest.mark.parametrize(("line", "text"), [
    (1, "no json"), (1, '{"options"'), (2, "{}"), (2, "3"), (2, '{"sample": 0, "iou": []}'),
])  # fmt: skip
def test_other_files_are_refused(tmp_path, line, text):
    fp.evaluate_clicks(disks, samples(2), results=tmp_path / "r")
    lines = (tmp_path / "r").read_text().splitlines()
    lines[line - 1] = text
    (tmp_path / "r").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=rf"results: line {line} of .*r is no result"):
        fp.evaluate_clicks(disks, samples(2), results=tmp_path / "r")


@pytest.mark.parametrize(("change", "said"), [
    ({"iou": [5.0]}, "iou must hold numbers from 0 to 1"),
    ({"iou": [-0.1]}, "iou must hold numbers from 0 to 1"),
    ({"iou": [math.nan]}, "iou must hold numbers from 0 to 1"),
    ({"iou": ["0.5"]}, "iou must hold numbers from 0 to 1"),
    ({"iou": [True]}, "iou must hold numbers from 0 to 1"),
    ({"iou": []}, "iou must be a list of 1 to 20 numbers"),
    ({"iou": [0.1] * 21}, "iou must be a list of 1 to 20 numbers"),
    ({"iou": 0.5}, "iou must be a list of 1 to 20 numbers"),
    ({"sample": -1}, "sample must be an integer of at least 0, got -1"),
    ({"sample": "0"}, "sample must be an integer of at least 0"),
    ({"sample": 0.0}, "sample must be an integer of at least 0"),
    ({"clicks": []}, "clicks must be x, y and label"),
    ({"clicks": [[1, 2]]}, "clicks must be x, y and label"),
    ({"clicks": [[1, 2, 2]]}, "clicks must be x, y and label"),
    ({"clicks": [[-1, 2, 1]]}, "clicks must be x, y and label"),
    ({"clicks": [[1.5, 2, 1]]}, "clicks must be x, y and label"),
    ({"clicks": None}, "clicks must be x, y and label"),
], ids=str)  # fmt: skip
def test_results_are_not_believed(tmp_path, change, said):
    file = tmp_path / "r"
    fp.evaluate_clicks(disks, samples(2), results=file)
    first, _, last = file.read_text().splitlines()
    right = {"sample": 0, "iou": [0.5], "clicks": [[1, 2, 1]]}
    file.write_text("\n".join((first, json.dumps(right), last)) + "\n")
    assert fp.evaluate_clicks(disks, samples(2), results=file).curves[0].tolist() == [0.5]
    file.write_text("\n".join((first, json.dumps(right | change), last)) + "\n")
    with pytest.raises(ValueError, match=rf"results: line 2 of .*r is no result: {said}"):
        fp.evaluate_clicks(disks, samples(2), results=file)


@pytest.mark.parametrize("number", [1, 2])
def test_results_that_are_no_text(tmp_path, number):
    file = tmp_path / "r"
    fp.evaluate_clicks(disks, samples(2), results=file)
    lines = file.read_bytes().splitlines()
    lines[number - 1] = lines[number - 1].replace(b":", b": \xff", 1)
    file.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(ValueError, match=rf"results: line {number} of .*r is no result: .*utf-8"):
        fp.evaluate_clicks(disks, samples(2), results=file)
