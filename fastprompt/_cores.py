"""How many cores this process may use: the affinity, and the quota of its container."""

import functools
import math
import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def cores() -> int:
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(own, quota() or own)


@functools.cache
def quota() -> int | None:
    """Cores' worth of time that Linux gives to the group of this process and to those around it; None: no limit."""
    found = [time for name, path in groups() for folder in around(name, path) if (time := share(folder))]
    return max(1, math.ceil(min(found))) if found else None


def groups() -> list[tuple[str, str]]:
    """Where the groups that count time lie below ROOT, and the path of ours in them: of version 2, and of version 1."""
    lines = [line.split(":", 2) for line in read(Path("/proc/self/cgroup")).splitlines()]
    ours = [line for line in lines if len(line) == 3 and (line[1] == "" or "cpu" in line[1].split(","))]
    # A container sees its own group as the root, whatever the path says.
    return [(names, path) for _, names, path in ours] + [("", "/"), ("cpu", "/"), ("cpu,cpuacct", "/")]


def around(name: str, path: str) -> list[Path]:
    """The folder of a group and of those that it is in."""
    inner = Path(path.strip("/"))
    return [ROOT / name / inner, *(ROOT / name / part for part in inner.parents)]


def share(folder: Path) -> float | None:
    """Cores of one group: "200000 100000", microseconds in a period, or "max 100000"."""
    both = read(folder / "cpu.max").split()
    both = both or [read(folder / f"cpu.cfs_{part}_us").strip() for part in ("quota", "period")]
    try:
        time, period = (int(n) for n in both)
    except ValueError:  # "max", or no such file
        return None
    return time / period if time > 0 and period > 0 else None


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
