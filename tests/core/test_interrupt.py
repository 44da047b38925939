"""Ctrl-C ends long calls, and nothing is lost: what was asked for before is there, and the next call is right."""

import json
import subprocess
import sys

import pytest

# The code of a child: `long()` would take minutes. The signal comes while it runs; a second too late is far too early.
CHILD = """
import os, signal, threading, time
import numpy as np, fastprompt as fp
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without it
fp.set_num_threads({threads})
rng = np.random.default_rng(0)
image, seeds = rng.random((3, 70, 80), dtype=np.float32), np.zeros((70, 80), bool)
seeds[3, 4] = True
def short():
    return [fp.geodesic_distance(image, seeds, method=m) for m in ("exact", "raster", "toivanen")]
expected = short()
{prepare}
long = lambda: {call}
sent = []
def interrupt():
    time.sleep(0.5)
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
    os._exit(3)  # it has not been heard
thread = threading.Thread(target=interrupt, daemon=True)
thread.start()
try:
    long()
except KeyboardInterrupt:
    took = time.monotonic() - sent[0]
    assert took < 5, took
else:
    raise AssertionError("it ended by itself")
assert all(np.array_equal(x, y) for x, y in zip(short(), expected))
"""

PICTURE = "big, few = rng.random((3, 1500, 1500), dtype=np.float32), np.zeros((1500, 1500), bool); few[0, 0] = True"
VOLUME = "big, few = rng.random((40, 200, 200), dtype=np.float32), np.zeros((40, 200, 200), bool); few[0, 0] = True"
LINE = "big, few = rng.random((1, 10**6), dtype=np.float32), np.zeros((1, 10**6), bool); few[0, 0] = True"
REGIONS = "big = (np.arange(10**6) // 4).reshape(1000, 1000); clicks = rng.random((20000, 2)) * 900"
LAYER = "from fastprompt import _C\nrows = rng.random((1, 2 * 10**4, 1, 64), dtype=np.float32)"
READ = "_C.memory_read(query=rows, key=rows, value=rows, out=np.empty_like(rows), scale=1.0, threads={threads}, precision=0)"
RASTER = "fp.geodesic_distance(big, few, method='raster', iterations=10**4)"
LONG = {
    "raster": (PICTURE, RASTER),
    "toivanen": (PICTURE, RASTER.replace("raster", "toivanen")),
    "exact": (PICTURE, "[fp.geodesic_distance(big, few, lam=0.9999) for _ in range(100)]"),
    "raster of a volume": (VOLUME, RASTER.replace(")", ", dims=3)")),
    "raster of a line": (LINE, RASTER),
    "signed": (PICTURE, "fp.signed_geodesic_distance(big, few, method='raster', iterations=10**4)"),
    "superpixels": (REGIONS, "fp.superpixel_map(big, clicks, np.ones(len(clicks), np.int64))"),
    "memory": (LAYER, READ),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", LONG)
def test_ctrl_c_ends_a_long_call(name, threads, fresh_python):
    prepare, call = LONG[name]
    fresh_python(CHILD.format(threads=threads, prepare=prepare, call=call.format(threads=threads)))


def test_a_handler_that_does_not_raise_is_called_and_the_call_goes_on(fresh_python):
    fresh_python("""
import signal, time
import numpy as np, fastprompt as fp
called = []
def handler(*_):  # even one that calls a kernel
    called.append(time.monotonic())
    fp.geodesic_distance([[0.0, 1.0]], [[1, 0]], method="raster")
signal.signal(signal.SIGALRM, handler)
image, seeds = np.zeros((3, 800, 800), np.float32), np.zeros((800, 800), bool)
seeds[0, 0] = True
expected = fp.geodesic_distance(image, seeds, method="raster")
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.3)
for _ in range(100):
    found = fp.geodesic_distance(image, seeds, method="raster", iterations=300)
    returned = time.monotonic()
    if any(t < returned for t in called):
        break
assert called and np.array_equal(found, expected)
""")


def test_a_handler_that_raises_something_else_is_heard(fresh_python):
    fresh_python("""
import signal
import numpy as np, fastprompt as fp
class Late(Exception): pass
def handler(*_): raise Late("too late")
signal.signal(signal.SIGALRM, handler)
image, seeds = np.zeros((3, 1000, 1000), np.float32), np.ones((1000, 1000), bool)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    fp.geodesic_distance(image, seeds, method="raster", iterations=10**4)
except Late as error:
    assert str(error) == "too late"
else:
    raise AssertionError
""")


def test_threads_that_are_not_the_main_one_go_on(fresh_python):
    """Ctrl-C belongs to the main thread; a call of another ends as it would."""
    fresh_python("""
import os, signal, threading, time
import numpy as np, fastprompt as fp
signal.signal(signal.SIGINT, signal.default_int_handler)
image, seeds = np.zeros((3, 700, 700), np.float32), np.zeros((700, 700), bool)
seeds[0, 0] = True
expected, found = fp.geodesic_distance(image, seeds, method="raster"), []
def call(): found.append(fp.geodesic_distance(image, seeds, method="raster", iterations=300))
thread = threading.Thread(target=call)
thread.start()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    pass
thread.join()
assert np.array_equal(found[0], expected)
""")


def test_daemon_threads_in_calls_at_the_end_of_the_process(fresh_python):
    """It ended with "terminate called": once Python is finalised, a thread that wants its lock is unwound."""
    fresh_python("""
import threading
import numpy as np, fastprompt as fp
image, seeds = np.zeros((3, 200, 200), np.float32), np.ones((200, 200), bool)
def call():
    while True:
        fp.geodesic_distance(image, seeds, method="raster"), fp.euclidean_distance_transform(seeds)
for _ in range(3):
    threading.Thread(target=call, daemon=True).start()
call_once = fp.geodesic_distance(image, seeds)
""")


EVALUATION = """
import os, signal, sys
import numpy as np, fastprompt as fp
signal.signal(signal.SIGINT, signal.default_int_handler)
rng = np.random.default_rng(0)
samples = [(k, rng.random((60, 60)) < 0.5) for k in range(12)]
def predictor(image, points, labels):
    if image == int(sys.argv[2]) and len(points) == 3:
        os.kill(os.getpid(), signal.SIGINT)
    out = np.zeros((60, 60), bool)
    out[points[labels == 1][:, 1], points[labels == 1][:, 0]] = True
    return out
try:
    found = fp.evaluate_clicks(predictor, samples, max_clicks=8, results=sys.argv[1] or None, progress=False)
except KeyboardInterrupt:
    sys.exit(130)
print([c.tolist() for c in found.curves])
"""


def test_an_evaluation_keeps_what_it_has_found(tmp_path):
    def run(file, stop):
        command = [sys.executable, "-c", EVALUATION, str(file), str(stop)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    whole = run("", -1)
    assert run(tmp_path / "results", 7).returncode == 130
    lines = (tmp_path / "results").read_text().splitlines()
    assert [json.loads(line)["sample"] for line in lines[1:]] == list(range(7))
    assert whole.returncode == 0
    assert run(tmp_path / "results", -1).stdout == whole.stdout
