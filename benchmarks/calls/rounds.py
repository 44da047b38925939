"""The parent's side: children of all peers of a host, called in turn, round by round."""

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
from calls.peers import OURS, Job, chosen

QUICK = 0.25  # seconds: what takes less is called several times in a round


class Child:
    """One peer of one host."""

    def __init__(self, job, log):
        environment = os.environ | {"OMP_NUM_THREADS": str(job.threads), "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, Path(__file__).with_name("child.py")]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        self.found = self.ask(job=asdict(job))

    def ask(self, **order):
        """What it answers; that it has ended is a failure like any other."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"failed": f"the process ended with {self.process.wait()}"}

    def end(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def measured(host, name, calls, options, *, precision, threads, tell):
    """A record a call: the times and the error of every peer."""
    cache = Path(options.cache)
    cache.mkdir(parents=True, exist_ok=True)
    children, failed = {}, {}
    with (cache / "peers.log").open("a") as log:
        try:
            for peer in chosen(host, options.peers, precision):
                tell(f"{name}: {peer} starts")
                child = Child(Job(name, peer, precision, threads, options.small, str(cache)), log)
                children[peer] = child
                if lost := child.found.get("failed") or (child.found.get("missing") and "not installed"):
                    failed[peer] = lost
                    children.pop(peer).end()
                    if "missing" in child.found and peer == host.kinds[0]:
                        return  # the host itself
            for call in calls:
                yield record(call, children, failed, cache / slug(name, call, options.small), options.rounds, tell)
        finally:
            for child in children.values():
                child.end()


def slug(*words):
    return "".join(c if c.isalnum() else "_" for c in "-".join(map(str, words)))


def record(call, children, failed, folder, rounds, tell):
    folder.mkdir(exist_ok=True)
    found = {peer: {"failed": why} for peer, why in failed.items()}
    ready, took = [], {}
    for peer, child in children.items():
        tell(f"{call}: {peer} prepares")
        answer = child.ask(do="prepare", call=call, folder=str(folder), seen=str(folder / f"{slug(peer)}.npz"))
        if "failed" in answer:
            found[peer] = answer
        else:
            took[peer] = answer["spent"][-1]
            ready.append(peer)
    times = {peer: [took[peer]] if call.startswith("frame") else [] for peer in ready}  # the second frame is a round
    left = max(1, rounds - call.startswith("frame"))
    interleaved({peer: children[peer] for peer in ready}, took, times, left, lambda n: tell(f"{call}: round {n}"))
    for peer in ready:
        found[peer] = {
            "min": min(times[peer]),
            "median": statistics.median(times[peer]),
            "rounds": len(times[peer]),
            "version": children[peer].found["version"],
        } | difference(folder, ready[0], peer)
        children[peer].ask(do="drop")
    for file in folder.glob("*.npz"):
        file.unlink()
    ours = children[OURS].found if OURS in children else {}
    return {
        "call": call,
        "peers": found,
        "report": {k: ours[k] for k in ("replaced", "skipped", "remains") if k in ours},
    }


def interleaved(children, took, times, rounds, tell):
    """Adds to ``times``: every round calls all, every other one backwards; what is quick often, up to ``QUICK``."""
    for n in range(rounds):
        tell(n + 1)
        for peer in list(children)[:: -1 if n % 2 else 1]:
            again = max(1, min(10, math.floor(QUICK / max(took[peer], 1e-3))))
            times[peer] += children[peer].ask(do="call", times=again)["spent"]
            took[peer] = times[peer][-1]  # the first one may have compiled


def difference(folder, reference, peer):
    """The largest difference from the reference over the standard deviation of its result, the worst of all results."""
    want, got = (np.load(folder / f"{slug(name)}.npz") for name in (reference, peer))
    pairs = [(want[name].astype(np.float64), got[name].astype(np.float64)) for name in want.files if name in got.files]
    if any(w.shape != g.shape for w, g in pairs):
        return {"error": None, "std": None}
    return {
        "error": max(float(np.abs(w - g).max() / (w.std() or 1)) for w, g in pairs),
        "std": [round(float(w.std()), 3) for w, _ in pairs],
    }
