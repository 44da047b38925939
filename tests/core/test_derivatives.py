"""Derivatives of every kind through the operators: right, or an error that says what to do; never zeros in silence."""

import pytest

import fastprompt as fp
from fastprompt.ops._known import OPERATORS

torch = pytest.importorskip("torch")

from functorch.compile import make_boxed_func  # noqa: E402
from torch._dynamo.backends.common import aot_autograd  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402

import fastprompt.ops._torch  # noqa: E402
from fastprompt.ops.decoder.operators import token_mlps  # noqa: E402
from fastprompt.ops.encoder.operators import relative_attention  # noqa: E402
from fastprompt.ops.memory.operators import memory_read  # noqa: E402
from fastprompt.ops.pruning.operators import gather_rows, scatter_rows_  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own rules of forward mode


def uniform(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) + 0.3


MASK, ROWS, TABLES = uniform(1, 1, 4, 4), torch.tensor([[1.0, 0.3, -0.4]]), (uniform(3, 16), uniform(5, 16))
CASES = {
    "masked_average_pool": (lambda x: fp.masked_average_pool(x, MASK, preset="panet"), (1, 3, 4, 4)),
    "cosine_prototype_map": (lambda x: fp.cosine_prototype_map(x, ROWS, scale=1.0), (1, 3, 3, 3)),
    "film": (lambda x: fp.film(x, torch.full((1, 3), 1.5), torch.ones(1, 3)), (1, 3, 3, 3)),
    "memory_attention": (lambda x: fp.memory_attention(x, x, x), (1, 4, 1, 16)),
    "of a width without a kernel": (lambda x: fp.memory_attention(x, x, x), (1, 4, 1, 6)),
    "relative_position_attention": (
        lambda x: fp.relative_position_attention(x, x, x, *TABLES, size=(2, 3)),
        (1, 6, 1, 16),
    ),
    "windows": (
        lambda x: fp.relative_position_attention(x, x, x, *TABLES, size=(4, 3), window=(2, 3)),
        (1, 12, 1, 16),
    ),
    "merge_tokens": (lambda x: fp.merge_tokens(x, torch.arange(24.0).view(1, 6, 4).sin(), r=2).tokens, (1, 6, 4)),
    "prune_tokens": (lambda x: fp.prune_tokens(x, torch.arange(6.0)[None], keep=0.5).tokens, (1, 6, 4)),
    "token_scores": (lambda x: fp.token_scores(x, prompts=torch.ones(1, 2, 4)), (1, 6, 4)),
}
EVERY = pytest.mark.parametrize("name", CASES)


def case(name):
    function, shape = CASES[name]
    x = uniform(*shape)
    return function, x, torch.randn(x.shape, generator=torch.Generator().manual_seed(1))


def close(got, want, tolerance=2e-2):
    torch.testing.assert_close(got, want, rtol=0, atol=tolerance * float(want.detach().abs().max()))


def gradient(function, x):
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(function(x).pow(3).sum(), x)[0]


def differences(function, x, v, step=1e-2):
    return (function(x + step * v) - function(x - step * v)).detach() / (2 * step)


@EVERY
@pytest.mark.parametrize("way", ["func", "dual", "dual without gradients"])
def test_forward_mode(name, way):
    f, x, v = case(name)
    if way == "func":
        got = torch.func.jvp(f, (x,), (v,))[1]
    else:
        with forward_ad.dual_level(), torch.set_grad_enabled(way == "dual"):
            got = forward_ad.unpack_dual(f(forward_ad.make_dual(x, v))).tangent
    close(got, differences(f, x, v))


@EVERY
def test_second_derivative(name):
    f, x, v = case(name)
    own = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(f(own).pow(3).sum(), own, create_graph=True)
    torch.testing.assert_close(first, gradient(f, x), rtol=1e-4, atol=1e-5)
    (second,) = torch.autograd.grad((first * v).sum(), own)
    close(second, differences(lambda y: gradient(f, y), x, v), 5e-2)
    whole = torch.func.hessian(lambda y: f(y).pow(3).sum())(x)
    close(torch.tensordot(whole, v, v.ndim), second, 1e-3)


@EVERY
def test_vmap(name):
    f, x, _ = case(name)
    many = torch.stack([x, x + 0.1, 2 * x])
    torch.testing.assert_close(torch.func.vmap(f)(many), torch.stack([f(y) for y in many]))
    found = torch.func.vmap(torch.func.grad(lambda y: f(y).pow(3).sum()))(many)
    torch.testing.assert_close(found, torch.stack([gradient(f, y) for y in many]), rtol=1e-3, atol=1e-4)


@EVERY
def test_many_gradients_at_once(name):
    f, x, _ = case(name)
    one = torch.autograd.functional.jacobian(f, x)
    torch.testing.assert_close(torch.autograd.functional.jacobian(f, x, vectorize=True), one, rtol=1e-3, atol=1e-5)


def test_what_is_given_twice_counts_twice():
    x = uniform(1, 4, 1, 16).requires_grad_()
    formula = lambda y: torch.softmax(y @ y.transpose(2, 3) / 4, -1) @ y  # noqa: E731
    got, want = fp.memory_attention(x, x, x), formula(x.transpose(1, 2)).transpose(1, 2).flatten(2)
    for _ in range(3):
        close(got, want, 1e-4)
        got, want = (torch.autograd.grad(y.pow(2).sum(), x, create_graph=True)[0] for y in (got, want))


def test_third_derivatives_of_relative_position():
    x = uniform(1, 6, 1, 16).requires_grad_()
    f = lambda y: relative_attention(y, y, y, *TABLES, None, None, None, [2, 3], [0, 0], 0.25)[0]  # noqa: E731
    formula = lambda y: relative_attention.formula(y, y, y, *TABLES, None, None, None, [2, 3], [0, 0], 0.25)[0]  # noqa: E731
    got, want = f(x), formula(x)
    for _ in range(3):
        got, want = (torch.autograd.grad(y.pow(2).sum(), x, create_graph=True)[0] for y in (got, want))
        close(got, want, 1e-4)


# ---------------------------------------------------------------- what has none


def distance(x):
    seeds = torch.zeros(x.shape, dtype=torch.bool)
    seeds[0, 0] = True
    return fp.geodesic_distance(x, seeds)


@pytest.mark.parametrize(
    "function", [distance, lambda x: fp.signed_geodesic_distance(x, x > 1.0)], ids=["geodesic", "signed"]
)
def test_a_geodesic_has_a_gradient_and_no_more(function):
    x = uniform(4, 5).requires_grad_()
    with pytest.raises(NotImplementedError, match=r"geodesic_distance has no derivatives in forward mode.*detach"):
        torch.func.jvp(function, (x.detach(),), (torch.ones(4, 5),))
    with pytest.raises(NotImplementedError, match="no derivatives in forward mode"), forward_ad.dual_level():
        function(forward_ad.make_dual(x.detach(), torch.ones(4, 5)))
    with pytest.raises(NotImplementedError, match=r"under torch\.func"):
        torch.func.hessian(lambda y: function(y).sum())(x.detach())
    (plain,) = torch.autograd.grad(function(x).sum(), x)
    (first,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
    assert torch.equal(plain, first)
    with pytest.raises(NotImplementedError, match=r"geodesic_distance has no second derivatives: detach"):
        torch.autograd.grad(first.pow(2).sum(), x)


def test_constants_in_transformed_functions():
    image, x = uniform(4, 5), uniform(3)
    near = distance(image).sum()
    f = lambda y: (y * distance(image).sum()).sum()  # noqa: E731
    assert torch.equal(torch.func.grad(f)(x), near.expand(3))
    assert torch.equal(torch.func.jvp(f, (x,), (torch.ones(3),))[1], 3 * near)


def test_an_operator_without_a_gradient_says_so():
    tokens, weights = uniform(1, 2, 16), [uniform(16, 16), uniform(16)]
    for given in (
        (tokens.clone().requires_grad_(), weights),
        (tokens, [weights[0].clone().requires_grad_(), weights[1]]),
    ):
        (out,) = token_mlps(given[0], [0], given[1], 1)
        with pytest.raises(NotImplementedError, match=r"token_mlps has no gradient: detach"):
            out.sum().backward()
    points, labels = torch.tensor([[3.0, 2.0]]), torch.tensor([1])
    with pytest.raises(NotImplementedError, match="click_map has no derivatives in forward mode"):
        torch.func.jvp(lambda p: fp.click_map(p, labels, size=(5, 6)), (points,), (torch.ones(1, 2),))
    assert not torch.ops.fastprompt.match_tokens(tokens.requires_grad_(), 0, 0)[0].requires_grad  # places


def test_what_writes_in_place_has_no_derivatives():
    base, rows, index = torch.zeros(1, 4, 8), uniform(1, 2, 8), torch.tensor([[0, 2]])
    before = base._version
    scatter_rows_(base, rows, index)
    assert torch.equal(base[:, [0, 2]], rows)
    assert base._version > before
    with pytest.raises(NotImplementedError, match="scatter_rows_ writes in place"):
        scatter_rows_(base, rows.clone().requires_grad_(), index)
    with pytest.raises(NotImplementedError, match="in place"), torch.no_grad(), forward_ad.dual_level():
        scatter_rows_(base, forward_ad.make_dual(rows, rows), index)
    with torch.inference_mode():
        scatter_rows_(torch.zeros(1, 4, 8), rows, index)


def test_the_log_of_the_sums_is_no_function_to_be_differentiated():
    q = uniform(1, 6, 1, 16).requires_grad_()
    assert not memory_read(q, q, q, 1.0)[1].requires_grad
    assert not relative_attention(q, q, q, *TABLES, None, None, None, [2, 3], [0, 0], 1.0)[1].requires_grad


def test_every_operator_has_a_rule():
    """Of torch's names, so that those of the gradients are among them."""
    names = {s.name for s in torch._C._jit_get_all_schemas() if s.name.startswith("fastprompt::")}
    assert names >= {f"fastprompt::{name}" for name in OPERATORS}
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    assert [name for name in names if not has(name, "Autograd")] == []


def test_first_gradients_stay_operators_of_their_own():
    graphs = []

    def backend(graph, inputs):
        graphs.append(str(graph.graph))
        return make_boxed_func(graph.forward)

    aot = aot_autograd(fw_compiler=backend, bw_compiler=backend)
    x = uniform(1, 3, 4, 4).requires_grad_()
    f = lambda y: fp.masked_average_pool(y, MASK).sum()  # noqa: E731
    (got,) = torch.autograd.grad(torch.compile(f, backend=aot, fullgraph=True)(x), x)
    torch.testing.assert_close(got, torch.autograd.grad(f(x), x)[0])
    assert "masked_pool_backward" in graphs[1]


def test_half_precision_again():
    x = uniform(1, 2, 8).bfloat16().requires_grad_()
    (first,) = torch.autograd.grad(gather_rows(x, torch.tensor([[0, 0, 1]])).pow(2).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(second, torch.tensor([4.0, 2.0]).bfloat16()[None, :, None].expand(1, 2, 8))
