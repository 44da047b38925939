"""Relative position on a GPU: compiled PTX executed on CPU tensors, and the same cases on a device (``-m gpu``)."""

import numpy as np
import pytest

import fastprompt as fp

pytest.importorskip("triton", reason="triton is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

from fastprompt.kernels import encoder_relative as kernels  # noqa: E402
from fastprompt.kernels import encoder_relative_backward as backward  # noqa: E402
from ptx import Fault  # noqa: E402
from ptx.build import OnPtx  # noqa: E402

from fastprompt.ops.encoder import formulas, operators  # noqa: E402
from fastprompt.reference import encoder as reference  # noqa: E402

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCE = {"fp32": 2e-5, "bf16": 2e-2, "fp16": 3e-3}  # of the largest value
# images, grid, heads, width, window, tokens of a list (0: all of the grid)
CASES = {
    "one token": (1, (1, 1), 1, 16, None, 0),
    "ragged": (2, (5, 7), 2, 32, None, 0),
    "one row": (1, (1, 70), 1, 80, None, 0),
    "square": (1, (14, 14), 2, 64, None, 0),
    "wide": (1, (3, 75), 1, 16, None, 0),
    "odd width": (1, (4, 6), 2, 10, None, 0),
    "windows": (1, (10, 18), 2, 64, (14, 14), 0),
    "windows that fit": (2, (8, 6), 1, 80, (4, 3), 0),
    "small windows": (2, (5, 7), 1, 16, (2, 3), 0),
    "list": (2, (9, 10), 2, 32, None, 47),
    "long list": (1, (20, 70), 1, 80, None, 70),
}


def normal(rng, *shape):
    return torch.from_numpy(rng.standard_normal(shape, np.float32))


def problem(case, dtype):
    """q, k, v as views of one tensor, tables, coordinates, padding; size and window; scale."""
    images, size, heads, width, window, listed = CASES[case]
    rng, cell = np.random.default_rng(0), window or size
    tokens = listed or size[0] * size[1]
    q, k, v = normal(rng, images, tokens, 3, heads, width).to(DTYPES[dtype]).unbind(2)
    tables = [(0.4 * normal(rng, 2 * n - 1, width)).to(DTYPES[dtype]) for n in cell]
    padding = [normal(rng, heads, width).to(DTYPES[dtype]) if window else None for _ in range(2)]
    places = None
    if listed:  # one list for all, or one each
        places = torch.from_numpy(rng.integers(0, size, (1 if images == 1 else images, tokens, 2)).astype(np.int32))
    return (q, k, v, *tables, places, *padding), (size, window or (0, 0)), width**-0.5


def plain(x):
    return None if x is None else x.cpu().double().numpy() if x.is_floating_point() else x.cpu().numpy()


def logarithms(arrays, size, window, scale):
    """Of the sums of the weights, (B, H, N): from the output for values that are 1 for one key's sum and 0 else."""
    q, k, _, rel_h, rel_w, places, pad_key, _ = arrays
    cell = window if window[0] else size
    parts = zip((q, k), (None, pad_key), strict=True)
    if window[0]:
        q, k = (reference.partition(x, size, window, padding) for x, padding in parts)
    at = reference.grid(cell) if places is None else places
    y, x = np.moveaxis(at, -1, 0)
    logits = scale * np.einsum("bqhd,bkhd->bhqk", q, k)
    for places_of, rel, n in ((y, rel_h, cell[0]), (x, rel_w, cell[1])):
        far = rel[places_of[:, :, None] - places_of[:, None] + n - 1]
        logits += np.einsum("bqhd,bqkd->bhqk", q, np.broadcast_to(far, (len(q), *far.shape[1:])))
    found = np.log(np.exp(logits).sum(-1)).swapaxes(1, 2)
    return (
        (reference.unite(found[..., None], size, window) if window[0] else found)
        .squeeze(-1 if window[0] else ())
        .swapaxes(1, 2)
    )


def check(case, dtype, arch, precision, device="cpu"):
    arrays, place, scale = problem(case, dtype)
    given = [None if x is None else x.to(device) for x in arrays]
    out, log_weight = kernels.attention(*given, *place, scale, arch, precision)
    exact = [plain(x) for x in arrays]
    close(out, reference.relative_attention(*exact, *place, scale)[0], dtype)
    close(log_weight, logarithms(exact, *place, scale), "fp32")


def close(got, expected, dtype, largest=None):
    assert tuple(got.shape) == expected.shape
    largest = largest or max(1, np.abs(expected).max())
    np.testing.assert_allclose(plain(got), expected, rtol=0, atol=TOLERANCE[dtype] * largest)


def check_gradient(case, dtype, arch, precision, device="cpu"):
    """Against autograd of the formula in float64, of what the forward kernel made."""
    arrays, (size, _), scale = problem(case, dtype)
    leaves = [x.double().requires_grad_() for x in arrays[:5]]
    wanted, log_weight = formulas.on_a_grid(*leaves, formulas.places(arrays[5], size), size, scale)
    grad = normal(np.random.default_rng(1), *wanted.shape).to(DTYPES[dtype])
    expected = torch.autograd.grad(wanted, leaves, grad.double())
    given = [None if x is None else x.to(device) for x in (grad, *arrays[:6])]
    made = wanted.detach().to(DTYPES[dtype]).contiguous().to(device), log_weight.detach().float().to(device)
    found = backward.gradient(*given, *made, size, scale, arch, precision)
    largest = max(float(x.abs().max()) for x in expected)  # the gradient of a table of one row is 0
    for got, want, of in zip(found, expected, arrays, strict=False):
        assert got.dtype == of.dtype
        close(got, want.numpy(), dtype, largest)


SOME = [(case, "bf16") for case in CASES]
SOME += [(case, "fp32") for case in ("ragged", "one row", "odd width", "windows", "list")]
SOME += [(case, "fp16") for case in ("ragged", "windows")]
OTHERS = [(75, "ragged", "fp16"), (75, "windows", "fp16"), (75, "list", "fp16"), (75, "odd width", "fp32")]
OTHERS += [(120, case, "bf16") for case in ("ragged", "windows", "list")]
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


@pytest.fixture
def on_ptx(monkeypatch):
    """Puts the executor of PTX in the place of every kernel."""

    def install(arch, **launch):
        for module in (kernels, backward):
            for name in [n for n in vars(module) if n.endswith("_kernel")]:
                kernel = getattr(module, name)
                plain = kernel.kernel if isinstance(kernel, OnPtx) else kernel
                monkeypatch.setattr(module, name, OnPtx(plain, arch, **launch))

    return install


@pytest.mark.parametrize(("case", "dtype"), SOME)
def test_compiled_for_sm_80(on_ptx, case, dtype):
    on_ptx(80, check_blocks=True)
    check(case, dtype, 80, "tf32x3")


@pytest.mark.parametrize(("case", "dtype"), [x for x in SOME if CASES[x[0]][4] is None])
def test_gradient_compiled_for_sm_80(on_ptx, case, dtype):
    on_ptx(80, check_blocks=True)
    check_gradient(case, dtype, 80, "tf32x3")


@pytest.mark.parametrize(("arch", "case", "dtype"), OTHERS)
def test_compiled_for_other_architectures(on_ptx, arch, case, dtype):
    """Those of sm_90 use wgmma, which the interpreter does not know."""
    on_ptx(arch, order=1)  # warps in random order
    check(case, dtype, arch, "ieee" if arch < 80 else "tf32x3")
    if case == "ragged":
        check_gradient(case, dtype, arch, "ieee" if arch < 80 else "tf32x3")


def test_tf32(on_ptx):
    """What "high" and "medium" ask for: less exact than "highest", and by how much."""
    on_ptx(80)
    with pytest.raises(AssertionError, match="Max absolute difference"):
        check("ragged", "fp32", 80, "tf32")
    TOLERANCE_OF_TF32 = {"fp32": 2e-3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TOLERANCE, "fp32", TOLERANCE_OF_TF32["fp32"])
        check("ragged", "fp32", 80, "tf32")


def test_the_same_bits_twice(on_ptx):
    """Blocks in another order."""
    (*arrays, _, _), (size, _), scale = problem("ragged", "bf16")
    found = []
    for order in ("forward", "reverse"):
        on_ptx(80, order=order)
        out, log_weight = kernels.attention(*arrays, None, None, size, (0, 0), scale, 80, "tf32x3")
        found.append((out, *backward.gradient(out, *arrays, out, log_weight, size, scale, 80, "tf32x3")))
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(("name", "count"), [("list", 46), ("ragged", 35)])
def test_a_wrong_size_is_caught(on_ptx, name, count):
    """The kernels trust the sizes that they are given: a place too few is read outside."""
    arrays, (size, _), scale = problem(name, "bf16")
    on_ptx(80)
    short = [x[:, :count].contiguous() for x in arrays[:3]]
    short[2] = short[2][:, :-1].contiguous()
    with pytest.raises(Fault, match="out of bounds"):
        kernels.attention(*short, *arrays[3:5], arrays[5], None, None, size, (0, 0), scale, 80, "tf32x3")


# ---------------------------------------------------------------- the operator


@pytest.mark.parametrize("case", ["odd width", "windows", "list"])
def test_dispatch(on_ptx, case):
    """What a CUDA tensor reaches, with the strides and types that it may have there."""
    on_ptx(80)
    (q, k, v, rel_h, rel_w, places, *padding), place, scale = problem(case, "bf16")
    exact = [plain(x) for x in (q, k, v, rel_h, rel_w, places, *padding)]
    wanted = reference.relative_attention(*exact, *place, scale)[0]
    if places is not None:
        places = places.long()
    operator, sizes = operators.relative_attention.on_gpu, [list(n) for n in place]
    turned = v.transpose(1, 3).contiguous().transpose(1, 3)
    for value in (v, turned):
        out, _ = operator(q, k, value, rel_h.float(), rel_w, places, *padding, *sizes, scale)
        assert out.dtype == torch.bfloat16
        assert out.is_contiguous()
        close(out, wanted, "bf16")
    with fp.backend("reference"):
        close(operator(q, k, v, rel_h, rel_w, places, *padding, *sizes, scale)[0], wanted, "bf16")
    empty = [x[:0] for x in (q, k, v)]
    assert operator(*empty, rel_h, rel_w, places, *padding, *sizes, scale)[0].shape == (0, *q.shape[1:])


def test_places_outside_the_grid_count_as_the_nearest(on_ptx):
    on_ptx(80)
    (*arrays, places, _, _), place, scale = problem("list", "bf16")
    sizes, far = [list(n) for n in place], places.clone()
    far[:, :5] = torch.tensor([[-7, 3], [2**31 - 1, -(2**31)], [4, 10], [9, 9], [-1, -1]], dtype=torch.int32)
    near = far.maximum(torch.tensor(0)).minimum(torch.tensor([n - 1 for n in place[0]]))
    for backend in ("auto", "reference"):
        with fp.backend(backend):
            got, want = (
                operators.relative_attention.on_gpu(*arrays, x, None, None, *sizes, scale)[0] for x in (far, near)
            )
            assert torch.equal(got, want)


@pytest.mark.parametrize("case", ["odd width", "list", "long list"])
def test_dispatch_of_the_gradient(on_ptx, case):
    on_ptx(80)
    arrays, (size, window), scale = problem(case, "bf16")
    arrays, sizes = arrays[:6], (list(size), list(window))
    out, log_weight = operators.relative_attention.on_gpu(*arrays, None, None, *sizes, scale)
    call = (*arrays, out, log_weight, sizes[0], scale)
    grad = normal(np.random.default_rng(1), *out.shape).bfloat16().transpose(1, 2).contiguous().transpose(1, 2)
    found = operators.relative_attention_backward.on_gpu(grad, *call)
    with fp.backend("reference"):
        wanted = operators.relative_attention_backward.on_gpu(grad, *call)
    largest = max(float(x.abs().max()) for x in wanted)
    for got, want in zip(found, wanted, strict=True):
        close(got, plain(want), "bf16", largest)


# ---------------------------------------------------------------- on a device


@pytest.mark.parametrize("case", [pytest.param(name, marks=needs_gpu) for name in CASES])
@pytest.mark.parametrize("dtype", DTYPES)
def test_on_a_gpu(case, dtype):
    x = torch.empty(0, device="cuda")
    check(case, dtype, *formulas.target(x), device="cuda")
    if CASES[case][4] is None:
        check_gradient(case, dtype, *formulas.target(x), device="cuda")
