"""The bindings of distances: fields by name, each checked against the others before the kernel sees them."""

import numpy as np
import pytest

from fastprompt import _C


def floats(*shape):
    return np.ones(shape, np.float32)


DISTANCE = {
    "image": floats(2, 3, 1, 4, 5), "start": floats(2, 2, 1, 4, 5), "barrier": None, "volume": False,
    "metric": "fastgeodis", "method": "exact", "start_kind": "seed", "two_sided": False, "iterations": 2, "lam": 0.5,
    "step_weight": 0.5, "spacing": (1.0, 1.0, 1.0), "v": 1.0, "limit": 9.0, "out": floats(2, 2, 1, 4, 5), "threads": 1,
}  # fmt: skip
WRONG = {
    "batches": ({"start": floats(1, 2, 1, 4, 5)}, ValueError, r"start must have shape \(batch = 2, sets"),
    "pixels": ({"start": floats(2, 2, 1, 5, 4)}, ValueError, "start must have shape"),
    "barriers of floats": ({"barrier": floats(2, 1, 1, 4, 5)}, ValueError, "barrier must hold bool or uint8"),
    "barriers of channels": ({"barrier": np.ones((2, 3, 1, 4, 5), bool)}, ValueError, r"barrier must have shape .*, 1, nz"),
    "four axes": ({"image": floats(2, 3, 4, 5)}, ValueError, "image must have shape"),
    "integers": ({"image": np.ones((2, 3, 1, 4, 5), np.int64)}, TypeError, "image must hold float32, float16"),
    "planes": (
        {"image": floats(2, 3, 2, 4, 5), "start": floats(2, 2, 2, 4, 5), "out": floats(2, 2, 2, 4, 5)},
        ValueError,
        "image must have one plane",
    ),
    "metric": ({"metric": "euclid"}, ValueError, "metric must be one of fastgeodis, geodistk, geodistk_fm, got 'euclid'"),
    "method": ({"method": 2}, TypeError, "method must be a text"),
    "no number": ({"spacing": (1.0, "1", 1.0)}, TypeError, "spacing must be a sequence of numbers"),
    "two numbers": ({"spacing": (1.0, 1.0)}, ValueError, "spacing must hold 3 numbers"),
    "result": ({"out": floats(2, 1, 1, 4, 5)}, ValueError, "out must have shape"),
    "result of bytes": ({"out": np.ones((2, 2, 1, 4, 5), np.uint8)}, TypeError, "out must hold float32"),
    "lambda": ({"lam": -1.0}, ValueError, "lam must be between 0 and 1"),
    "step": ({"step_weight": float("nan")}, ValueError, "step_weight must be between 0 and 1"),
    "spacing": ({"spacing": (1.0, 0.0, 1.0)}, ValueError, "spacing must be positive"),
    "v": ({"v": -1.0}, ValueError, "v must not be negative"),
    "limit": ({"limit": float("nan")}, ValueError, "limit must not be negative"),
    "iterations": ({"iterations": -1}, ValueError, "iterations must be between 0 and 10000"),
    "unknown": ({"lamb": 0.5}, TypeError, "there is no field lamb"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "error", "text"), WRONG.values(), ids=WRONG)
def test_wrong(change, error, text):
    _C.geodesic_distance(**DISTANCE)
    with pytest.raises(error, match=text):
        _C.geodesic_distance(**{**DISTANCE, **change})


@pytest.mark.parametrize("name", DISTANCE)
def test_missing(name):
    if name == "barrier":  # as None
        return
    with pytest.raises(TypeError, match=f"{name} is missing"):
        _C.geodesic_distance(**{k: x for k, x in DISTANCE.items() if k != name})


def test_words_do_not_swap():
    """Positional fields took λ for 1 - λ; by name, the order is nobody's."""
    rng = np.random.default_rng(0)
    image, seeds = rng.random((1, 1, 1, 8, 9), np.float32), np.zeros((1, 1, 1, 8, 9), np.uint8)
    seeds[..., 2, 3] = 1
    found = []
    for lam in (0.2, 0.8):
        fields = {
            **DISTANCE,
            "image": image,
            "start": seeds,
            "start_kind": "nonzero",
            "lam": lam,
            "step_weight": 1 - lam,
        }
        out = np.empty(seeds.shape, np.float32)
        _C.geodesic_distance(**dict(reversed({**fields, "out": out}.items())))
        found.append(out)
    assert not np.array_equal(*found)


def test_backward_and_transform():
    grads = {"grad": floats(2, 2, 1, 4, 5), "grad_image": floats(2, 3, 1, 4, 5), "grad_start": floats(2, 2, 1, 4, 5)}
    fields = {k: x for k, x in DISTANCE.items() if k != "out"} | grads
    _C.geodesic_distance_backward(**fields)
    for change, text in (
        ({"grad_start": floats(2, 1, 1, 4, 5)}, "grad_start must have shape"),
        ({"grad": floats(2, 2, 1, 4, 4)}, "grad must have shape"),
        ({"method": "raster"}, "method must be exact"),
    ):
        with pytest.raises(ValueError, match=text):
            _C.geodesic_distance_backward(**{**fields, **change})
    mask, out = np.ones((2, 1, 1, 4, 5), np.uint8), floats(2, 1, 1, 4, 5)
    _C.euclidean_distance_transform(mask=mask, spacing=(1, 1, 1), out=out, threads=1)
    with pytest.raises(ValueError, match="out must have shape"):
        _C.euclidean_distance_transform(mask=mask, spacing=(1, 1, 1), out=out[:1], threads=1)
    with pytest.raises(ValueError, match="mask must hold bool or uint8"):
        _C.euclidean_distance_transform(mask=out, spacing=(1, 1, 1), out=out, threads=1)


def test_graphs():
    torch = pytest.importorskip("torch")
    ops, x = torch.ops.fastprompt, torch.ones
    rest = ("seed", "fastgeodis", "exact", 2, 0.5, 0.5, [1.0, 1.0], 1.0, 9.0)
    with pytest.raises(ValueError, match="start must have shape"):
        ops.geodesic_distance(x(1, 3, 1, 4, 5), x(1, 1, 1, 5, 4), None, *rest)
    with pytest.raises(ValueError, match="walls must have shape"):
        ops.geodesic_distance(x(1, 3, 1, 4, 5), x(1, 1, 1, 4, 5), x(1, 1, 1, 2, 5).bool(), *rest)
    with pytest.raises(ValueError, match="start_kind must be one of"):
        ops.geodesic_distance(x(1, 3, 1, 4, 5), x(1, 1, 1, 4, 5), None, "soft", *rest[1:])
    with pytest.raises(TypeError, match="mask must hold uint8 or bool"):
        ops.euclidean_distance_transform(x(1, 1, 1, 4, 5), [1.0, 1.0, 1.0])
