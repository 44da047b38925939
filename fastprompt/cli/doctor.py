"""Self-test: every operator against its reference, with each instruction set of this machine, on 1 and 2 threads."""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from fastprompt._text import Progress

if TYPE_CHECKING:
    from fastprompt._selftest.check import Check

ISAS = ("baseline", "avx2", "avx512")  # each machine has those up to its best
THREADS = (1, 2)


class Verdict(NamedTuple):
    """What came of one check: the largest error, and the settings that failed with what they gave."""

    error: float
    failed: list[tuple[str, int, str]]  # instruction set, threads, message


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # no options


def run(options: argparse.Namespace) -> int:
    from fastprompt._selftest import checks, untested

    begin, todo = time.perf_counter(), list(checks())
    width = max(len(check.name) for check in todo)
    progress, verdicts = Progress(len(todo)), []
    for check in todo:
        progress.step(check.name)
        verdicts.append(examine(check))
        progress.close()
        print(line(check, verdicts[-1], width))
    for name in untested():
        print(f"- {name}  has no self-test")
    print(f"\n{summary(verdicts)} in {time.perf_counter() - begin:.1f} s")
    failures = [failure for verdict in verdicts for failure in verdict.failed]
    if failures:
        print(advice(failures))
    return 1 if failures else 0


def examine(check: "Check") -> Verdict:
    worst, failed = 0.0, []
    with restored_settings():
        for isa, threads in settings():
            try:
                error = check.error()
            except Exception as problem:  # a check that cannot run is a finding, not the end of the others
                failed.append((isa, threads, f"{type(problem).__name__}: {problem}"))
                continue
            worst = max(worst, error)
            if error > check.tolerance:
                failed.append((isa, threads, f"error {error:.1e}, allowed {check.tolerance:.0e}"))
    return Verdict(worst, failed)


def settings() -> Iterator[tuple[str, int]]:
    """Switches to every instruction set and number of threads in turn."""
    from fastprompt import _C, set_num_threads

    for isa in available_isas():
        for threads in THREADS:
            _C.set_isa(isa)
            set_num_threads(threads)
            yield isa, threads


def available_isas() -> list[str]:
    from fastprompt import _C

    return list(ISAS[: ISAS.index(_C.best_isa()) + 1])


@contextlib.contextmanager
def restored_settings() -> Iterator[None]:
    from fastprompt import _C, _runtime

    isa, threads = _C.isa(), _runtime._threads
    try:
        yield
    finally:
        _C.set_isa(isa)
        _runtime.set_num_threads(threads)


def line(check: "Check", verdict: Verdict, width: int) -> str:
    good, bad = ("✓", "✗") if can_print("✓✗") else ("ok  ", "FAIL")
    if not verdict.failed:
        agreement = "same bits" if verdict.error == 0 else f"error {verdict.error:.1e}"
        return f"{good} {check.name:<{width}}  {agreement}"
    details = "".join(f"\n    {isa}, threads={threads}: {message}" for isa, threads, message in verdict.failed)
    return f"{bad} {check.name}{details}"


def can_print(characters: str) -> bool:
    try:
        characters.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def summary(verdicts: list[Verdict]) -> str:
    bad = sum(bool(verdict.failed) for verdict in verdicts)
    result = f"{bad} of {len(verdicts)} checks FAILED" if bad else f"all {len(verdicts)} checks passed"
    return f"{result} ({', '.join(available_isas())}; threads 1 and 2)"


def advice(failures: list[tuple[str, int, str]]) -> str:
    sound = [isa for isa in available_isas() if isa not in {isa for isa, _, _ in failures}]
    way_out = f"FASTPROMPT_ISA={sound[-1]}" if sound else "FASTPROMPT_BACKEND=reference (slow)"
    return (
        "Please report this output together with that of `python -m fastprompt info --json`.\n"
        f"Until it is fixed, set the environment variable {way_out}: it passes these checks."
    )
