"""Uninitialised memory is NaN in every test, so that a pixel that a kernel forgets cannot pass for a result."""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from poison import poisoned

import fastprompt._C as _C

LEVELS = ["baseline", "avx2", "avx512"]
ISAS = LEVELS[: LEVELS.index(_C.best_isa()) + 1]
HAS_AMX = _C.bf16() == "amx"


@pytest.fixture(autouse=True)
def poisoned_empty(monkeypatch):
    monkeypatch.setattr(np, "empty", poisoned)


@pytest.fixture(params=ISAS)
def isa(request):
    """Runs a test once per instruction set that this machine has."""
    _C.set_isa(request.param)
    yield request.param
    _C.set_isa(_C.best_isa())


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    """Runs the instructions that csrc/common/bf16_amx.cpp was compiled to."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    made = tmp_path_factory.mktemp("amx") / "amx.so"
    source = Path(__file__).with_name("amx_emulator.c")
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-o", made, source], check=True)
    return ctypes.CDLL(str(made))


@pytest.fixture(params=["plain", "avx512_bf16", "amx"])
def engine(request):
    """Products of bfloat16 numbers by every engine; AMX in an emulator where the machine has none."""
    if request.param != "plain" and _C.best_isa() != "avx512":
        pytest.skip("bfloat16 products of the machine need AVX-512")
    emulated = request.param == "amx" and not HAS_AMX
    library = request.getfixturevalue("emulator") if emulated else None
    try:
        _C.set_bf16(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    if library:
        assert library.amx_install() == 0
    yield request.param
    if library:
        assert library.amx_remove() == 0
    _C.set_bf16("best")


@pytest.fixture
def precision():
    """``torch.set_float32_matmul_precision``, undone behind the test."""
    import torch

    before = torch.get_float32_matmul_precision()
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


@pytest.fixture(autouse=True, scope="session")
def registered():
    """``torch.ops.fastprompt`` is there before the first tensor: these tests ask it directly."""
    if importlib.util.find_spec("torch"):
        import fastprompt.metrics
        import fastprompt.ops._torch  # noqa: F401


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def started(arguments, folder, environment):
    """A new interpreter that must end well; outside the source tree, whose ``fastprompt`` folder has no compiled module
    and would hide the installed package."""
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def fresh_python(tmp_path):
    """``fresh_python(code, **environment)``: the output of a new interpreter, which says nothing else."""

    def run(code, **environment):
        done = started(["-c", code], tmp_path, environment)
        assert done.stderr.strip() == ""
        return done.stdout

    return run


@pytest.fixture
def run_cases(tmp_path):
    """``run_cases(file, **environment)``: what a file of tests/support prints, in a new interpreter."""
    support = Path(__file__).with_name("support")
    return lambda file, **environment: started([support / file], tmp_path, environment).stdout
