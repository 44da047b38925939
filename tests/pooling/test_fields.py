"""The bindings: fields by name, each checked against the others before the kernel sees them."""

import numpy as np
import pytest

from fastprompt import _C


def floats(*shape):
    return np.ones(shape, np.float32)


POOL = {
    "features": floats(2, 3, 4, 5), "mask": floats(2, 6, 8, 10), "resize": "features", "align_corners": False,
    "background": False, "hard": False, "threshold": 0.0, "eps": 0.0, "empty": 0.0, "out": floats(2, 6, 3), "threads": 1,
}  # fmt: skip
SIMILAR = {
    "features": floats(2, 8, 5), "rows": floats(1, 3, 8), "scale": 1.0, "eps": 0.0, "temperature": 1.0, "kind": "none",
    "sharpest": 0.0, "out": floats(2, 3, 5), "precision": 0, "threads": 1,
}  # fmt: skip
PRIOR = {
    "query": floats(2, 8, 5), "support": floats(4, 8, 7), "mask": floats(4, 7), "eps": 0.0, "out": floats(4, 5),
    "precision": 0, "threads": 1,
}  # fmt: skip
FILM = {
    "x": floats(1, 3, 5), "gamma": floats(2, 3), "beta": floats(2, 3), "last": False, "out": floats(2, 3, 5),
    "threads": 1,
}  # fmt: skip
READ_ONLY = floats(2, 6, 3)
READ_ONLY.flags.writeable = False
UNALIGNED = np.zeros(2 * 6 * 3 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(2, 6, 3)

WRONG = {
    "another batch": ("masked_pool", POOL, {"mask": floats(1, 6, 8, 10)}, ValueError, r"mask must have shape \(batch = 2"),
    "an axis less": ("masked_pool", POOL, {"features": floats(3, 4, 5)}, ValueError, "features must have shape"),
    "a small result": ("masked_pool", POOL, {"out": floats(2, 6, 2)}, ValueError, r"out must have shape \(2, 6, 3\)"),
    "strides": ("masked_pool", POOL, {"features": floats(2, 3, 5, 4).swapaxes(2, 3)}, ValueError, "features must be contiguous"),
    "float64": ("masked_pool", POOL, {"features": np.ones((2, 3, 4, 5))}, TypeError, "features must hold float32, got float64"),
    "byte order": ("masked_pool", POOL, {"features": np.ones((2, 3, 4, 5), ">f4")}, TypeError, "byte order"),
    "an odd address": ("masked_pool", POOL, {"out": UNALIGNED}, TypeError, "out must hold float32, got .* not aligned"),
    "read-only": ("masked_pool", POOL, {"out": READ_ONLY}, ValueError, "out must be writeable"),
    "a word": ("masked_pool", POOL, {"resize": "feature"}, ValueError, "resize must be one of features, mask, average"),
    "a number": ("masked_pool", POOL, {"eps": "small"}, TypeError, "eps must be a number"),
    "no threads": ("masked_pool", POOL, {"threads": 0}, ValueError, "threads must be positive"),
    "a list": ("masked_pool", POOL, {"features": [1.0]}, TypeError, "features must be an array or a tensor"),
    "unknown": ("masked_pool", POOL, {"limit": 0.0}, TypeError, "there is no field limit"),
    "channels": ("similarity", SIMILAR, {"rows": floats(1, 3, 7)}, ValueError, "rows must have shape"),
    "images of rows": ("similarity", SIMILAR, {"rows": floats(3, 3, 8)}, ValueError, "rows must be of one image or of each"),
    "argmax into floats": ("similarity", SIMILAR, {"kind": "argmax", "out": floats(2, 5)}, TypeError, "out must hold int64"),
    "precision": ("similarity", SIMILAR, {"precision": 3}, ValueError, "precision must be 0, 1 or 2"),
    "shots": ("prior_mask", PRIOR, {"query": floats(3, 8, 5)}, ValueError, "support must have as many shots"),
    "mask of pixels": ("prior_mask", PRIOR, {"mask": floats(4, 6)}, ValueError, "mask must have shape"),
    "one beta less": ("film", FILM, {"beta": floats(1, 3)}, ValueError, "beta must have shape"),
    "images of x": ("film", FILM, {"x": floats(3, 3, 5)}, ValueError, "x must be of one image or of each"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "fields", "change", "error", "text"), WRONG.values(), ids=WRONG)
def test_wrong(name, fields, change, error, text):
    getattr(_C, name)(**fields)
    with pytest.raises(error, match=f"{name}: {text}" if "there is no" in text else text):
        getattr(_C, name)(**{**fields, **change})


@pytest.mark.parametrize("name", POOL)
def test_missing(name):
    with pytest.raises(TypeError, match=f"masked_pool: {name} is missing"):
        _C.masked_pool(**{k: x for k, x in POOL.items() if k != name})


def test_positional():
    with pytest.raises(TypeError):
        _C.masked_pool(*POOL.values())


def test_graphs():
    """What an exported graph may ask for."""
    torch = pytest.importorskip("torch")
    ops, x = torch.ops.fastprompt, torch.ones
    with pytest.raises(ValueError, match="mask must have shape"):
        ops.masked_pool(x(2, 3, 4, 4), x(1, 2, 8, 8), 0, False, False, None, 0.0, 0.0)
    with pytest.raises(ValueError, match="rows must have shape"):
        ops.similarity_map(x(1, 8, 4), x(1, 2, 16), 1.0, 0.0, 1.0, 0, 0.0)
    with pytest.raises(ValueError, match=r"support must have shape \(pairs a multiple of images"):
        ops.prior_similarity(x(3, 8, 4), x(4, 8, 4), x(4, 4), 0.0)
    with pytest.raises(ValueError, match="beta must have shape"):
        ops.film(x(1, 3, 4), x(2, 3), x(1, 3), False)
    with pytest.raises((IndexError, ValueError)):
        ops.masked_pool(x(2, 3, 4, 4), x(2, 2, 8, 8), 7, False, False, None, 0.0, 0.0)
