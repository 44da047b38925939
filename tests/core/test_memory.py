"""Working memory: how much is kept, how it is given back, and what is said where there is none."""

import re

import numpy as np
import pytest

import fastprompt as fp


def test_release_memory_gives_back_what_idle_threads_keep(fresh_python):
    fresh_python("""
import threading
import numpy as np, fastprompt as fp
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
image, seeds = np.zeros((3, 700, 700), np.float32), np.ones((700, 700), bool)
stop, ready = threading.Event(), threading.Barrier(5)
def call():
    fp.geodesic_distance(image, seeds, method="raster")
    ready.wait(), stop.wait()
threads = [threading.Thread(target=call) for _ in range(4)]
for t in threads: t.start()
ready.wait()
before = resident()
freed = fp.release_memory()
assert freed > 40 << 20, freed
assert before - resident() > 0.8 * freed, (before, resident(), freed)
assert fp.release_memory() == 0
expected = fp.geodesic_distance(image, seeds, method="raster")
assert fp.release_memory() > 0
assert np.array_equal(fp.geodesic_distance(image, seeds, method="raster"), expected)
stop.set()
for t in threads: t.join()
""")


def test_all_threads_together_keep_at_most_256_mib(fresh_python):
    """Each kept up to 256 MiB."""
    fresh_python("""
import threading
import numpy as np, fastprompt as fp
image, seeds = np.zeros((3, 1200, 1200), np.float32), np.ones((1200, 1200), bool)
stop, ready = threading.Event(), threading.Barrier(11)
def call():
    fp.geodesic_distance(image, seeds, method="raster")  # 50 MiB
    ready.wait(), stop.wait()
threads = [threading.Thread(target=call) for _ in range(10)]
for t in threads: t.start()
ready.wait()
assert 100 << 20 < fp.release_memory() <= 256 << 20
stop.set()
""")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_release_memory_in_a_forked_child(fresh_python):
    fresh_python("""
import os, threading
import numpy as np, fastprompt as fp
image, seeds = np.zeros((3, 300, 300), np.float32), np.ones((300, 300), bool)
stop, ready = threading.Event(), threading.Barrier(2)
def call():
    expected = fp.geodesic_distance(image, seeds, method="raster")
    ready.wait(), stop.wait()
thread = threading.Thread(target=call)
thread.start()
ready.wait()
child = os.fork()
if child == 0:
    first = fp.release_memory()
    fp.geodesic_distance(image, seeds, method="raster")
    os._exit(0 if first > 0 and fp.release_memory() > 0 else 1)
assert os.waitpid(child, 0)[1] == 0
stop.set()
""")


@pytest.mark.parametrize("volume", [False, True])
@pytest.mark.parametrize("threads", [1, 4])
def test_no_memory_is_a_memory_error_that_names_the_size(volume, threads, fresh_python):
    """Whichever thread asks for it; the next call is right."""
    shape = (40, 1000, 1000) if volume else (6000, 6000)
    out = fresh_python(f"""
import resource
import numpy as np, fastprompt as fp
fp.set_num_threads({threads})
image, seeds = np.zeros({shape}, np.uint8), np.ones({shape}, bool)
short = np.zeros((30, 30), np.float32), np.eye(30, dtype=bool)
expected = fp.geodesic_distance(*short, method="raster")
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20),) * 2)
try:
    fp.geodesic_distance(image, seeds, method="raster", dims={len(shape)})
except MemoryError as error:
    print(error)
assert np.array_equal(fp.geodesic_distance(*short, method="raster"), expected)
""")
    assert re.search(r"needs [\d.]+ GB", out), out


def test_thin_pictures_and_volumes_take_at_most_four_times_their_result(fresh_python):
    """Their rows were padded to whole vectors: a hundred times the result."""
    fresh_python("""
import os, resource
import numpy as np, fastprompt as fp
n = 10**6
shapes = [(1, n), (n, 1), (3, n // 3), (n // 3, 3)]
shapes += [(1, 1, n), (1, n, 1), (n, 1, 1), (2, 3, n // 6), (n // 4, 2, 2), (2, n // 2, 1)]
def geodesic(method):
    return lambda image, seeds: fp.geodesic_distance(image, seeds, method=method, dims=seeds.ndim)
calls = {method: geodesic(method) for method in ("raster", "toivanen", "exact")}
calls["euclidean"] = lambda image, seeds: fp.euclidean_distance_transform(seeds, dims=seeds.ndim)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def fits(call, shape):
    image, seeds = np.ones(shape, np.uint8), np.ones(shape, bool)
    before = peak()
    out = call(image, seeds)
    return peak() - before <= 4 * out.nbytes + (8 << 20)
for name, call in calls.items():
    for shape in shapes:
        child = os.fork()
        if child == 0:
            os._exit(0 if fits(call, shape) else 1)
        assert os.waitpid(child, 0)[1] == 0, (name, shape)
""")


def test_thin_pictures_have_the_distances_of_wide_ones():
    """The columns of a picture behind a wall do not change those before it: thin and wide solvers, the same bits."""
    rng = np.random.default_rng(0)
    for thin, wide in [((3, 30000), (64, 30000)), ((30000, 3), (30000, 64))]:
        image, seeds = rng.random((2, *wide), dtype=np.float32), rng.random(wide) < 0.001
        wall = np.ones(wide, bool)
        part = tuple(slice(n) for n in thin)
        wall[part] = False
        seeds &= ~wall
        for method in ("raster", "toivanen"):
            expected = fp.geodesic_distance(image, seeds, method=method, barriers=wall)[part]
            found = fp.geodesic_distance(image[(slice(None), *part)], seeds[part], method=method)
            np.testing.assert_array_equal(found, expected)
