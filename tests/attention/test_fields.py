"""The calls into csrc/attention: what is wrong with a field is said by its name, and read by no kernel."""

import numpy as np
import pytest

from fastprompt import _C

torch = pytest.importorskip("torch")
from fastprompt.ops.attention import operators  # noqa: E402


def f(*shape):
    return np.ones(shape, np.float32)


TWO, MISSING = np.full(4, 2), object()
SHARED = {"image": f(2, 32, 3, 5), "position": f(1, 32, 3, 5), "lengths": TWO, "threads": 1}
TO_IMAGE = SHARED | {"query": f(4, 2, 3, 32), "bias": f(4, 3, 3, 5), "out": f(4, 2, 3, 32)}
TO_PROMPT = SHARED | {"key": f(4, 2, 3, 32), "value": f(4, 2, 3, 32), "bias": f(4, 2, 3), "out_bias": f(32)}
TO_PROMPT |= {"norm_weight": f(32), "norm_bias": f(32), "residual": True, "eps": 1e-6, "out": f(4, 32, 3, 5)}
PROJECTED = {"query": f(4, 2, 3, 16), "out": f(4, 2, 3, 16), "key_weight": f(32, 32), "value_weight": f(32, 32)}
WRONG = [
    ({"image": MISSING}, TypeError, "image is missing"),
    (
        {"image": f(2, 32, 15)},
        ValueError,
        r"image must have shape \(images, channels, height, width\), got \(2, 32, 15\)",
    ),
    ({"image": f(2, 32, 3, 5).astype(np.float64)}, TypeError, "image must hold float32"),
    ({"image": f(2, 32, 3, 10)[..., ::2]}, ValueError, "image must be contiguous"),
    ({"image": f(3, 32, 3, 5)}, ValueError, "must be of as many prompts for every image"),
    ({"image": f(0, 32, 3, 5)}, ValueError, "must be of as many prompts for every image"),
    ({"image": [1.0]}, TypeError, "image must be an array"),
    ({"position": f(2, 32, 3, 5)}, ValueError, "position must have shape"),
    ({"position": f(1, 32, 5, 3)}, ValueError, "position must have shape"),
    ({"lengths": TWO[:3]}, ValueError, "lengths must have shape"),
    ({"lengths": TWO.astype(np.int32)}, TypeError, "lengths must hold int64"),
    ({"lengths": TWO + 2}, ValueError, "lengths must be between 1 and"),
    ({"lengths": TWO - 2}, ValueError, "lengths must be between 1 and"),
    ({"lengths": TWO - 2**60}, ValueError, "lengths must be between 1 and"),
    ({"threads": 0}, ValueError, "threads must be positive"),
    ({"steps": 3}, TypeError, "there is no field steps"),
]
OF_IMAGE = [
    ({"image": f(2, 32, 0, 5), "position": None, "bias": None}, ValueError, "image must have pixels"),
    ({"query": f(4, 2, 3, 48)}, ValueError, "query must have shape"),
    (
        {"query": f(4, 2, 0, 32), "lengths": None, "bias": None, "out": f(4, 2, 0, 32)},
        ValueError,
        "query must have heads",
    ),
    ({"bias": f(4, 3, 15)}, ValueError, "bias must have shape"),
    ({"out": f(4, 2, 3, 16)}, ValueError, "out must have shape"),
    ({"out": np.broadcast_to(f(1), (4, 2, 3, 32))}, ValueError, "out must be contiguous"),
    ({"value_weight": f(32, 32)}, ValueError, "value_weight must be given with key_weight, and only with it"),
    (PROJECTED | {"value_weight": None}, ValueError, "value_weight must be given with key_weight"),
    (PROJECTED | {"key_weight": f(48, 32)}, ValueError, r"key_weight must have shape \(32, 32\), got \(48, 32\)"),
    (PROJECTED | {"value_weight": f(32, 48)}, ValueError, "value_weight must have shape"),
    (
        PROJECTED | {"query": f(4, 2, 3, 8), "out": f(4, 2, 3, 8)},
        ValueError,
        "query must have a width that is a multiple",
    ),
]
OF_PROMPT = [
    ({"value": f(4, 2, 2, 32)}, ValueError, "value must have shape"),
    ({"bias": f(4, 3, 2)}, ValueError, "bias must have shape"),
    ({"out_bias": f(31)}, ValueError, "out_bias must have shape"),
    ({"norm_bias": None}, ValueError, "norm_bias must be given with norm_weight, and only with it"),
    ({"norm_weight": f(1)}, ValueError, "norm_weight must have shape"),
    ({"residual": "no"}, TypeError, "residual must be a bool"),
    ({"eps": "small"}, TypeError, "eps must be a number"),
    ({"out_weight": f(32, 32)}, ValueError, "out_weight must be given with query_weight, and only with it"),
    ({"out": f(2, 32, 3, 5)}, ValueError, "out must have shape"),
]
CASES = [("prompt_to_image", TO_IMAGE, *case) for case in WRONG + OF_IMAGE]
CASES += [("image_to_prompt", TO_PROMPT, *case) for case in WRONG + OF_PROMPT]


@pytest.mark.parametrize(("name", "right", "changes", "error", "match"), CASES)
def test_wrong_fields(name, right, changes, error, match):
    given = {k: x for k, x in (right | changes).items() if x is not MISSING}
    with pytest.raises(error, match=f"^{name}: .*{match}"):
        getattr(_C, name)(**given)


def test_right_fields():
    _C.prompt_to_image(**TO_IMAGE)
    _C.prompt_to_image(**TO_IMAGE | PROJECTED)
    _C.image_to_prompt(**TO_PROMPT)


def t(*shape):
    return torch.ones(shape)


def test_through_torch():
    to_image, to_prompt = operators.prompt_to_image.torch, operators.image_to_prompt.torch
    image, rows, none = t(2, 32, 3, 5), t(4, 2, 3, 32), (None, None)
    for call in (
        lambda: to_image(image, t(1, 32, 3, 4), rows, *none, *none),
        lambda: to_image(image, None, t(3, 2, 3, 32), *none, *none),
        lambda: to_image(image, None, t(4, 2, 3, 48), *none, *none),
        lambda: to_image(image, None, t(4, 2, 3, 16), t(16, 32), t(16, 32), *none),
        lambda: to_image(image, None, rows, *none, t(4, 3, 3, 4), None),
        lambda: to_image(image, None, rows, *none, None, torch.tensor([1, 2, 3, 4])),
        lambda: to_prompt(image, None, rows, t(4, 2, 2), rows, *none, t(32), *none, None, True, 0.0),
        lambda: to_prompt(image, None, rows, t(4, 2, 3), t(4, 2, 3, 16), *none, t(32), *none, None, True, 0.0),
        lambda: to_prompt(image, None, rows, t(4, 2, 3), rows, *none, t(16), *none, None, True, 0.0),
        lambda: to_prompt(image, None, rows, t(4, 2, 3), rows, *none, t(32), t(32), t(8), None, True, 0.0),
    ):
        with pytest.raises(ValueError, match="must"):
            call()
    with pytest.raises(TypeError, match="image must hold float32 or float16 or bfloat16, got float64"):
        to_image(image.double(), None, rows, *none, *none)
