"""The call into csrc/memory: what is wrong with a field is said by its name, and read by no kernel."""

import numpy as np
import pytest

from fastprompt import _C

torch = pytest.importorskip("torch")
from fastprompt.ops.memory import operators  # noqa: E402


def f(*shape):
    return np.ones(shape, np.float32)


RIGHT = {
    "query": f(2, 3, 2, 16),
    "key": f(2, 5, 2, 16),
    "value": f(2, 5, 2, 32),
    "scale": 1.0,
    "threads": 1,
    "precision": 0,
}
RIGHT |= {"out": f(2, 3, 2, 32), "log_weight": f(2, 2, 3)}
WRONG = [
    ("query", f(2, 3, 2, 32), ValueError, "key must have shape"),
    ("query", f(2, 3, 32), ValueError, "query must have shape"),
    ("query", f(2, 3, 4, 16)[:, :, ::2], ValueError, "query must be contiguous"),
    ("key", f(2, 5, 1, 16), ValueError, "key must have shape"),
    ("key", f(2, 5, 2, 16).astype(np.float16), TypeError, "key must hold float32, got float16"),
    ("value", f(2, 4, 2, 32), ValueError, "value must have shape"),
    ("value", None, TypeError, "value must be an array"),
    ("scale", "one", TypeError, "scale must be a number, got 'one'"),
    ("scale", float("inf"), ValueError, "scale must be finite"),
    ("out", f(2, 3, 2, 16), ValueError, "out must have shape"),
    ("log_weight", f(2, 3, 2), ValueError, "log_weight must have shape"),
    ("log_weight", np.frombuffer(bytes(48), np.float32).reshape(2, 2, 3), ValueError, "log_weight must be writeable"),
    ("threads", -1, ValueError, "threads must be positive"),
    ("keys", 5, TypeError, "there is no field keys"),
]


@pytest.mark.parametrize(("name", "value", "error", "match"), WRONG)
def test_wrong_fields(name, value, error, match):
    with pytest.raises(error, match=f"^memory_read: {match}"):
        _C.memory_read(**RIGHT | {name: value})


def test_missing_and_empty_fields():
    _C.memory_read(**RIGHT)
    for name in set(RIGHT) - {"log_weight"}:
        with pytest.raises(TypeError, match=f"memory_read: {name} is missing"):
            _C.memory_read(**{k: x for k, x in RIGHT.items() if k != name})
    with pytest.raises(ValueError, match="key must have at least one key"):
        _C.memory_read(**RIGHT | {"key": f(2, 0, 2, 16), "value": f(2, 0, 2, 32)})
    empty = {"query": f(2, 3, 2, 0), "key": f(2, 5, 2, 0)}
    with pytest.raises(ValueError, match="query must have a width"):
        _C.memory_read(**RIGHT | empty)
    with pytest.raises(ValueError, match="value must have a width"):
        _C.memory_read(**RIGHT | {"value": f(2, 5, 2, 0), "out": f(2, 3, 2, 0)})


def test_through_torch():
    q, k, v = torch.ones(2, 3, 2, 16), torch.ones(2, 5, 2, 16), torch.ones(2, 5, 2, 32)
    for wrong in ((q, k[:1], v), (q, k, v[:, :4]), (q, k[:, :, :1], v), (q, k[:, :0], v[:, :0])):
        with pytest.raises(ValueError, match=r"memory_read: .* must have"):
            operators.memory_read.torch(*wrong, 1.0)
    got = operators.memory_read.torch(q[..., :7].double(), k[..., :7].double(), v[..., :9].double(), 0.5)
    assert [x.dtype for x in got] == [torch.float64] * 2  # of the formula
    torch.testing.assert_close(got[0], torch.ones(2, 3, 2, 9).double())


def test_formula_of_the_gradient(rng):
    """There is no kernel for it on a GPU."""
    q, k, v = (
        torch.from_numpy(rng.standard_normal(s, np.float32)) for s in ((2, 9, 2, 16), (2, 7, 2, 16), (2, 7, 2, 32))
    )
    wanted = operators.memory_read.torch(q, k, v, 0.3)
    grad = torch.from_numpy(rng.standard_normal((2, 9, 2, 32), np.float32))
    saved = (grad, q, k, v, *wanted, 0.3)
    found = operators.memory_read_backward.on_gpu(*saved)
    for got, want in zip(found, operators.memory_read_backward.by_reference(saved), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
