"""Whole calls of the hosts that `accelerate` speeds up: picture, click, video frame; beside the best runtimes.

python benchmarks/whole_calls.py                      # 2 threads, float32; an estimate of the time comes first
python benchmarks/whole_calls.py --hosts Sam2 --calls encode --threads 1 2 --precisions highest high medium
python benchmarks/whole_calls.py --hosts ""           # all hosts: without it, those that say something new
python benchmarks/whole_calls.py --small --rounds 1   # tiny models, to see whether it all works
python benchmarks/whole_calls.py --write              # the tables of docs/hosts.md and of the README

Every peer of a host runs in a process of its own and is called in turn, round by round. What has been measured lies in
`--results`, a line a call, and is not measured again: an interrupted run goes on where it was. `--again` measures it.
With one thread times are CPU time, else wall. Random weights of a trained size; the error is the largest difference
from the plain host over the standard deviation of its result (embedding, logits of masks).
"""

import argparse
import functools
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

from calls import tables
from calls.hosts import HOSTS
from calls.peers import OURS, PEERS, chosen
from calls.rounds import measured

START, COMPILE, RATE = 8, 30, 55  # seconds to start a peer, to compile a call; GFLOP a second and thread


def main():
    options = arguments()
    if options.write:
        return tables.write(known(options.results))
    done = [] if options.again else known(options.results)
    jobs = [job for job in plan(options) if key(*job, options) not in {r["key"] for r in done}]
    begin, all_of_them = time.monotonic(), estimate(jobs, options)
    print(f"{len(jobs)} calls to measure, some {all_of_them / 60:.0f} min; results: {options.results}", flush=True)
    for host, precision, threads in dict.fromkeys(job[:3] for job in jobs):
        calls = [call for *first, call in jobs if tuple(first) == (host, precision, threads)]
        run_host(host, precision, threads, calls, options)
        jobs = [job for job in jobs if job[:3] != (host, precision, threads)]
        left = estimate(jobs, options)
        pace = (time.monotonic() - begin) / max(all_of_them - left, 1)
        if jobs:
            print(f"  some {left * pace / 60:.0f} min left", flush=True)
    return 0


def run_host(host, precision, threads, calls, options):
    print(f"\n{host}, {precision}, threads = {threads}, {'CPU' if threads == 1 else 'wall'} ms", flush=True)
    found = measured(HOSTS[host], host, calls, options, precision=precision, threads=threads, tell=tell)
    count = 0
    for record in found:
        tell("")
        record |= {"host": host, "precision": precision, "threads": threads, "small": options.small}
        record |= {"all_peers": options.peers is None} | machine()
        record["key"] = key(host, precision, threads, record["call"], options)
        with Path(options.results).open("a") as file:  # one write a line: a kill leaves whole lines
            file.write(json.dumps(record) + "\n")
        print(tables.text(record), flush=True)
        count += 1
    if not count:
        print("  not installed")


@functools.cache
def machine():
    import fastprompt as fp

    info = Path("/proc/cpuinfo")
    names = [n for n in info.read_text().splitlines() if n.startswith("model name")] if info.exists() else []
    cpu = names[0].partition(": ")[2] if names else platform.processor()
    versions = {name: version(name) for name in ("torch", "transformers", "fastprompt")}
    return {"cpu": cpu, "isa": fp._C.best_isa(), "bf16": fp._C.bf16(), "versions": versions}


def plan(options):
    wanted = lambda name, words: words is None or any(w.lower() in name.lower() for w in words)  # noqa: E731
    return [
        (host, precision, threads, call)
        for threads in options.threads
        for precision in options.precisions
        for host in HOSTS
        if (not HOSTS[host].named if options.hosts is None else wanted(host, options.hosts))
        for call in HOSTS[host].calls
        if wanted(call, options.calls)
    ]


def key(host, precision, threads, call, options):
    peers = "all" if options.peers is None else ",".join(sorted(options.peers))
    size = "small" if options.small else "whole"
    return " | ".join([host, call, precision, str(threads), size, peers, machine()["cpu"], machine()["isa"]])


def estimate(jobs, options):
    """Seconds, from counted operations: a guide, and good enough to say how much of a run is left."""
    total = 0.0
    for host, precision, threads in dict.fromkeys(job[:3] for job in jobs):
        names = chosen(HOSTS[host], options.peers, precision)
        total += START * len(names)
        for call in [HOSTS[host].calls[c] for *first, c in jobs if tuple(first) == (host, precision, threads)]:
            once = (0.05 if options.small else call.gflop) / (RATE * threads)
            total += COMPILE * ("torch.compile" in names) * (0.3 if options.small else 1)
            total += (1 + options.rounds) * len(names) * once
    return total


def known(path):
    """Records of a file; a line that a kill cut off is none."""
    found = {}
    for line in Path(path).read_text().splitlines() if Path(path).exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        found[record["key"]] = record
    return list(found.values())


def tell(what):
    """A line of progress, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{what[:100]:100s}" + ("\r" if not what else ""), end="", file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", nargs="+", help="hosts whose name contains one of these; '': all")
    parser.add_argument(
        "--calls", nargs="+", help='only calls whose name contains one of these: encode, click, frame, "1 object"'
    )
    parser.add_argument("--precisions", nargs="+", default=["highest"], choices=["highest", "high", "medium"])
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--peers", nargs="+", choices=[p for p in PEERS if p != OURS], help="only these, and the plain host"
    )
    parser.add_argument("--small", action="store_true", help="tiny models: says whether all works, measures nothing")
    parser.add_argument("--again", action="store_true", help="measure again what is known")
    parser.add_argument("--results", default="build/whole_calls.jsonl")
    parser.add_argument(
        "--cache", default="build/whole_calls", help="exports, banks of videos, and what the peers print"
    )
    parser.add_argument("--write", action="store_true", help="write the tables from what is known, and measure nothing")
    options = parser.parse_args()
    Path(options.results).parent.mkdir(parents=True, exist_ok=True)
    options.cache = os.path.abspath(options.cache)
    return options


if __name__ == "__main__":
    sys.exit(main())
