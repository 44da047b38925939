"""What the benchmarks have in common: peers called in turn, round by round, in one process."""

import contextlib
import importlib.util
import math
import statistics
import time
from importlib.metadata import version

import fastprompt as fp


def interleaved(calls, rounds, threads, *, repeat=lambda name, n: 1, seconds=math.inf):
    """Times in ms by name: every round calls all, every other round backwards.

    ``repeat(name, n)``: how often in a row in round ``n``. ``seconds``: no further round after them, but for three.
    With one thread CPU time is taken, of all threads of the process: who else has the core does not show.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    times, begin = {name: [] for name in calls}, time.perf_counter()
    for n in range(rounds):
        for name in list(calls)[:: -1 if n % 2 else 1]:
            for _ in range(repeat(name, n)):
                start = clock()
                calls[name]()
                times[name].append(1e3 * (clock() - start))
        if time.perf_counter() - begin > seconds and n >= 2:
            break
    return times


def heading(what, threads, rounds, note=""):
    print(f"\n{what}, threads = {threads}, {rounds} rounds interleaved, {'CPU' if threads == 1 else 'wall'} ms{note}")


def line(name, spent, base, note="", *, digits=2):
    """Print one of a table; ``base``: the times that the ratio is to."""
    low, middle = min(spent), statistics.median(spent)
    numbers = f"min {low:9.{digits}f}  median {middle:9.{digits}f}  ratio {low / min(base):7.2f}"
    print(f"{name!s:28s} {numbers}  {note}", flush=True)


@contextlib.contextmanager
def computing(precision="highest", isa="best"):
    """Our kernels in this precision, and on this instruction set."""
    import torch

    torch.set_float32_matmul_precision(precision)
    fp._C.set_isa(fp._C.best_isa() if isa == "best" else isa)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")
        fp._C.set_isa(fp._C.best_isa())


def installed(package):
    return importlib.util.find_spec(package) is not None


def against(peers, names):
    """Of ``{name: (package, ...)}``: our own, and those whose name contains one of ``names`` (None: all)."""
    wanted = lambda name: names is None or any(n.lower() in name.lower() for n in names)  # noqa: E731
    return {name: peer for name, peer in peers.items() if peer[0] == "fastprompt" or wanted(name)}


def compared(what, calls, peers, errors, threads, rounds, *, digits=1):
    """Call all in turn, and print a table: times, versions, and the error of each."""
    times = interleaved(calls, rounds, threads)
    heading(what, threads, rounds)
    for name, spent in times.items():
        note = f"{version(peers[name][0])}  error {errors[name]:.1e}"
        line(name, spent, times["fastprompt fp32"], note, digits=digits)
