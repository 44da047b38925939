"""What all operators share: a light import, threads that follow the process, fork."""

import threading
from pathlib import Path

import numpy as np
import pytest

import fastprompt as fp
from fastprompt import _cores


def test_import_has_no_side_effect(fresh_python):
    fresh_python("""
import os, sys, threading
import numpy
before = dict(os.environ), os.getcwd(), set(sys.modules), threading.active_count()
import fastprompt
assert (dict(os.environ), os.getcwd()) == before[:2] and threading.active_count() == before[3]
new = {name.partition(".")[0] for name in set(sys.modules) - before[2]}
assert not new & {"torch", "triton", "onnx", "scipy", "skimage", "PIL", "importlib_metadata", "asyncio"}, new
""")


def test_importing_leaves_to_later_what_few_need(fresh_python):
    """Beyond what NumPy has imported already; the modules behind them took 40 ms of 65."""
    fresh_python("""
import sys, numpy
before = set(sys.modules)
import fastprompt
late = {"importlib.metadata", "subprocess", "tempfile", "statistics", "fastprompt.export"} - before
assert not late & set(sys.modules), late & set(sys.modules)
assert fastprompt.export.onnx and "fastprompt.export" in sys.modules
""")


def test_threads_follow_the_environment_and_torch(fresh_python):
    pytest.importorskip("torch")
    code = "import fastprompt as fp; n = fp.get_num_threads(); import torch; torch.set_num_threads(3)"
    assert fresh_python(code + "; print(n, fp.get_num_threads())", OMP_NUM_THREADS="5").split() == ["5", "3"]
    fixed = (
        "import fastprompt as fp, torch; fp.set_num_threads(4); torch.set_num_threads(3); print(fp.get_num_threads())"
    )
    assert fresh_python(fixed).strip() == "4"


@pytest.mark.parametrize(("value", "threads"), [("2,1", 2), (" 3 ", 3), ("3", 3), ("0", 64), ("x", 64), ("", 64)])
def test_the_first_number_of_omp_num_threads(fresh_python, value, threads):
    code = (
        "import os; os.sched_getaffinity = lambda pid: range(64); from fastprompt import _cores; _cores.quota = lambda: None;"
        "import fastprompt as fp; print(fp.get_num_threads())"
    )
    assert fresh_python(code, OMP_NUM_THREADS=value).strip() == str(threads)


QUOTAS = {  # files of cgroups, cores of 64
    "none": ({}, 64),
    "v2": ({"cpu.max": "200000 100000\n"}, 2),
    "v2, half a core more": ({"cpu.max": "250000 100000\n"}, 3),
    "v2, a tenth": ({"cpu.max": "10000 100000\n"}, 1),
    "v2, no limit": ({"cpu.max": "max 100000\n"}, 64),
    "v2, more than there are": ({"cpu.max": "9900000 100000\n"}, 64),
    "v2, of a group": ({"own": "0::/a/b", "a/b/cpu.max": "400000 100000"}, 4),
    "v2, of a group around it": ({"own": "0::/a/b", "a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
    "v2, seen from inside": ({"own": "0::/../../x", "cpu.max": "100000 100000"}, 1),
    "v1": ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    "v1, of a group": (
        {
            "own": "4:cpu,cpuacct:/d",
            "cpu,cpuacct/d/cpu.cfs_quota_us": "50000",
            "cpu,cpuacct/d/cpu.cfs_period_us": "10000",
        },
        5,
    ),
    "v1, no limit": ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
    "nonsense": ({"own": "a:b\n::", "cpu.max": "many", "cpu/cpu.cfs_quota_us": "1"}, 64),
    "no period": ({"cpu.max": "100000 0"}, 64),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_quotas_of_containers(monkeypatch, name):
    files, wanted = QUOTAS[name]
    known = {"/proc/self/cgroup" if k == "own" else f"/sys/fs/cgroup/{k}": text for k, text in files.items()}
    monkeypatch.setattr(_cores, "read", lambda path: known.get(str(path), ""))
    monkeypatch.setattr(_cores.os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    _cores.quota.cache_clear()
    assert _cores.cores() == wanted
    _cores.quota.cache_clear()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_fork_after_the_pool_has_started(fresh_python):
    """A child inherits the memory of the pool, not its threads."""
    fresh_python("""
import os, signal
import numpy as np, fastprompt as fp
fp.set_num_threads(3)
rng = np.random.default_rng(0)
image, seeds = rng.random((3, 90, 90), dtype=np.float32), rng.random((90, 90)) < 0.01
expected = fp.geodesic_distance(image, seeds)
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if np.array_equal(fp.geodesic_distance(image, seeds), expected) else 1)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(fp.geodesic_distance(image, seeds), expected)
""")


def test_the_source_tree_without_what_is_compiled_is_named(fresh_python, tmp_path):
    """Python started in the source tree finds that first."""
    (tmp_path / "fastprompt").mkdir()
    (tmp_path / "fastprompt" / "__init__.py").write_text(
        Path(__file__).parents[2].joinpath("fastprompt/__init__.py").read_text()
    )
    said = fresh_python("""
import sys
sys.meta_path[:] = [f for f in sys.meta_path if f.__module__.startswith("_frozen")]  # those of editable installs go first
try:
    import fastprompt
except ImportError as error:
    print(error)
""")
    assert said.startswith(
        f"{tmp_path / 'fastprompt'} is fastprompt's source, without what is compiled: start Python in"
    )


def test_the_interpreter_runs_on_during_a_call():
    """The GIL is released: another thread counts while a kernel works."""
    image, seeds = np.zeros((1500, 1500), np.float32), np.zeros((1500, 1500), bool)
    seeds[0, 0] = True
    counted, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            counted[0] += 1

    counter = threading.Thread(target=count)
    counter.start()
    before = counted[0]
    fp.geodesic_distance(image, seeds, method="exact")
    during = counted[0] - before
    stop.set()
    counter.join()
    assert during > 1000
