"""Calls in forked workers: what crashes or hangs one is reported with its seed, and the next goes on behind it."""

import faulthandler
import mmap
import os
import signal
import struct
import tempfile
import time
from collections import Counter

from fuzz import doors
from fuzz.nodes import node_cases
from fuzz.outcomes import Find

PATIENCE = 30.0  # seconds that one call may take, under sanitizers and load


class Worker:
    """One process at a time, on the seeds first, first + step, …"""

    def __init__(self, door, first, step):
        self.door, self.next, self.step = door, first, step
        self.state = mmap.mmap(-1, 32)  # the seed at hand, calls right and refused
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  lives as long as the worker
        self.pid, self.seen = 0, (0, 0.0)
        self.finds = []

    def start(self, limit):
        self.log.seek(0)
        self.log.truncate()
        self.pid = os.fork()
        self.seen = (-1, time.monotonic())
        if self.pid:
            return
        os.dup2(self.log.fileno(), 2)
        faulthandler.enable()
        right, refused = struct.unpack("qq", self.state[8:24])
        for seed in range(self.next, limit, self.step):
            self.state[:24] = struct.pack("qqq", seed, right, refused)
            try:
                found = doors.call(self.door, seed)
                right, refused = right + (found == "right"), refused + (found == "refused")
            except Find as find:
                os.write(2, f"FIND {seed} {find}\n".replace("\n", " ").encode() + b"\n")
            except BaseException as error:
                os.write(2, f"FIND {seed} in the fuzzer: {error!r}\n".encode())
        self.state[:24] = struct.pack("qqq", limit, right, refused)
        os._exit(0)

    def look(self, limit):
        """True while it runs."""
        seed = struct.unpack("q", self.state[:8])[0]
        if self.seen[0] != seed:
            self.seen = seed, time.monotonic()
        hangs = time.monotonic() - self.seen[1] > PATIENCE
        if hangs:
            os.kill(self.pid, signal.SIGKILL)
        pid, status = os.waitpid(self.pid, 0 if hangs else os.WNOHANG)
        if not pid:
            return True
        self.gather(seed, "hangs" if hangs else f"crashes ({status})" if status else "")
        self.next = seed + self.step
        return seed < limit and bool(status) and (self.start(limit) or True)

    def gather(self, seed, crash):
        self.log.seek(0)
        text = self.log.read()
        for line in text.splitlines():
            if line.startswith("FIND "):
                _, at, what = line.split(" ", 2)
                self.finds.append((self.door, int(at), what))
        # The sanitizer's `new` ends the process where the usual one throws, which is a MemoryError.
        if crash and "allocator is out of memory" not in text:
            told = [
                line
                for line in text.splitlines()
                if any(word in line for word in ("ERROR: Add", "runtime error", "#1 ", "#2 ", "#3 ", "Fatal"))
            ]
            self.finds.append((self.door, seed, f"{crash} {' | '.join(told[:5])}"[:500]))

    def stop(self):
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            return
        self.gather(0, "")

    def counts(self):
        return Counter(dict(zip(("right", "refused"), struct.unpack("qq", self.state[8:24]), strict=True)))


def run(names, *, seconds, first=0, calls=1 << 60, each=1):
    """``each`` workers on every door until the time is over or all have made their calls: counts, and finds."""
    doors.prepare()
    if "nodes" in names:
        node_cases()
    workers = [Worker(name, first + k, each) for name in names for k in range(each)]
    limit = first + calls
    for worker in workers:
        worker.start(limit)
    end, running = time.monotonic() + seconds, list(workers)
    while running and time.monotonic() < end:
        time.sleep(0.05)
        running = [worker for worker in running if worker.look(limit)]
    for worker in running:
        worker.stop()
    counts = {name: sum((w.counts() for w in workers if w.door == name), Counter()) for name in names}
    for worker in workers:
        worker.log.close()
        worker.state.close()
    return counts, [find for worker in workers for find in worker.finds]


def in_turn(door, several, pipe):
    """Sends what runs with several options give: for a process of its own."""
    pipe.send([run([door], **options) for options in several])


def report(counts, finds):
    for door, count in counts.items():
        print(f"{door:8s} {sum(count.values()):9d} calls: {count['right']} right, {count['refused']} refused")
    kinds = Counter()
    for door, seed, what in finds:
        key = (door, what[:60])
        kinds[key] += 1
        if kinds[key] <= 2:
            print(f"FIND {door}:{seed} {what}")
    print(f"{len(finds)} finds")
