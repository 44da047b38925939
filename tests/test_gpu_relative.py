"""Relative position on a GPU: compiled PTX executed on CPU tensors, and the same cases on a device (``-m gpu``)."""

import numpy as np
import pytest

pytest.importorskip("triton", reason="triton is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

from fastprompt.kernels import relative_position as kernels, relative_position_backward as backward  # noqa: E402
from fastprompt.ops import _torch_relative as torch_side  # noqa: E402
from fastprompt.reference import attention as reference  # noqa: E402
from ptx.build import OnPtx  # noqa: E402

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
    close(out, reference.relative_position(*exact, *place, scale), dtype)
    close(log_weight, logarithms(exact, *place, scale), "fp32")


def close(got, expected, dtype, largest=None):
    assert tuple(got.shape) == expected.shape
    largest = largest or max(1, np.abs(expected).max())
    np.testing.assert_allclose(plain(got), expected, rtol=0, atol=TOLERANCE[dtype] * largest)


def check_gradient(case, dtype, arch, precision, device="cpu"):
    """Against autograd of the formula in float64, of what the forward kernel made."""
    arrays, (size, _), scale = problem(case, dtype)
    leaves = [x.double().requires_grad_() for x in arrays[:5]]
    wanted = torch_side.formula(*leaves, torch_side.places(arrays[5], size), size, scale)
    log_weight = torch_side.logits(*leaves[:2], *leaves[3:], torch_side.places(arrays[5], size), size, scale).logsumexp(
        -1
    )
    grad = normal(np.random.default_rng(1), *wanted.shape).to(DTYPES[dtype])
    expected = torch.autograd.grad(wanted, leaves, grad.double())
    given = [None if x is None else x.to(device) for x in (grad, *arrays[:6])]
    made = wanted.detach().to(DTYPES[dtype]).contiguous().to(device), log_weight.detach().float().to(device)
    found = backward.gradient(*given, *made, size, scale, arch, precision)
    largest = max(float(x.abs().max()) for x in expected)  # the gradient of a table of one row is 0
    for got, want, of in zip(found, expected, arrays, strict=False):
        assert got.dtype == of.dtype
        close(got, want.numpy(), dtype, largest)


@pytest.fixture
def on_ptx(monkeypatch):
    """Puts the executor of PTX in the place of every kernel."""

    def install(arch, **launch):
        for module in (kernels, backward):
            for name in [n for n in vars(module) if n.endswith("_kernel")]:
                monkeypatch.setattr(module, name, OnPtx(getattr(module, name), arch, **launch))

    return install


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_compiled_for_sm_80(on_ptx, case, dtype):
    on_ptx(80, check_blocks=True)
    check(case, dtype, 80, "tf32x3")


GRADIENT = [name for name, case in CASES.items() if case[4] is None]


@pytest.mark.parametrize("case", GRADIENT)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_compiled_for_sm_80(on_ptx, case, dtype):
    on_ptx(80, check_blocks=True)
    check_gradient(case, dtype, 80, "tf32x3")
