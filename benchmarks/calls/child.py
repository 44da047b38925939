"""One peer of one host in a process of its own: reads orders from stdin, answers each with a line of JSON.

Peers keep much memory, and threads are set for a process: so each has one, and the parent calls them in turn.
"""

import importlib.util
import json
import os
import sys
import time
import traceback
import warnings
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the peers print goes where their errors go
    warnings.simplefilter("ignore")
    work = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            work = work or Work(**order)
            found = work.start() if "job" in order else getattr(work, order.pop("do"))(**order)
        except Exception as error:
            traceback.print_exc()
            found = {
                "failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160] if str(error) else ''}"
            }
        answers.write(json.dumps(found) + "\n")
        answers.flush()


class Work:
    def __init__(self, job):
        from calls.hosts import HOSTS
        from calls.peers import Job

        self.job, self.host = Job(**job), HOSTS[job["host"]]

    def start(self):
        import torch
        from calls import peers

        import fastprompt as fp

        package = peers.PEERS[self.job.peer][0]
        missing = [name for name in (self.host.package, *self.host.needs, package) if not installed(name)]
        if missing:
            return {"missing": " ".join(missing)}
        torch.set_grad_enabled(False)  # predictors and video models enter inference mode themselves where they want it
        self.model = peers.prepared(self.job, self.host)
        found = {"version": version(package)}
        if self.job.peer == peers.OURS:
            report = fp.report(peers.inner(self.model))
            found |= {"replaced": len(report.replaced), "skipped": report.skipped, "remains": report.remains}
        return found

    def prepare(self, call, folder, seen):
        """The first call, and a second if that is quick or of a video; says what the last took. What is compared goes
        into ``seen``: the first result, and of a video the second, which reads a memory of its own."""
        import numpy as np
        from calls import peers

        self.run = peers.made(self.job, self.host.calls[call], call, self.model, folder)
        spent, results = self.call(), [self.result]
        if call.startswith("frame") or spent["spent"][0] < 1:
            spent = self.call()
        if call.startswith("frame"):
            results.append(self.result)
        self.result = None
        np.savez(seen, *(np.asarray(x, np.float32) for result in results for x in several(result)))
        return spent

    def call(self, times=1):
        """Seconds of each; with one thread of CPU: who else has the core does not show."""
        clock, spent = time.process_time if self.job.threads == 1 else time.perf_counter, []
        for _ in range(times):
            start = clock()
            self.result = self.run()
            spent.append(clock() - start)
        return {"spent": spent}

    def drop(self):
        self.run = self.result = None
        return {}


def installed(name):
    return importlib.util.find_spec(name) is not None


def several(result):
    return result if isinstance(result, (list, tuple)) else [result]


if __name__ == "__main__":
    main()
