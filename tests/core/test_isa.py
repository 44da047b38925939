"""One kernel source, several instruction sets: the choice, and that no copy leaks into code that every machine runs."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from fastprompt import _C

LEVELS = ["baseline", "avx2", "avx512"]
ISAS = LEVELS[: LEVELS.index(_C.best_isa()) + 1]
ROOT = Path(__file__).parents[2]
X86 = platform.machine() in ("x86_64", "AMD64")


@pytest.mark.parametrize("level", LEVELS)
def test_the_environment_forces_a_lower_level(level, fresh_python):
    used = fresh_python("from fastprompt import _C; print(_C.isa())", FASTPROMPT_ISA=level).strip()
    assert used == (level if level in ISAS else ISAS[-1])


def test_never_above_the_machine():
    for level in LEVELS:
        _C.set_isa(level)
        assert _C.isa() == (level if level in ISAS else ISAS[-1])
    _C.set_isa(ISAS[-1])


@pytest.mark.skipif(not (X86 and shutil.which("g++") and shutil.which("nm")), reason="needs g++ and nm on x86-64")
@pytest.mark.parametrize("source", sorted(ROOT.glob("csrc/**/*.simd.cpp")), ids=lambda p: p.name)
def test_every_symbol_is_in_its_own_namespace(source, tmp_path):
    """The linker keeps one copy of a weak symbol for every caller: if it is the AVX-512 one, an older machine dies of
    an illegal instruction. Unoptimised, every template and inline function that is used shows as such a symbol."""
    made = tmp_path / "copy.o"
    flags = ["-std=c++17", "-O0", "-march=x86-64-v4", "-DFP_ISA=avx512", "-w", "-I", str(ROOT / "csrc")]
    subprocess.run(["g++", *flags, "-c", str(source), "-o", str(made)], check=True)
    lines = subprocess.run(["nm", "-C", str(made)], check=True, capture_output=True, text=True).stdout.splitlines()
    shared = {line[19:] for line in lines if line[17] in "WVu" and not line[19:].startswith("DW.ref.__gxx")}
    assert {name for name in shared if "fastprompt::avx512::" not in name.partition("(")[0]} == set()
