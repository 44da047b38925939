"""Uninitialised memory is NaN in every test, so that a pixel that a kernel forgets cannot pass for a result."""

import os
import subprocess
import sys

import numpy as np
import pytest

import fastprompt._C as _C

LEVELS = ["baseline", "avx2", "avx512"]
ISAS = LEVELS[: LEVELS.index(_C.best_isa()) + 1]


@pytest.fixture(autouse=True)
def poisoned_empty(monkeypatch):
    empty = np.empty

    def poisoned(shape, dtype=float, *args, **kwargs):
        out = empty(shape, dtype, *args, **kwargs)
        if out.dtype.kind == "f":
            out.fill(np.nan)
        return out

    monkeypatch.setattr(np, "empty", poisoned)


@pytest.fixture(params=ISAS)
def isa(request):
    """Runs a test once per instruction set that this machine has."""
    _C.set_isa(request.param)
    yield request.param
    _C.set_isa(_C.best_isa())


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def fresh_python(tmp_path):
    """``fresh_python(code, **environment)``: the output of a new interpreter, started outside the source tree,
    whose ``fastprompt`` folder has no compiled module and would hide the installed package."""

    def run(code, **environment):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.strip() == ""
        return done.stdout

    return run
