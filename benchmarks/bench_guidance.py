"""Maps of 24 positive and 24 negative clicks: ours beside RITM's torch formula, compiled and not, and other forms.

python benchmarks/bench_guidance.py --threads 1 2     # interleaved, minima, with the results compared
python benchmarks/bench_guidance.py --memory          # how much higher the peak of the resident memory is, call by call
pytest benchmarks/bench_guidance.py --benchmark-enable --benchmark-group-by=group --benchmark-sort=min

"RITM" is the formula of DistMaps' torch path: [48, 2, H, W] numbers and their minimum. "fused" is one expression, for
the compiler. "torch, best" is the strongest plain form found: squares along each axis, one click after the other added
and compared in place; of disks only a box around each click. "SciPy" is the exact transform of the seeds, for whole
clicks only. RITM's Cython path needs its repository; measured apart, it took 55 ms at 1024 x 1024.
"""

import argparse
import functools
import resource
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
from harness import heading, interleaved, line

import fastprompt as fp

torch = pytest.importorskip("torch")

CLICKS = 24  # of each sign
SIDES = (512, 1024)
ENCODINGS = {"disk": 5.0, "tanh": 260.0, "tanh, radius 5": 5.0, "euclidean": None}


@functools.cache
def clicks(side):
    """(1, 48, 3) of whole row, column and order, positive ones first."""
    g = torch.Generator().manual_seed(0)
    place = torch.randint(0, side, (1, 2 * CLICKS, 2), generator=g).float()
    return torch.cat([place, torch.arange(2.0 * CLICKS).view(1, -1, 1)], 2)


def formula(points, side, radius, disks, raw=False):
    """What RITM's torch path computes, in its order: a map of every click, in place, then the least."""
    count = points.shape[1] // 2
    place = points.reshape(-1, 3)[:, :2]
    axis = torch.arange(side, dtype=torch.float32)
    maps = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))[None].repeat(len(place), 1, 1, 1)
    maps.sub_(place[:, :, None, None])
    if not disks and not raw:
        maps.div_(radius)
    maps.mul_(maps)
    maps[:, 0] += maps[:, 1]
    maps = maps[:, :1]
    maps[place.amax(1) < 0] = 1e6
    maps = maps.view(-1, count, 1, side, side).min(1)[0].view(-1, 2, side, side)
    if disks:
        return (maps <= radius**2).float()
    return maps.sqrt_() if raw else maps.sqrt_().mul_(2).tanh_()


def best(points, side, radius, disks, raw=False):
    axis, out = torch.arange(side, dtype=torch.float32), []
    for chosen in points[0, :, :2].view(2, -1, 2):
        if disks:
            out.append(boxes(chosen, axis, radius))
            continue
        squares = (axis - chosen[..., None]).square_()  # (clicks, 2, side)
        least = torch.full((side, side), torch.inf)
        both = torch.empty(side, side)
        for down, across in squares:
            torch.minimum(least, torch.add(down[:, None], across, out=both), out=least)
        out.append(least.sqrt_() if raw else least.sqrt_().mul_(2 / radius).tanh_())
    return torch.stack(out)[None]


def boxes(chosen, axis, radius):
    out, reach = torch.zeros(len(axis), len(axis)), int(radius) + 1
    for row, column in chosen.tolist():
        y0, x0 = max(int(row) - reach, 0), max(int(column) - reach, 0)
        y, x = axis[y0 : int(row) + reach + 1] - row, axis[x0 : int(column) + reach + 1] - column
        part = out[y0 : y0 + len(y), x0 : x0 + len(x)]
        part[(y * y)[:, None] + x * x <= radius**2] = 1
    return out


def scipy_transform(points, side, radius, disks, raw=False):
    from scipy.ndimage import distance_transform_edt

    out = []
    for chosen in points[0, :, :2].view(2, -1, 2).long().numpy():
        background = np.ones((side, side), bool)
        background[chosen[:, 0], chosen[:, 1]] = False
        distance = distance_transform_edt(background)
        out.append(distance if raw else distance <= radius if disks else np.tanh(2 * distance / radius))
    return torch.from_numpy(np.stack(out).astype(np.float32))[None]


def ours(points, side, radius, disks, raw=False):
    xy, labels = points[..., [1, 0]], (points[..., 2] < CLICKS).long()
    options = {} if raw else {"radius": radius}
    return fp.click_map(
        xy, labels, size=(side, side), encoding="euclidean" if raw else "disk" if disks else "tanh", **options
    )


def fused(points, side, radius, disks, raw=False):
    """The formula as one expression, so that a compiler can take the least without writing the maps."""
    axis, place = torch.arange(side, dtype=torch.float32), points[..., :2].view(2, -1, 2, 1, 1)
    least = ((axis[:, None] - place[:, :, 0]).square() + (axis - place[:, :, 1]).square()).amin(1)[None]
    if disks:
        return (least <= radius**2).float()
    return least.sqrt() if raw else (least.sqrt() * (2 / radius)).tanh()


@functools.cache
def compiled(function):
    torch._dynamo.reset()  # else other sizes and threads use up its limit, and it runs uncompiled
    return torch.compile(function, dynamic=False)


def compiled_formula(*arguments):
    return compiled(formula)(*arguments)


def compiled_fused(*arguments):
    return compiled(fused)(*arguments)


PEERS = {
    "fastprompt": ours,
    "RITM": formula,
    "RITM, torch.compile": compiled_formula,
    "fused, torch.compile": compiled_fused,
    "torch, best": best,
    "SciPy": scipy_transform,
}


def arguments(encoding, side):
    return clicks(side), side, ENCODINGS[encoding], encoding == "disk", encoding == "euclidean"


@functools.cache
def exact(encoding, side):
    """In float64."""
    points, _, radius, disks, raw = arguments(encoding, side)
    axis, out = np.arange(side, dtype=np.float64), []
    for chosen in points[0, :, :2].view(2, -1, 2).double().numpy():
        d2 = functools.reduce(np.minimum, ((axis - y)[:, None] ** 2 + (axis - x) ** 2 for y, x in chosen))
        out.append(d2 <= radius**2 if disks else np.sqrt(d2) if raw else np.tanh(2 * np.sqrt(d2) / radius))
    return torch.from_numpy(np.stack(out).astype(np.float64))[None]


def error(got, encoding, side):
    """Absolute, relative to the largest value."""
    want = exact(encoding, side)
    return float((got - want).abs().max() / want.max())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("peer", PEERS)
def test_click_map(benchmark, peer, encoding, side, threads):
    if peer == "SciPy":
        pytest.importorskip("scipy")
    torch.set_num_threads(threads)
    call = functools.partial(PEERS[peer], *arguments(encoding, side))
    call()  # compiles
    benchmark.group = f"{encoding}, {side} x {side}, {threads} threads"
    found = error(benchmark(call), encoding, side)
    benchmark.extra_info.update(error=found, torch=torch.__version__, clicks=2 * CLICKS, threads=threads)
    assert found <= (0 if encoding == "disk" else 1e-6)


def table(encoding, side, threads, rounds):
    torch.set_num_threads(threads)
    calls = {peer: functools.partial(f, *arguments(encoding, side)) for peer, f in PEERS.items()}
    errors = {peer: error(call(), encoding, side) for peer, call in calls.items()}
    times = interleaved(calls, rounds, threads, repeat=lambda peer, n: 5 if peer == "fastprompt" else 1)
    what = f"{encoding}, {side} x {side}, {2 * CLICKS} clicks"
    heading(what, threads, rounds, f", {versions()}")
    for peer, spent in times.items():
        line(peer, spent, times["fastprompt"], f"error {errors[peer]:.1e}", digits=3)


def versions():
    return f"torch {torch.__version__}, scipy {version('scipy')}"


def memory(peer, encoding, side):
    """In a process of its own: how much the peak rises in a call, once a small one has loaded all."""
    torch.set_num_threads(1)
    PEERS[peer](clicks(64), 64, *arguments(encoding, side)[2:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    held = PEERS[peer](*arguments(encoding, side))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rise, size = (after - before) / 1024, held.nbytes / 2**20
    print(f"{peer:20s} {encoding:10s} {side} x {side}: {rise:7.1f} MiB, output {size:.0f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--encodings", nargs="*", default=list(ENCODINGS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--memory-of", nargs=3, metavar=("PEER", "ENCODING", "SIDE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        memory(*options.memory_of[:2], int(options.memory_of[2]))
    elif options.memory:
        for side in SIDES:
            for peer in PEERS:
                if "compile" not in peer:  # the compiler's own memory is higher
                    for encoding in ("disk", "tanh"):
                        subprocess.run([sys.executable, __file__, "--memory-of", peer, encoding, str(side)], check=True)
    else:
        for threads in options.threads:
            for side in SIDES:
                for encoding in options.encodings:
                    table(encoding, side, threads, options.rounds)
