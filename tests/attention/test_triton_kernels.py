"""The Triton kernels and their launchers: compiled PTX executed on CPU tensors, and Triton's own interpreter."""

import pytest

pytest.importorskip("triton", reason="triton is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

from fastprompt.kernels import attention  # noqa: E402
from ptx.build import OnPtx  # noqa: E402
from triton_cases import ALL, CASES  # noqa: E402


@pytest.fixture
def on_ptx(monkeypatch):
    """Puts the executor of PTX in the place of every kernel."""

    def install(arch, **launch):
        for name in [n for n in vars(attention) if n.endswith("_kernel")]:
            monkeypatch.setattr(attention, name, OnPtx(getattr(attention, name), arch, **launch))

    return install


@pytest.mark.parametrize(("name", "case"), ALL, ids=str)
def test_compiled_for_sm_80(on_ptx, name, case):
    on_ptx(80, check_blocks=True)
    CASES[name][0](*case)


OTHERS = [(name, arch) for name in CASES for arch in (75, 90, 120)]
OTHERS.remove(("prompt_to_image", 90))  # wgmma, which the interpreter does not know


@pytest.mark.parametrize(("name", "arch"), OTHERS)
def test_compiled_for_other_architectures(on_ptx, name, arch):
    on_ptx(arch, order=1)  # warps in random order
    CASES[name][0](*CASES[name][1][2 if arch == 120 else 1])


def test_triton_interpreter(run_cases):
    said = run_cases("triton_cases.py", TRITON_INTERPRET="1")
    assert said == f"{len(ALL) - 6} cases\n", "all but attention in bfloat16"
