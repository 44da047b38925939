"""relative_position_attention in torch: the formula, gradient, registration."""

import itertools

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
from fastprompt.ops.encoder import formulas  # noqa: E402

GRIDS = {
    "window": (2, (14, 14), 2, 64),
    "ragged": (2, (5, 7), 3, 32),
    "one row": (1, (1, 70), 2, 16),
    "one token": (1, (1, 1), 1, 16),
    "blocks": (1, (23, 29), 2, 16),
    "odd width": (1, (4, 6), 2, 10),
}


def make(grid, tokens=None, cell=None):
    images, size, heads, width = grid
    g = torch.Generator().manual_seed(0)
    qkv = torch.randn(images, size[0] * size[1] if tokens is None else tokens, 3, heads, width, generator=g)
    return (*qkv.unbind(2), *(torch.randn(2 * n - 1, width, generator=g) * 0.4 for n in cell or size))


def formula(arrays, size, coordinates=None):
    """In the dtype of the arrays, heads side by side."""
    places = formulas.places(None if coordinates is None else coordinates.view(-1, *coordinates.shape[-2:]), size)
    return formulas.on_a_grid(*arrays, places, size, arrays[0].shape[-1] ** -0.5)[0].flatten(2)


def test_the_formula_is_the_reference():
    from fastprompt.reference import encoder as reference

    arrays = [x.double() for x in make(GRIDS["ragged"])]
    wanted = reference.relative_attention(*(x.numpy() for x in arrays), None, None, None, (5, 7), (0, 0), 32**-0.5)[0]
    np.testing.assert_allclose(formula(arrays, (5, 7)).unflatten(2, (3, 32)), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_torch_equals_numpy(dtype):
    arrays = [x.to(dtype) for x in make(GRIDS["ragged"])]
    got = fp.relative_position_attention(*arrays, size=(5, 7))
    assert got.dtype == dtype
    wanted = fp.relative_position_attention(*(x.float().numpy() for x in arrays), size=(5, 7))
    torch.testing.assert_close(got, torch.from_numpy(wanted).to(dtype))


# ---------------------------------------------------------------- gradient


def compare_gradients(function, wanted, arrays):
    """In float32 against autograd of a formula in float64."""
    leaves = [x.clone().requires_grad_() for x in arrays]
    double = [x.double().requires_grad_() for x in arrays]
    out, other = function(leaves), wanted(double)
    torch.testing.assert_close(out, other.float(), rtol=1e-5, atol=1e-5)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((out * weight).sum(), leaves)
    expected = torch.autograd.grad((other * weight).sum(), double)
    largest = max(float(x.abs().max()) for x in expected)  # a table of one row has the gradient 0, up to rounding
    for got, want in zip(found, expected, strict=True):
        assert got.shape == want.shape
        assert float((got - want).abs().max()) <= 1e-5 * largest


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_gradient(isa, grid):
    size = grid[1]
    compare_gradients(lambda x: fp.relative_position_attention(*x, size=size), lambda x: formula(x, size), make(grid))


@pytest.mark.parametrize("each", [False, True])
def test_gradient_of_a_list(isa, each):
    places = torch.randint(0, 9, (2, 47, 2) if each else (47, 2), generator=torch.Generator().manual_seed(0))
    compare_gradients(
        lambda x: fp.relative_position_attention(*x, size=(9, 10), coordinates=places),
        lambda x: formula(x, (9, 10), places),
        make((2, (9, 10), 2, 32), 47),
    )


def test_gradient_of_windows(isa):
    """Keys and values of the padding too, which are a parameter in SAM."""
    size, window = (10, 9), (4, 6)
    arrays = (*make((2, size, 2, 16), cell=window), torch.randn(2, 16), torch.randn(2, 16))

    def ours(x):
        return fp.relative_position_attention(*x[:5], size=size, window=window, padding=(x[5], x[6]))

    def wanted(x):
        whole = [torch.zeros(2, 12, 12, 2, 16, dtype=x[0].dtype) for _ in range(3)]
        for part, padding in zip(whole[1:], x[5:], strict=True):
            part += padding
        for n, part in enumerate(whole):
            whole[n] = torch.cat([torch.cat([x[n].view(2, 10, 9, 2, 16), part[:, :10, 9:]], 2), part[:, 10:]], 1)
        out = torch.zeros(2, 12, 12, 32, dtype=x[0].dtype)
        for top, left in itertools.product((0, 4, 8), (0, 6)):
            cut = [w[:, top : top + 4, left : left + 6].flatten(1, 2) for w in whole]
            out[:, top : top + 4, left : left + 6] = formula((*cut, x[3], x[4]), window).view(2, 4, 6, 32)
        return out[:, :10, :9].reshape(2, 90, 32)

    compare_gradients(ours, wanted, arrays)


def test_gradcheck_of_the_formula():
    arrays = [x.double().requires_grad_() for x in make((1, (2, 3), 2, 4))]
    torch.autograd.gradcheck(lambda *x: formula(x, (2, 3)), arrays)


def test_gradient_threads_and_reference():
    arrays = make((2, (9, 20), 3, 32))

    def run():
        leaves = [x.clone().requires_grad_() for x in arrays]
        out = fp.relative_position_attention(*leaves, size=(9, 20))
        return torch.autograd.grad(out.square().sum(), leaves)

    wanted = run()
    with fp.backend("reference"):
        for got, want in zip(run(), wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
        leaves = [x.clone().requires_grad_() for x in arrays]
        out = fp.relative_position_attention(*leaves, size=(9, 20))
    for got, want in zip(torch.autograd.grad(out.square().sum(), leaves), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    try:
        for threads in (1, 2, 5):
            fp.set_num_threads(threads)
            first, second = run(), run()
            for a, b, want in zip(first, second, wanted, strict=True):
                assert torch.equal(a, b)
                torch.testing.assert_close(a, want, rtol=1e-4, atol=1e-4)
    finally:
        fp.set_num_threads(None)


# ---------------------------------------------------------------- registration


def test_opcheck():
    arrays = make((2, (3, 5), 2, 16))
    fp.relative_position_attention(*arrays, size=(3, 5))
    places = torch.randint(0, 3, (2, 15, 2), dtype=torch.int32)
    leaves = [x.clone().requires_grad_() for x in arrays]
    operator = torch.ops.fastprompt.relative_attention.default
    for coordinates in (None, places):
        torch.library.opcheck(operator, (*leaves, coordinates, None, None, [3, 5], [0, 0], 0.25))
    windows = make((2, (3, 5), 2, 16), cell=(2, 2))
    padding = torch.randn(2, 16), torch.randn(2, 16)
    torch.library.opcheck(operator, (*windows, None, *padding, [3, 5], [2, 2], 0.25))


def test_compile_and_export():
    class Module(torch.nn.Module):
        def forward(self, q, k, v, rel_h, rel_w):
            return fp.relative_position_attention(q, k, v, rel_h, rel_w, size=(5, 7)) * 2

    arrays = make(GRIDS["ragged"])
    wanted = Module()(*arrays)
    torch.testing.assert_close(torch.compile(Module(), fullgraph=True, backend="aot_eager")(*arrays), wanted)
    program = torch.export.export(Module(), arrays)
    assert "fastprompt.relative_attention" in str(program.graph)
    torch.testing.assert_close(program.module()(*arrays), wanted)
    leaves = [x.clone().requires_grad_() for x in arrays]
    compiled = torch.compile(Module(), fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(*leaves).sum(), leaves)
    for got, want in zip(found, torch.autograd.grad(Module()(*leaves).sum(), leaves), strict=True):
        torch.testing.assert_close(got, want)


def test_wrong_lists_are_seen_behind_the_dispatcher():
    arrays = make(GRIDS["ragged"])
    for wrong in (torch.full((35, 2), 5), torch.full((35, 2), -1), torch.full((35, 2), 2**40)):
        with pytest.raises(ValueError, match="inside the grid"):
            fp.relative_position_attention(*arrays, size=(5, 7), coordinates=wrong)
    with pytest.raises(TypeError, match="coordinates must hold integers"):
        fp.relative_position_attention(*arrays, size=(5, 7), coordinates=torch.zeros(35, 2))
    with pytest.raises(TypeError, match="both be NumPy arrays or both torch tensors"):
        fp.relative_position_attention(arrays[0].numpy(), *arrays[1:], size=(5, 7))
    with pytest.raises(ValueError, match="device of q"):
        fp.relative_position_attention(arrays[0], arrays[1].to("meta"), *arrays[2:], size=(5, 7))
