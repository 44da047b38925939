"""prune_tokens and restore: wrong calls name the argument, what it was and what is expected."""

import math

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")

X, S = np.zeros((2, 6, 4), np.float32), np.zeros((2, 6), np.float32)
WRONG = {
    "axes": ({"tokens": X[0]}, ValueError, r"tokens must be \(B, N, C\), got shape \(6, 4\)"),
    "channels": ({"tokens": X[..., :0]}, ValueError, r"tokens must be \(B, N, C\)"),
    "text": ({"tokens": np.array([[["a"]]])}, TypeError, "tokens must hold real numbers"),
    "scores": ({"scores": S[:, :5]}, ValueError, r"scores must be \(2, 6\), got shape \(2, 5\)"),
    "scores_batch": ({"scores": S[:1]}, ValueError, r"scores must be \(2, 6\), got shape \(1, 6\)"),
    "mixed": ({"scores": torch.zeros(2, 6)}, TypeError, "both be NumPy arrays or both torch tensors"),
    "none": ({"keep": None}, ValueError, "give exactly one of keep, count, threshold"),
    "two": ({"count": 3}, ValueError, "give exactly one of keep, count, threshold; got 0.5, 3, None"),
    "keep_high": ({"keep": 1.1}, ValueError, "keep must be between 0 and 1, got 1.1"),
    "keep_nan": ({"keep": math.nan}, ValueError, "keep must be between 0 and 1, got nan"),
    "keep_text": ({"keep": "half"}, TypeError, "keep must be a number, got 'half'"),
    "count_high": ({"keep": None, "count": 7}, ValueError, "count must be at most the number of tokens 6, got 7"),
    "count_negative": ({"keep": None, "count": -1}, ValueError, "count must be an integer of at least 0, got -1"),
    "count_float": ({"keep": None, "count": 2.0}, ValueError, "count must be an integer of at least 0, got 2.0"),
    "threshold": ({"keep": None, "threshold": math.nan}, ValueError, "threshold must be between -inf and inf"),
    "pad": ({"pad": 3}, ValueError, "pad needs threshold"),
    "pad_float": ({"keep": None, "threshold": 0, "pad": 1.5}, ValueError, "pad must be an integer"),
    "always": ({"always_keep": np.zeros(5)}, ValueError, r"always_keep must be \(6,\) or \(2, 6\), got shape \(5,\)"),
    "always_kind": ({"always_keep": torch.zeros(6)}, TypeError, "both be NumPy arrays or both torch tensors"),
    "share": ({"stride_mix": 1.5}, ValueError, "stride_mix must be between 0 and 1, got 1.5"),
}


@pytest.mark.parametrize("change", WRONG)
def test_wrong_calls(change):
    changes, error, match = WRONG[change]
    call = {"tokens": X, "scores": S, "keep": 0.5} | changes
    with pytest.raises(error, match=match):
        fp.prune_tokens(**call)


T = torch.zeros(2, 3, 4)
WRONG_RESTORE = {
    "y_axes": ((X[0],), {}, ValueError, r"y must be \(B, N, C\)"),
    "y_rows": ((X[:, :2],), {}, ValueError, r"y must be \(2, 3, 'C'\), got shape \(2, 2, 4\)"),
    "y_kind": ((T,), {}, TypeError, "both be NumPy arrays or both torch tensors"),
    "base": ((X[:, :3], X[:, :5]), {}, ValueError, r"base must be \(2, 6, 4\), got shape \(2, 5, 4\)"),
    "base_number": ((X[:, :3], 1), {}, ValueError, "base must be None, 0 or an array"),
    "base_kind": ((X[:, :3], torch.zeros(2, 6, 4)), {}, TypeError, "both be NumPy arrays or both torch tensors"),
    "number_in_place": ((X[:, :3], 0), {"inplace": True}, ValueError, "and an array with inplace, got 0"),
    "dtype_in_place": ((X[:, :3].astype("f8"),), {"inplace": True}, ValueError, "y must have the dtype float32"),
    "read_only": ((X[:, :3], np.broadcast_to(X[:, :1], X.shape)), {"inplace": True}, ValueError, "writeable array"),
}


@pytest.mark.parametrize("case", WRONG_RESTORE)
def test_wrong_restore(case):
    arguments, options, error, match = WRONG_RESTORE[case]
    _, restore = fp.prune_tokens(X.copy(), S, count=3)
    with pytest.raises(error, match=match):
        restore(*arguments, **options)


def test_no_gradient_in_place():
    x = torch.zeros(1, 4, 2, requires_grad=True)
    t, restore = fp.prune_tokens(x, x[..., 0], count=2)
    with pytest.raises(ValueError, match="inplace=True has no gradient"):
        restore(t, inplace=True)
