"""Finds of the fuzzer as calls with names: seeds draw other calls once there are more operators."""

import math

import pytest

torch = pytest.importorskip("torch")
from fuzz import decoder_cases, encoder_cases  # noqa: E402, F401  which add their cases
from fuzz.cases import CASES  # noqa: E402
from fuzz.values import Draw  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from fastprompt._runtime import backend  # noqa: E402

SEEDS = range(5)


def drawn(name, seed, accept=lambda *args: True):
    """Right arguments of an operator that have what is asked for."""
    d = Draw(f"{name} {seed}")
    while not accept(*(args := CASES[name](d))):
        pass
    return list(args)


def call(name, args):
    return getattr(torch.ops.fastprompt, name).default(*args)


def fake(name, args):
    mode = FakeTensorMode()
    made = lambda x: mode.from_tensor(x) if isinstance(x, torch.Tensor) else x  # noqa: E731
    with mode:
        return call(name, [[made(y) for y in x] if isinstance(x, list) else made(x) for x in args])


def longer(x, axis):
    return torch.cat([x, x], axis)


def last(change):
    return lambda weights: [*weights[:-1], change(weights[-1])]


WRONG = {  # operator, place of the argument, what it becomes, what is said
    "a detail's columns": ("low_rank_masks", 4, lambda x: longer(x, 3), "detail1 must have shape"),
    "a detail's rows": ("low_rank_masks", 5, lambda x: longer(x, 2), "detail2 must have shape"),
    "no rows": ("low_rank_masks", 5, lambda x: x[:, :, :0], "detail2 must have shape"),
    "another frame": ("low_rank_masks", 6, lambda s: [*s[:3], s[3] + 1], "must have shape"),
    "more tokens": ("low_rank_masks", 6, lambda s: [s[0], s[1] + 16, *s[2:]], "low_rank must have shape"),
    "other heads for masks": ("low_rank_masks", 7, lambda s: [1, *s[1:]], "must have shape"),
    "a longer state": ("low_rank_masks", 0, lambda x: longer(x, 1), "low_rank must have shape"),
    "a longer image": ("low_rank_masks", 1, lambda x: longer(x, 0), "prepared must have shape"),
    "a wider convolution": ("low_rank_masks", 7, lambda s: [*s[:3], 2 * s[3], s[4]], "must have shape"),
    "one head": ("low_rank_prepare", 4, lambda s: [1, *s[1:]], "weights.* must have shape"),
    "a narrow head": ("low_rank_prepare", 4, lambda s: [s[0], 1, *s[2:]], "weights.* must have shape"),
    "three layers": ("low_rank_prepare", 4, lambda s: [*s[:2], 3, *s[3:]], "weights must hold"),
    "up": ("low_rank_prepare", 3, lambda x: longer(x, 1), "up must have shape"),
    "an odd up": ("low_rank_prepare", 4, lambda s: [*s[:3], s[3] + 1, s[4]], "sizes must have a multiple of 16"),
    "four sizes": ("low_rank", 7, lambda s: s[:4], "sizes must be 5 numbers"),
    "a wider mlp": ("low_rank", 6, lambda n: n + 16, "weights.* must have shape"),
    "prepared": ("low_rank", 1, lambda x: x[1:], "prepared must have shape"),
    "the last weight": ("two_way", 2, last(lambda x: x[1:]), "weights.* must have shape"),
    "mlp": ("two_way", 7, lambda n: n + 16, "weights.* must have shape"),
    "images": ("two_way", 3, lambda n: 5, "must have shape|must divide"),
    "heads": ("two_way_transformer", 4, lambda n: 1, "weights.* must have shape"),
    "width": ("two_way_transformer", 5, lambda n: 2 * n, "weights.* must have shape"),
    "no heads": ("two_way_transformer", 4, lambda n: 0, "heads must be"),
    "no projection": ("grid_layer", 4, lambda weights: [], "project must hold a weight and a bias"),
    "half a projection": ("grid_layer", 4, lambda weights: weights[:1], "project must hold a weight and a bias"),
    "a flat projection": ("grid_layer", 4, lambda weights: weights[::-1], "project must hold a weight and a bias"),
    "one epsilon": ("grid_layer", 10, lambda eps: eps[:1], "eps must be 2 numbers"),
    "heads of all": ("mask_decoder", 9, lambda n: 1, "weights.* must have shape"),
}


@pytest.mark.parametrize(("name", "place", "change", "said"), WRONG.values(), ids=WRONG)
def test_the_fake_refuses_what_the_call_refuses(name, place, change, said):
    args = drawn(name, 0, lambda *args: name != "low_rank_masks" or args[4] is not None)
    assert fake(name, args) is not None
    call(name, args)
    args[place] = change(args[place])
    for door in (call, fake):
        with pytest.raises(ValueError, match=said):
            door(name, args)


def test_attention_says_which_dtype_it_wants():
    args = drawn("relative_attention_backward", 0)
    args[0] = args[0].to(torch.complex64)
    for door in (call, fake):
        with pytest.raises(TypeError, match="grad must hold float32 or float16 or bfloat16, got complex64"):
            door("relative_attention_backward", args)
    args = drawn("relative_attention", 0, lambda *args: args[0].shape[3] == 5 and args[6] is not None)
    args[6] = args[6].double()
    for door in (call, fake):
        with pytest.raises(TypeError, match="pad_key must hold float32 or float16 or bfloat16, got float64"):
            door("relative_attention", args)


@pytest.mark.parametrize("sharpest", [0.0, 0.5])
def test_no_row_is_the_most_similar_of_none(sharpest):
    features, rows = torch.ones(1, 3, 7), torch.ones(1, 0, 3)
    args = [features, rows, 2.0, 1e-6, math.inf, sharpest]
    for door in (call, fake):
        with pytest.raises(ValueError, match="rows must hold a row"):
            door("similarity_argmax", args)
    assert call("similarity_map", [*args[:5], 0, sharpest]).shape == (1, 0, 7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("seed", SEEDS)
def test_an_outline_is_drawn_between_whole_pixels(dtype, seed):
    """Vertices of the operator need not be whole, and may have any dtype, with the reference too."""
    args = drawn("polygon_mask", seed, lambda *args: args[4])
    args[0] = args[0].to(dtype)
    got = call("polygon_mask", args)
    assert torch.equal(got, call("polygon_mask", [args[0].double().round(), *args[1:]]))
    with backend("reference"):
        assert torch.equal(got, call("polygon_mask", args))


SETTINGS = {  # place, value: costs that fall for ever, axes that nobody has
    "step_weight must be between 0 and 1": (8, -1.0),
    "lam must be between 0 and 1": (7, math.nan),
    "iterations must be between 0 and 10000": (6, -1),
    "spacing must be 2 or 3 numbers, got 4": (9, [1.0, 2.0, 0.5, 0.5]),
    "spacing must be 2 or 3 numbers, got 1": (9, [1.0]),
    "spacing must be positive and finite": (9, [0.0, 1.0]),
    "v must ": (10, -1.0),
    "limit must ": (11, -1.0),
    "method must be one of": (5, "none"),
}


@pytest.mark.parametrize("said", SETTINGS)
def test_the_reference_refuses_what_the_kernel_refuses(said):
    args = drawn("geodesic_distance", 0, lambda *args: len(args[9]) == 2 and args[5] == "exact")
    call("geodesic_distance", args)
    place, args[place] = SETTINGS[said]
    with pytest.raises(ValueError, match=said):
        call("geodesic_distance", args)
    with backend("reference"), pytest.raises(ValueError, match=said):
        call("geodesic_distance", args)
    with pytest.raises(ValueError, match=said):
        fake("geodesic_distance", args)


@pytest.mark.parametrize("missing", [-1.0, math.nan])
@pytest.mark.parametrize("path", ["reference", "auto"])
def test_a_missing_click_is_at_a_distance(path, missing):
    args = drawn("click_map", 0)
    with backend(path), pytest.raises(ValueError, match="missing must be a squared distance"):
        call("click_map", [*args[:-1], missing])
