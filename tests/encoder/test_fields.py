"""The calls into csrc/encoder: what is wrong with a field is said by its name, and read by no kernel."""

import numpy as np
import pytest

from fastprompt import _C

torch = pytest.importorskip("torch")
from fastprompt.ops.encoder import operators  # noqa: E402


def f(*shape):
    return np.ones(shape, np.float32)


ROWS = f(2, 12, 2, 16)
RELATIVE = {"query": ROWS, "key": ROWS, "value": ROWS, "rel_h": f(5, 16), "rel_w": f(7, 16), "size": [3, 4]}
RELATIVE |= {"coordinates": None, "scale": 1.0, "threads": 1, "out": f(2, 12, 2, 16), "log_weight": f(2, 2, 12)}
FORWARD = RELATIVE | {"window": [0, 0], "pad_key": None, "pad_value": None, "precision": 0}
GRADS = {f"{name}_grad": np.empty_like(RELATIVE[name]) for name in ("query", "key", "value", "rel_h", "rel_w")}
BACKWARD = RELATIVE | GRADS | {"grad": f(2, 12, 2, 16)}
LAYER = {"x": f(5, 32), "norm_weight": f(32), "norm_bias": f(32), "eps": 1e-6, "precision": 0, "threads": 1}
LINEAR = LAYER | {"weight": f(48, 32), "bias": f(48), "out": f(5, 48)}
MLP = LAYER | {"attended": f(5, 16), "project_weight": f(32, 16), "project_bias": f(32), "out": f(5, 32)}
MLP |= {"mlp1_weight": f(64, 32), "mlp1_bias": f(64), "mlp2_weight": f(32, 64), "mlp2_bias": f(32)}
MLP["activation"] = "gelu"
GRID = {name: FORWARD[name] for name in ("query", "key", "value", "size", "scale", "out", "precision", "threads")}
GRID["pool"] = 1
WINDOWS = {"window": [2, 4], "rel_h": f(3, 16)}


def listed(*shape, value=0):
    return np.full(shape, value, np.int32)


SHARED = [
    ({"key": f(2, 12, 1, 16)}, ValueError, "key must have shape"),
    ({"value": f(2, 12, 2, 16).astype(np.float64)}, ValueError, "value must hold float32"),
    ({"query": f(2, 12, 2, 32)[..., ::2]}, ValueError, "query must be contiguous in its last axis"),
    ({"query": f(24, 2, 16)}, ValueError, "query must have shape"),
    ({"size": [4, 3]}, ValueError, "rel_h must have shape"),
    ({"size": [3, 5], "rel_w": f(9, 16)}, ValueError, "query must hold the tokens of the grid"),
    ({"size": [3, 0]}, ValueError, "size must be between 1 and"),
    ({"size": [3, 2**40]}, ValueError, "size must be between 1 and"),
    ({"size": [3]}, ValueError, "size must hold 2 numbers"),
    ({"rel_w": f(6, 16)}, ValueError, "rel_w must have shape"),
    ({"coordinates": listed(3, 12, 2)}, ValueError, "coordinates must be of all images or of each"),
    ({"coordinates": listed(2, 11, 2)}, ValueError, "coordinates must have shape"),
    ({"coordinates": listed(1, 12, 2).astype(np.int64)}, TypeError, "coordinates must hold int32"),
    ({"coordinates": listed(1, 12, 2, value=-1)}, ValueError, "coordinates must be .* inside the grid"),
    ({"coordinates": listed(2, 12, 2, value=3)}, ValueError, "coordinates must be .* inside the grid"),
    ({"out": f(2, 12, 32)}, ValueError, "out must have shape"),
    ({"log_weight": f(2, 12, 2)}, ValueError, "log_weight must have shape"),
    ({"scale": None}, TypeError, "scale must be a number"),
    ({"tokens": 12}, TypeError, "there is no field tokens"),
]
OF_GRID = [
    ({"key": f(2, 12, 1, 16)}, ValueError, "key must have shape"),
    ({"query": f(2, 12, 2, 0)}, ValueError, "query must have a width|key must have shape"),
    ({"size": [3, 5]}, ValueError, "query must hold the tokens of the grid"),
    ({"window": [2, 0]}, ValueError, "window must be between 1 and"),
    ({"window": [2, 2]}, ValueError, "pad_key and pad_value must be given"),
    ({"pool": 0}, ValueError, "pool must be positive"),
    ({"pool": 2}, ValueError, "pool must divide size and window"),
    ({"pool": 2**40}, ValueError, "pool must be positive"),
    ({"out": f(2, 12, 2, 8)}, ValueError, "out must have shape"),
]
OF_FORWARD = [
    ({"window": [2, 0]}, ValueError, "window must be between 1 and"),
    ({"window": [-2, -2]}, ValueError, "window must be between 1 and"),
    ({"window": [2, 4]}, ValueError, "rel_h must have shape"),
    (WINDOWS, ValueError, "pad_key and pad_value must be given"),
    (WINDOWS | {"pad_key": f(2, 16)}, ValueError, "pad_key and pad_value must be given"),
    (WINDOWS | {"pad_key": f(2, 16), "pad_value": f(1, 16)}, ValueError, "pad_value must have shape"),
    (WINDOWS | {"coordinates": listed(1, 12, 2)}, ValueError, "window must be .* where there are coordinates"),
    ({"precision": 3}, ValueError, "precision must be"),
]
OF_BACKWARD = [
    (WINDOWS, ValueError, "window must be .* windows have no gradient"),
    ({"grad": f(2, 12, 2, 8)}, ValueError, "grad must have shape"),
    ({"rel_h_grad": f(3, 16)}, ValueError, "rel_h_grad must have shape"),
    ({"key_grad": f(2, 11, 2, 16)}, ValueError, "key_grad must have shape"),
]
OF_LINEAR = [
    ({"x": f(5, 48)}, ValueError, "norm_weight must have shape"),
    ({"x": f(1, 5, 32)}, ValueError, "x must have shape"),
    ({"x": f(5, 64)[:, ::2]}, ValueError, "x must be contiguous"),
    ({"norm_bias": None}, ValueError, "norm_bias must be given with norm_weight, and only with it"),
    (
        {"weight": f(40, 32), "bias": f(40), "out": f(5, 40)},
        ValueError,
        "weight must have sizes that are multiples of 16",
    ),
    ({"weight": f(48, 16)}, ValueError, "weight must have shape"),
    ({"bias": f(32)}, ValueError, "bias must have shape"),
    ({"bias": f(48).astype(np.float16)}, TypeError, "bias must hold float32"),
    ({"out": f(4, 48)}, ValueError, "out must have shape"),
    ({"gelu": True}, TypeError, "there is no field gelu"),
]
OF_MLP = [
    ({"attended": f(4, 16)}, ValueError, "attended must have shape"),
    ({"project_weight": f(32, 32)}, ValueError, "project_weight must have shape"),
    ({"norm_weight": None}, TypeError, "norm_weight must be an array"),
    ({"mlp1_weight": f(64, 64)}, ValueError, "mlp1_weight must have shape"),
    ({"mlp1_weight": f(8, 32)}, ValueError, "mlp1_weight must have sizes that are multiples of 16"),
    ({"mlp2_weight": f(32, 48)}, ValueError, "mlp2_weight must have shape"),
    ({"mlp2_bias": f(64)}, ValueError, "mlp2_bias must have shape"),
    ({"activation": "tanh"}, ValueError, "activation must be one of"),
    ({"out": f(5, 48)}, ValueError, "out must have shape"),
]
CALLS = {
    "relative_attention": (FORWARD, SHARED + OF_FORWARD),
    "relative_attention_backward": (BACKWARD, SHARED + OF_BACKWARD),
    "normalised_linear": (LINEAR, OF_LINEAR),
    "residual_mlp": (MLP, OF_MLP),
    "grid_attention": (GRID, OF_GRID),
}
CASES = [(name, *case) for name, (_, cases) in CALLS.items() for case in cases]
OPTIONAL = {"window", "coordinates", "pad_key", "pad_value"}


@pytest.mark.parametrize(("name", "changes", "error", "match"), CASES)
def test_wrong_fields(name, changes, error, match):
    with pytest.raises(error, match=f"^{name}: {match}"):
        getattr(_C, name)(**CALLS[name][0] | changes)


@pytest.mark.parametrize("name", CALLS)
def test_missing_fields(name):
    right = CALLS[name][0]
    getattr(_C, name)(**right)
    for missing in right.keys() - OPTIONAL - ({"norm_weight", "norm_bias"} if name == "normalised_linear" else set()):
        with pytest.raises(TypeError, match=f"^{name}: {missing} is missing"):
            getattr(_C, name)(**{k: x for k, x in right.items() if k != missing})


def test_through_torch():
    t = torch.ones
    rows, tables, rest = t(2, 12, 2, 16), (t(5, 16), t(7, 16)), (None, None, None, [3, 4], [0, 0], 1.0)
    attention, mlp = operators.relative_attention.torch, operators.residual_mlp.torch
    for call in (
        lambda: attention(rows, rows[:, :11], rows, *tables, *rest),
        lambda: attention(rows, rows, rows, t(5, 16), t(5, 16), *rest),
        lambda: attention(rows, rows, rows, *tables, None, None, None, [3, 5], [0, 0], 1.0),
        lambda: attention(rows, rows, rows, *tables, torch.full((1, 12, 2), 2**40), None, None, [3, 4], [0, 0], 1.0),
        lambda: operators.normalised_linear.torch(t(5, 32), [], 0.0, [t(48, 16), t(48)]),
        lambda: operators.normalised_linear.torch(t(5, 32), [t(32), t(16)], 0.0, [t(48, 32), t(48)]),
        lambda: mlp(
            t(5, 32), t(4, 16), [t(32, 16), t(32)], [t(32)] * 2, 0.0, [t(64, 32), t(64), t(32, 64), t(32)], "gelu"
        ),
        lambda: mlp(
            t(5, 32), t(5, 16), [t(32, 16), t(32)], [t(32)] * 2, 0.0, [t(64, 32), t(32), t(32, 64), t(32)], "gelu"
        ),
        lambda: mlp(t(5, 32), t(5, 16), [t(32, 16), t(32)], [t(32)] * 2, 0.0, [t(64, 32), t(64)], "gelu"),
    ):
        with pytest.raises(ValueError, match=r"must|values to unpack"):
            call()
    with pytest.raises(TypeError, match="x must hold float32, got float64"):
        operators.normalised_linear.torch(t(5, 32).double(), [], 0.0, [t(48, 32), t(48)])


def test_what_no_kernel_takes_is_the_formula(rng):
    """float64, and widths that are no whole vectors."""
    arrays = [torch.from_numpy(rng.standard_normal(s)) for s in ((2, 12, 2, 7),) * 3 + ((5, 7), (7, 7))]
    got = operators.relative_attention.torch(*arrays, None, None, None, [3, 4], [0, 0], 0.3)
    leaves = [x.requires_grad_() for x in arrays]
    out = operators.relative_attention.torch(*leaves, None, None, None, [3, 4], [0, 0], 0.3)[0]
    found = torch.autograd.grad(out.square().sum(), leaves)
    plain = [x.detach().numpy() for x in arrays]
    want = operators.reference.relative_attention(*plain, None, None, None, [3, 4], [0, 0], 0.3)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    wanted = operators.reference.relative_attention_backward(2 * want[0], *plain, None, *want, [3, 4], 0.3)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def test_no_tokens_have_gradients():
    rows, tables = torch.ones(0, 12, 2, 16, requires_grad=True), [torch.ones(n, 16, requires_grad=True) for n in (5, 7)]
    out = operators.relative_attention.torch(rows, rows, rows, *tables, None, None, None, [3, 4], [0, 0], 1.0)[0]
    for grad, table in zip(torch.autograd.grad(out.sum(), tables), tables, strict=True):
        assert torch.equal(grad, torch.zeros_like(table))
