"""``Prune`` and ``prompt``: what they take, and what they refuse."""

import pickle
import re

import numpy as np
import pytest

import fastprompt as fp


@pytest.mark.parametrize(
    ("keep", "number", "count"), [(0.64, 25, 16), (0.65, 25, 17), (1e-9, 25, 1), (1, 7, 7), (0.07, 100, 7)]
)
def test_count(keep, number, count):
    assert fp.Prune(keep=keep, at=0).count(number) == count
    x = np.zeros((1, number, 1), np.float32)
    assert fp.prune_tokens(x, x[..., 0], keep=keep).tokens.shape[1] == count  # the same rule


def test_frozen_and_equal():
    prune = fp.Prune(keep=0.5, at=2)
    assert prune == fp.Prune(keep=0.5, at=2, score="norm") == pickle.loads(pickle.dumps(prune))
    with pytest.raises(AttributeError):
        prune.keep = 0.3


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"keep": 0}, ValueError, "keep must be above 0 and at most 1, got 0"),
        ({"keep": 1.5}, ValueError, "keep must be above 0 and at most 1, got 1.5"),
        ({"keep": float("nan")}, ValueError, "keep must be above 0 and at most 1, got nan"),
        ({"keep": "half"}, TypeError, "keep must be a number, got 'half'"),
        ({"keep": True}, TypeError, "keep must be a number, got True"),
        ({"at": -1}, ValueError, "at must be at least 0, got -1"),
        ({"at": 1.0}, TypeError, "at must be an int, got 1.0"),
        ({"score": "cosine"}, ValueError, "score must be one of norm, cls, prompt or a function, got 'cosine'"),
        ({"score": None}, ValueError, "score must be one of norm, cls, prompt or a function, got None"),
    ],
)
def test_errors(given, error, message):
    with pytest.raises(error, match=re.escape(message)):
        fp.Prune(**{"keep": 0.5, "at": 0} | given)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, ValueError, "prompt needs points, boxes or both"),
        ({"points": [1, 2]}, ValueError, "points must be (B or 1, P, 2) or (P, 2), got (2,)"),
        ({"points": np.zeros((1, 3))}, ValueError, "points must be (B or 1, P, 2) or (P, 2), got (1, 3)"),
        ({"boxes": np.zeros((1, 1, 1, 4))}, ValueError, "boxes must be (B or 1, P, 4) or (P, 4), got (1, 1, 1, 4)"),
        ({"points": "here"}, TypeError, "points must hold real numbers"),
    ],
)
def test_prompt_errors(given, error, message):
    with pytest.raises(error, match=re.escape(message)), fp.prompt(**given):
        pass


def test_nothing_to_prune():
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="model has no encoder that can be pruned"):
        fp.accelerate(torch.nn.Linear(2, 2), prune=fp.Prune(keep=0.5, at=0))
    with pytest.raises(TypeError, match=r"prune must be a fastprompt\.Prune, got float"):
        fp.accelerate(torch.nn.Linear(2, 2), prune=0.5)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
        fp.accelerate("model", prune=fp.Prune(keep=0.5, at=0))
