"""Time fastprompt against every installed peer: interleaved round by round, in one process, results checked.

One thread is timed by CPU time, which a busy machine hardly disturbs; more threads by wall time. Peers are warmed up
once; their set-up is not timed. A ratio is a peer's minimum over ours.
"""

import argparse
import gc
import json
import os
import statistics
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastprompt._text import Progress, table
from fastprompt.cli import UserError, needs

if TYPE_CHECKING:
    from fastprompt.cli.peers import Case, Group, Thunk

HEADER = ("function", "implementation", "version", "min", "median", "ratio", "result", "remark")


@dataclass
class Entry:
    """One implementation, timed on one case."""

    group: "Group"
    name: str
    version: str
    note: str
    thunk: "Thunk"
    check: str = ""
    wall: list[float] = field(default_factory=list)  # ms
    cpu: list[float] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("family", nargs="?", default="all", choices=("geodesic", "euclidean", "all"))
    add("--threads", type=positive, nargs="+", default=[1], metavar="N", help="one run for each (1)")
    add("--sizes", type=positive, nargs="*", default=[512], metavar="N", help="pictures of N x N pixels (512)")
    add("--volumes", type=positive, nargs="*", default=[48], metavar="N", help="volumes of N x N x N voxels (48)")
    add("--rounds", type=positive, default=5, metavar="N", help="timed calls of each implementation (%(default)s)")
    add("--against", nargs="+", metavar="NAME", help="only peers whose name contains one of these")
    add("--json", metavar="FILE", help="write all samples, versions, shapes and threads")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def run(options: argparse.Namespace) -> int:
    import fastprompt as fp
    from fastprompt import _runtime

    groups, absent = chosen(options.family, options.against)
    print(f"fastprompt {fp.__version__}, {options.rounds} rounds, all implementations in turn in each")
    if absent:
        print(f"not installed, not measured: {', '.join(absent)}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 1 and max(options.threads) > 1:
        print(f"NOTE: other work keeps this machine busy (load average {load:.1f}); wall times say little")
    before, results = _runtime._threads, []
    try:
        for threads in sorted(options.threads):  # one first: idle workers of a peer's pool would spin beside it
            fp.set_num_threads(threads)
            for case in cases(options.sizes, options.volumes):
                entries = measure(groups, case, threads, options.rounds)
                if not entries:
                    continue
                print(f"\n{text(entries, case, threads)}", flush=True)
                results += [record(entry, case, threads) for entry in entries]
    finally:
        _runtime.set_num_threads(before)
    if options.json:
        write(options, load, results)
    return 1 if any(result["check"].startswith("WRONG") for result in results) else 0


def chosen(family: str, against: list[str] | None) -> tuple[list["Group"], list[str]]:
    """The groups with their installed peers, and the names of the packages that are missing."""
    from fastprompt.cli.peers import GROUPS, Group

    found, absent = [], []
    for group in GROUPS:
        peers = [p for p in group.peers if not against or any(a.lower() in p.name.lower() for a in against)]
        if family in (group.family, "all") and peers:
            installed = [p for p in peers if p.version]
            absent += [p.package for p in peers if not p.version]
            found += [Group(group.family, group.name, group.ours, installed)] if installed else []
    if not found:
        raise UserError(
            f"no peer to measure; install one of: {', '.join(dict.fromkeys(absent)) or 'none of this name'}"
        )
    return found, list(dict.fromkeys(absent))


def cases(sizes: list[int], volumes: list[int]) -> Iterator["Case"]:
    """The astronaut of scikit-image, in colour and grey, and smooth noise; one click at 40 % of each axis."""
    import numpy as np

    from fastprompt.cli.peers import Case

    def clicked(name: str, image: Any) -> Case:
        seeds = np.zeros(image.shape[1:], bool)
        seeds[tuple(2 * n // 5 for n in seeds.shape)] = True
        return Case(name, np.ascontiguousarray(image, np.float32), seeds)

    for size in sizes:
        colour = picture(size)
        yield clicked(f"{size} x {size} RGB", colour)
        yield clicked(f"{size} x {size} grey", colour.mean(axis=0, keepdims=True).round())
    for size in volumes:
        noise = np.random.default_rng(0).standard_normal((size,) * 3)
        squared = sum(np.meshgrid(*[np.fft.fftfreq(size) ** 2] * 3, indexing="ij"))
        smooth = np.fft.ifftn(np.fft.fftn(noise) * np.exp(-200 * squared)).real
        scaled = (smooth - smooth.min()) * (255 / max(np.ptp(smooth), 1e-30))
        yield clicked(f"{size} x {size} x {size} grey", scaled[None])


def picture(size: int) -> Any:
    """(3, size, size), intensities 0..255."""
    try:
        from PIL import Image
        from skimage import data
    except ImportError:
        raise needs("pillow", "scikit-image") from None
    import numpy as np

    resized = Image.fromarray(data.astronaut()).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(resized, np.float32).transpose(2, 0, 1)


def measure(groups: list["Group"], case: "Case", threads: int, rounds: int) -> list[Entry]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peers
        entries = [entry for group in groups for entry in prepared(group, case, threads)]
    progress = Progress(rounds * len(entries))
    gc.disable()
    try:
        for n in range(rounds):
            for entry in entries[:: -1 if n % 2 else 1]:  # back and forth: nobody always runs after the same peer
                progress.step(f"{case.name}: {entry.name}")
                wall, cpu = time.perf_counter(), time.process_time()
                entry.thunk()
                entry.cpu.append(1e3 * (time.process_time() - cpu))
                entry.wall.append(1e3 * (time.perf_counter() - wall))
    finally:
        gc.enable()
        progress.close()
    return entries


def prepared(group: "Group", case: "Case", threads: int) -> Iterator[Entry]:
    """Ours and the peers of a group, set up, warmed up and checked."""
    import fastprompt as fp

    peers = [peer for peer in group.peers if case.dims in peer.dims]
    if not peers or (group.family == "euclidean" and case.image.shape[0] > 1):  # there the colours do not matter
        return
    yield Entry(group, "fastprompt", fp.__version__, "", lambda: group.ours(case))
    wanted = group.ours(case)
    for peer in peers:
        thunk = peer.make(case, threads)
        check = agreement(thunk(), wanted, peer.compare)
        yield Entry(group, peer.name, str(peer.version), peer.note, thunk, check)


def agreement(got: Any, wanted: Any, compare: str) -> str:
    """What the table says about a peer's result; WRONG where it should be ours and is not."""
    import numpy as np

    if compare == "speed":
        return "speed only"
    if compare == "bits":
        differing = int(np.count_nonzero(np.asarray(got, np.float32) != wanted))
        return f"WRONG: {differing} pixels differ" if differing else "same bits"
    error = float(np.abs(np.asarray(got, np.float64) - wanted).max()) / max(float(np.abs(wanted).max()), 1e-30)
    if error == 0:
        return "same values"
    return f"error {error:.0e}" if error < 1e-4 else f"WRONG: error {error:.0e}"


def text(entries: list[Entry], case: "Case", threads: int) -> str:
    clock = "CPU ms" if threads == 1 else "wall ms"
    rows, group = [HEADER], None
    for entry in entries:
        if entry.name == "fastprompt":
            ours = min(times(entry, threads))
        spent = times(entry, threads)
        first = "" if entry.group is group else entry.group.name
        group = entry.group
        numbers = (f"{min(spent):.2f}", f"{statistics.median(spent):.2f}", f"{min(spent) / ours:.2f}")
        rows.append((first, entry.name, entry.version, *numbers, entry.check, entry.note))
    return f"{case.name}, threads = {threads}, {clock}\n{table(rows, right=(3, 4, 5))}"


def times(entry: Entry, threads: int) -> list[float]:
    return entry.cpu if threads == 1 else entry.wall


def record(entry: Entry, case: "Case", threads: int) -> dict[str, Any]:
    return {
        "family": entry.group.family,
        "function": entry.group.name,
        "implementation": entry.name,
        "version": entry.version,
        "case": case.name,
        "shape": list(case.image.shape),
        "threads": threads,
        "clock": "cpu" if threads == 1 else "wall",
        "min_ms": min(times(entry, threads)),
        "median_ms": statistics.median(times(entry, threads)),
        "wall_ms": entry.wall,
        "cpu_ms": entry.cpu,
        "check": entry.check,
        "note": entry.note,
    }


def write(options: argparse.Namespace, load: float, results: list[dict[str, Any]]) -> None:
    from fastprompt.cli.info import gather

    facts = gather()
    machine = {name: facts[name] for name in ("platform", "machine", "cores", "isa", "environment")}
    machine["load_average"] = load  # before the run
    report = {"versions": facts["versions"], "machine": machine, "rounds": options.rounds, "results": results}
    Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nwrote {options.json}")
