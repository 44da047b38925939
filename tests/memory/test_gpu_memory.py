"""Memory reads on a GPU: compiled PTX executed on CPU tensors, and the same cases on a device (``-m gpu``)."""

import numpy as np
import pytest

import fastprompt as fp

pytest.importorskip("triton", reason="triton is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

from fastprompt.kernels import memory as kernels  # noqa: E402
from memory_cases import CASES, TOLERANCE, check, exact, problem, wanted  # noqa: E402
from ptx import Fault  # noqa: E402
from ptx.build import OnPtx  # noqa: E402

from fastprompt.ops.encoder.formulas import target  # noqa: E402
from fastprompt.ops.memory import operators  # noqa: E402
from fastprompt.reference import memory as reference  # noqa: E402

SOME = [(case, "bf16") for case in CASES]
SOME += [(case, "fp32") for case in ("frames and pointers", "splits", "odd width", "wide keys", "wide values")]
SOME += [(case, "fp16") for case in ("frames and pointers", "splits")]
OTHERS = [(75, "frames and pointers", "fp16"), (75, "wide keys", "fp16"), (75, "odd width", "fp32")]
OTHERS += [(120, case, "bf16") for case in ("splits", "wide values")]
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]
KERNELS = {name: kernel for name, kernel in vars(kernels).items() if name.endswith("_kernel")}


@pytest.fixture
def on_ptx(monkeypatch):
    """Puts the executor of PTX in the place of every kernel."""

    def install(arch, **launch):
        for name, kernel in KERNELS.items():
            monkeypatch.setattr(kernels, name, OnPtx(kernel, arch, **launch))

    return install


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
        check("splits", "fp32", 80, "tf32")
    monkeypatch.setitem(TOLERANCE, "fp32", 2e-3)
    check("splits", "fp32", 80, "tf32")


def test_a_wrong_size_is_caught(on_ptx):
    """The kernels trust the sizes that they are given: a place too few is read outside."""
    (q, k, v), _, _ = problem("not turned", "bf16")
    on_ptx(80)
    with pytest.raises(Fault, match="out of bounds"):
        kernels.read(q.contiguous(), k[:, :-9].contiguous(), v, 0.2, 80, "tf32x3")


@pytest.mark.parametrize(("keys", "programs", "tile"), [(1, 1, 64), (28736, 64, 32), (4096, 4096, 64), (1000, 1, 16)])
def test_no_split_is_empty(keys, programs, tile):
    splits, each = kernels.splits_of(keys, programs, tile, torch.device("cpu"))
    assert (splits - 1) * each < keys <= splits * each
    assert each % tile == 0


# ---------------------------------------------------------------- the operators


def close(got, want):
    assert got.dtype == torch.bfloat16
    assert got.is_contiguous()
    np.testing.assert_allclose(exact(got), want, rtol=0, atol=2e-2 * max(1, np.abs(want).max()))


@pytest.mark.parametrize("case", ["splits", "no frame"])
def test_turned_reads(on_ptx, case):
    """What a CUDA tensor reaches, with the strides and types that it may have there."""
    on_ptx(80)
    (q, k, v), tables, unturned = problem(case, "bf16")
    want, scale, operator = wanted(case, "bf16")[0], q.shape[-1] ** -0.5, operators.turned_memory_read.on_gpu
    for value in (v, v.transpose(1, 3).contiguous().transpose(1, 3), v.float()):
        close(operator(q, k, value, *tables, unturned, scale), want)
    close(operator(q, k, v, *(x.T.contiguous().T for x in tables), unturned, scale), want)
    wide = [x.double() for x in (q, k, v, *tables)]
    np.testing.assert_allclose(exact(operator(*wide, unturned, scale)), want, rtol=0, atol=1e-12)
    with fp.backend("reference"):
        close(operator(q, k, v, *tables, unturned, scale), want)
    assert operator(q[:0], k[:0], v[:0], *tables, unturned, scale).shape == (0, *want.shape[1:])


def test_reads(on_ptx):
    on_ptx(80)
    (q, k, v), _, _ = problem("not turned", "bf16")
    found = operators.memory_read.on_gpu(q, k, v, q.shape[-1] ** -0.5)
    for got, want in zip(found, wanted("not turned", "bf16"), strict=True):
        close(got, want)


def test_projected_reads(on_ptx, monkeypatch):
    """The keys are a layer of the host; what torch calls for a CUDA tensor then is the read of turned keys."""
    on_ptx(80)
    monkeypatch.setattr(torch.ops.fastprompt, "turned_memory_read", operators.turned_memory_read.on_gpu)
    (q, source, _), tables, unturned = problem("frames and pointers", "fp32")
    q, source, value = q[:, :, 0], source[:, :, 0], source[:, :, 0].flip(1)
    rng = np.random.default_rng(1)
    layer = [torch.from_numpy(rng.standard_normal(n, np.float32) / 4) for n in ((32, 32), (32,))]
    given = q, source, value, layer, *tables, [4, 4], unturned, 0.2
    want = reference.projected_memory_read(
        *([*map(exact, x)] if x is layer else exact(x) for x in given[:8]), *given[8:]
    )
    got = operators.projected_memory_read.on_gpu(*given)
    np.testing.assert_allclose(exact(got), want, rtol=0, atol=2e-5 * np.abs(want).max())


def test_triton_interpreter(run_cases):
    said = run_cases("memory_cases.py", TRITON_INTERPRET="1")
    assert said == f"{2 * len(CASES)} cases\n"


@pytest.mark.parametrize("case", [pytest.param(name, marks=needs_gpu) for name in CASES])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_on_a_gpu(case, dtype):
    check(case, dtype, *target(torch.empty(0, device="cuda")), device="cuda")
