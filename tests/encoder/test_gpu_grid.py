"""Grid attention on a GPU: compiled PTX executed on CPU tensors, and the same cases on a device (``-m gpu``)."""

import numpy as np
import pytest

import fastprompt as fp

pytest.importorskip("triton", reason="triton is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

from fastprompt.kernels import encoder_grid as kernels  # noqa: E402
from grid_cases import CASES, TOLERANCE, check, exact, problem, wanted  # noqa: E402
from ptx import Fault  # noqa: E402
from ptx.build import OnPtx  # noqa: E402

from fastprompt.ops.encoder import formulas, operators  # noqa: E402

SOME = [(case, "bf16") for case in CASES]
SOME += [(case, "fp32") for case in ("ragged", "pooled and ragged", "windows of 56", "windows of 72")]
SOME += [(case, "fp16") for case in ("ragged", "pooled and ragged")]
OTHERS = [(75, "ragged", "fp16"), (75, "pooled and ragged", "fp16"), (75, "windows of 56", "fp32")]
OTHERS += [(120, case, "bf16") for case in ("ragged", "pooled and ragged")]
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


@pytest.fixture
def on_ptx(monkeypatch):
    """Puts the executor of PTX in the place of the kernel."""
    kernel = kernels.grid_kernel
    return lambda arch, **launch: monkeypatch.setattr(kernels, "grid_kernel", OnPtx(kernel, arch, **launch))


@pytest.mark.parametrize(("case", "dtype"), SOME)
def test_compiled_for_sm_80(on_ptx, case, dtype):
    on_ptx(80, check_blocks=True)
    check(case, dtype, 80, "tf32x3")


@pytest.mark.parametrize(("arch", "case", "dtype"), OTHERS)
def test_compiled_for_other_architectures(on_ptx, arch, case, dtype):
    """Those of sm_90 use wgmma, which the interpreter does not know."""
    on_ptx(arch, order=1)  # warps in random order
    check(case, dtype, arch, "ieee" if arch < 80 else "tf32x3")


def test_tf32(on_ptx, monkeypatch):
    """What "high" and "medium" ask for: less exact than "highest", and by how much."""
    on_ptx(80)
    with pytest.raises(AssertionError, match="Max absolute difference"):
        check("ragged", "fp32", 80, "tf32")
    monkeypatch.setitem(TOLERANCE, "fp32", 2e-3)
    check("ragged", "fp32", 80, "tf32")


def test_a_wrong_size_is_caught(on_ptx):
    """The kernel trusts the sizes that it is given: a place too few is read outside."""
    (q, k, v, *padding), place, scale = problem("ragged", "bf16")
    on_ptx(80)
    with pytest.raises(Fault, match="out of bounds"):
        kernels.attention(q.contiguous(), k.contiguous(), v[:, :-1].contiguous(), *padding, *place, scale, 80, "tf32x3")


@pytest.mark.parametrize("case", ["ragged", "pooled and ragged", "all, pooled"])
def test_dispatch(on_ptx, case):
    """What a CUDA tensor reaches, with the strides and types that it may have there."""
    on_ptx(80)
    (q, k, v, *padding), (size, window, pool), scale = problem(case, "bf16")
    operator, place = operators.grid_attention.on_gpu, (list(size), list(window), pool, scale)
    want = wanted(case, "bf16")
    for value in (v, v.transpose(1, 3).contiguous().transpose(1, 3), v.float()):
        out = operator(q, k, value, *(x if x is None else x.float() for x in padding), *place)
        assert out.dtype == torch.bfloat16
        assert out.is_contiguous()
        np.testing.assert_allclose(exact(out), want, rtol=0, atol=2e-2)
    wide = [None if x is None else x.double() for x in (q, k, v, *padding)]
    np.testing.assert_allclose(exact(operator(*wide, *place)), want, rtol=0, atol=1e-12)
    with fp.backend("reference"):
        np.testing.assert_allclose(exact(operator(q, k, v, *padding, *place)), want, rtol=0, atol=2e-2)
    assert operator(*(x[:0] for x in (q, k, v)), *padding, *place).shape == (0, *want.shape[1:])


def test_nan_of_a_pool_stays(on_ptx):
    on_ptx(80)
    (q, k, v, *padding), place, scale = problem("pooled and ragged", "fp32")
    q = q.contiguous()
    q[0, 1, 0, 3] = float("nan")
    given = q, k.contiguous(), v.contiguous(), *padding
    out = kernels.attention(*given, *place, scale, 80, "tf32x3")
    assert bool(out[0, 0, 0].isnan().all())
    assert not bool(out[0, 0, 1].isnan().any())
    assert not bool(out[0, 1].isnan().any())


def test_triton_interpreter(run_cases):
    said = run_cases("grid_cases.py", TRITON_INTERPRET="1")
    assert said == f"{2 * len(CASES)} cases\n"


@pytest.mark.parametrize("case", [pytest.param(name, marks=needs_gpu) for name in CASES])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_on_a_gpu(case, dtype):
    check(case, dtype, *formulas.target(torch.empty(0, device="cuda")), device="cuda")
