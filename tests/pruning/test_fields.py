"""The bindings of pruning: a wrong size, dtype, stride or field is an error, through ``_C`` and through torch."""

import numpy as np
import pytest
from field_faults import check, fields_of, refused

from fastprompt.ops.pruning import call, operators

X = np.random.default_rng(0).standard_normal((2, 7, 5)).astype(np.float32)
INDEX = np.array([[0, 3, 6], [-1, 2, 9]])
SCORES, ALWAYS, COUNTS = X[..., 0].copy(), X[..., 1] > 5, np.array([3, 2])
SIZE, KEPT, TARGET = np.ones((2, 7), np.float32), np.tile(np.arange(5), (2, 1)), np.tile(np.arange(7) % 5, (2, 1))
CALLS = {  # arguments, and sizes that one array alone tells
    "cosine_scores": ((X, X[:, :3].copy()), {("prompts", 1)}),
    "gather_rows": ((X, INDEX), {("rows", 1)}),
    "scatter_rows": ((X, X[:, :3].copy(), INDEX, 7), {"base"}),
    "scatter_rows_": ((X.copy(), X[:, :3].copy(), INDEX), {"base"}),
    "prune_rows": ((X, SCORES, ALWAYS, COUNTS, 3, 0.5), {"always", "counts"}),
    "match_tokens": ((X, 2, 1), {("metric", 2)}),
    "merge_rows": ((X, SIZE, KEPT, TARGET), set()),
}


def fields(monkeypatch, name):
    return fields_of(monkeypatch, call, getattr(operators, name), *CALLS[name][0])


@pytest.mark.parametrize("name", CALLS)
def test_wrong_fields(monkeypatch, name):
    check(*fields(monkeypatch, name), CALLS[name][1])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("match_tokens", {"merged": 4, "kept": np.zeros((2, 3), np.int64)}),
        ("match_tokens", {"merged": -1, "kept": np.zeros((2, 8), np.int64)}),
        ("match_tokens", {"spared": 8}),
        ("match_tokens", {"spared": -(2**62)}),
        ("prune_rows", {"background": -0.5}),
        ("prune_rows", {"background": float("nan")}),
        ("gather_rows", {"threads": 0}),
        ("gather_rows", {"rows": X.astype(object), "out": np.empty((2, 3, 5), object)}),
        ("gather_rows", {"rows": [1]}),
        ("cosine_scores", {"prompts": np.zeros((3, 2, 5), np.float32)}),
    ],
)
def test_wrong_values(monkeypatch, name, change):
    function, given = fields(monkeypatch, name)
    assert refused(function, given | change)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.float16, np.complex128, np.longdouble, ">f4"])
def test_rows_of_any_dtype(dtype):
    x = X.astype(dtype)
    want = np.stack([x[0, [0, 3, 6]], np.stack([0 * x[1, 0], x[1, 2], 0 * x[1, 0]])]).astype(dtype)
    np.testing.assert_array_equal(operators.gather_rows(x, INDEX), want)
    np.testing.assert_array_equal(operators.gather_rows(np.asfortranarray(x), INDEX), want)
    back = operators.scatter_rows(x, (-want).astype(dtype), INDEX, 7)
    assert back.dtype == x.dtype
    np.testing.assert_array_equal(back[0, [0, 3, 6]], -x[0, [0, 3, 6]])
    np.testing.assert_array_equal(back[1, 2], -x[1, 2])


def test_packed_records():
    """Rows at strides of no whole number of elements are copied first."""
    records = np.zeros((2, 7), np.dtype([("flag", "u1"), ("x", "f4", 5)]))
    records["x"] = X
    np.testing.assert_array_equal(operators.gather_rows(records["x"], INDEX), operators.gather_rows(X, INDEX))


def test_wrong_tensors():
    torch = pytest.importorskip("torch")
    x, index, tokens = (torch.from_numpy(a) for a in (X, INDEX, X.copy()))
    scores, size, kept, target = (torch.from_numpy(a) for a in (SCORES, SIZE, KEPT, TARGET))
    wrong = [
        (operators.gather_rows, (x, index[:1])),
        (operators.gather_rows, (x, index.int())),
        (operators.scatter_rows, (x[:, :6], x[:, :3], index, 7)),
        (operators.scatter_rows, (x.double(), x[:, :3], index, 7)),
        (operators.scatter_rows, (None, x[:, :2], index, 7)),
        (operators.scatter_rows_, (tokens, x[:, :3], index[:, :2])),
        (operators.scatter_rows_, (tokens, x[:, :3, :4], index)),
        (operators.scatter_rows_, (tokens.transpose(1, 2), x[:, :3], index)),
        (operators.cosine_scores, (x, x[..., :4])),
        (operators.cosine_scores, (x.double(), x)),
        (operators.prune_rows, (x, scores[:, :6], None, None, 3, 0.0)),
        (operators.prune_rows, (x, scores, scores[:1] > 0, None, 3, 0.0)),
        (operators.prune_rows, (x, scores, None, torch.ones(1, dtype=torch.int64), 3, 0.0)),
        (operators.prune_rows, (x, scores, None, None, 3, -1.0)),
        (operators.match_tokens, (x, 4, 0)),
        (operators.match_tokens, (x.double(), 2, 0)),
        (operators.merge_rows, (x, size[:, :6], kept, target)),
        (operators.merge_rows, (x, size, kept, target[:1])),
    ]
    for operator, args in wrong:
        with pytest.raises((ValueError, TypeError)):
            operator.torch(*args)
    torch.testing.assert_close(tokens, x, rtol=0, atol=0)
