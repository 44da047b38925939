"""The Triton kernels of pooling, similarity and pruning: compiled PTX executed on CPU tensors, through their launchers and
through the operators, and Triton's own interpreter."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

import triton_cases_pooling as cases  # noqa: E402
from fastprompt.kernels import pooling, pruning, similarity  # noqa: E402
from ptx import Fault  # noqa: E402
from ptx.build import OnPtx  # noqa: E402

NEVER_ON_75 = "bf16"  # sm_75 has no bfloat16


@pytest.fixture
def on_ptx(monkeypatch):
    """Puts the executor of PTX in the place of every kernel."""

    def install(arch, **launch):
        monkeypatch.setattr(cases, "HOW", "ieee" if arch == 75 else "tf32x3")
        for module in (pooling, similarity, pruning):
            for name in [n for n in vars(module) if n.endswith("_kernel")]:
                monkeypatch.setattr(module, name, OnPtx(getattr(module, name), arch, **launch))

    return install


@pytest.mark.parametrize(("name", "case"), cases.ALL, ids=str)
def test_compiled_for_sm_80(on_ptx, name, case):
    on_ptx(80, check_blocks=True)
    cases.CASES[name][0](*case)


# One case of each kernel; products of matrices on sm_90 are wgmma, which the interpreter does not know.
OTHERS = [
    (name, arch, case)
    for name, (_, all_cases) in cases.CASES.items()
    for arch, n in ((75, 1), (90, 1), (120, 2))
    for case in [next((c for c in all_cases[n:] if arch != 75 or NEVER_ON_75 not in c), all_cases[-1])]
    if (name, arch) != ("prior", 90)
]


@pytest.mark.parametrize(("name", "arch", "case"), OTHERS, ids=str)
def test_compiled_for_other_architectures(on_ptx, name, arch, case):
    on_ptx(arch, order=1)  # warps in random order
    cases.CASES[name][0](*case)


def test_triton_interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    script = Path(__file__).with_name("triton_cases_pooling.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    left_out = sum(name in ("similarity", "prior") and case[:1] == ("bf16",) for name, case in cases.ALL)
    assert done.stdout == f"{len(cases.ALL) - left_out} cases\n", "all but products of bfloat16"


def test_a_wrong_size_is_caught(on_ptx):
    """The kernels trust the sizes that they are given: one token too many lies outside."""
    on_ptx(80)
    pruning.prune(torch.ones(1, 32, 4), torch.zeros(1, 32), 5)
    with pytest.raises(Fault, match="out of bounds"):
        pruning.prune(torch.ones(1, 32, 4), torch.zeros(1, 31), 5)
