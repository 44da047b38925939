"""The bindings of the decoder: a wrong size, dtype, stride or field is an error, through ``_C`` and through torch."""

import numpy as np
import pytest
from field_faults import check, fields_of, refused

from fastprompt.ops.decoder import call, operators

C, HEADS, WIDTH, MLP, DEPTH, T = 32, 2, 16, 48, 2, 3
HEAD, SIZES, EPS = [(C, 8, 2, 2), (8,), (8,), (8,), (8, 4, 2, 2), (4,)], [HEADS, WIDTH, DEPTH, 32, 0], [1e-5, 1e-6]


def draw(*shape):
    return (np.random.default_rng(sum(shape)).standard_normal(shape) / 4).astype(np.float32)


def layers():
    inner = HEADS * WIDTH
    attention = [(inner, C), (inner,)] * 3 + [(C, inner), (C,)]
    own = [(C, C), (C,)] * 4
    norm = [(C,), (C,)]
    layer = [*own, *norm, *attention, *norm, (MLP, C), (MLP,), (C, MLP), (C,), *norm, *attention, *norm]
    return [draw(*s) for s in [*layer * DEPTH, *attention, *norm]]


IMAGE, POSITION, PROMPT, WEIGHTS, UP = draw(2, C, 3, 5), draw(1, C, 3, 5), draw(4, T, C), layers(), draw(C, 8, 2, 2)
FIRST = [*WEIGHTS[12:16], *WEIGHTS[26:28]]
VECTORS, WEIGHTS_OF_HEAD = draw(4, 2, 4), [draw(*s) for s in HEAD]
DETAIL = draw(2, 8, 6, 10), draw(2, 4, 12, 20)
MLPS = [draw(*s) for s in [(16, C), (16,), (5, 16), (5,)] * 2]


def aligned(x):
    """A copy that starts at a whole cache line, as torch's memory does."""
    room = np.empty(x.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    out = room[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    out[...] = x
    return out


def made(operator, *args):
    """As ``operator(*args)``."""
    found = operator.out(*args)
    results = [aligned(np.zeros(*spec)) for spec in (found if isinstance(found, list) else [found])]
    operator.call(*args, *results)
    return results


def arguments(name):
    if name == "mask_head":
        return (draw(4, C, 3, 5), VECTORS, *WEIGHTS_OF_HEAD, *DETAIL, 1e-6)
    if name == "token_mlps":
        return PROMPT, [0, 2], MLPS, 2
    if name == "two_way_prepare":
        return IMAGE, POSITION, FIRST
    if name == "two_way":
        (prepared,) = made(operators.two_way_prepare, IMAGE, POSITION, FIRST)
        return PROMPT, prepared, WEIGHTS, 2, 15, HEADS, WIDTH, MLP, DEPTH, EPS
    if name == "low_rank_prepare":
        return IMAGE, POSITION, WEIGHTS, UP, SIZES, EPS
    (prepared,) = made(operators.low_rank_prepare, IMAGE, POSITION, WEIGHTS, UP, SIZES, EPS)
    given = PROMPT, prepared, WEIGHTS, UP, 2, 15, MLP, SIZES, EPS
    if name == "low_rank":
        return given
    _, state = made(operators.low_rank, *given)
    return state, prepared, VECTORS, [UP, *WEIGHTS_OF_HEAD[1:]], *DETAIL, [2, T, 3, 5], SIZES, 1e-6


CALLS = {
    "mask_head": {"detail1", "detail2"},
    "token_mlps": {("tokens", 1)},
    "two_way_prepare": set(),
    "two_way": set(),
    "low_rank_prepare": set(),
    "low_rank": set(),
    "low_rank_masks": {"detail1", "detail2", ("weights[0]", 0)},  # whose weights are in `prepared`
}


def fields(monkeypatch, name):
    function, given = fields_of(monkeypatch, call, getattr(operators, name), *arguments(name))
    return function, given | {k: aligned(given[k]) for k in ("prepared", "image_out", "low_rank") if k in given}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_fields(monkeypatch, name):
    check(*fields(monkeypatch, name), CALLS[name])


HUGE = 2**62
WRONG = [
    ("mask_head", {"detail2": None}),
    ("token_mlps", {"rows": [0, T]}),
    ("token_mlps", {"rows": [0, 10**6]}),
    ("token_mlps", {"rows": [-1, 0]}),
    ("token_mlps", {"rows": [0]}),
    ("token_mlps", {"layers": 1}),
    ("token_mlps", {"layers": HUGE}),
    ("two_way", {"images": 3}),
    ("two_way", {"images": 0}),
    ("two_way", {"pixels": HUGE}),
    ("two_way", {"heads": 0}),
    ("two_way", {"heads": 4}),
    ("two_way", {"head_width": 8}),
    ("two_way", {"layers": 1}),
    ("two_way", {"layers": HUGE}),
    ("two_way", {"mlp": 16}),
    ("two_way", {"eps": [1e-5]}),
    ("low_rank_prepare", {"layers": 3}),
    ("low_rank_prepare", {"half": True}),
    ("low_rank", {"pixels": 65}),
    ("low_rank", {"images": 1}),
    ("low_rank", {"precision": 3}),
    ("low_rank_masks", {"tokens": T + 8}),
    ("low_rank_masks", {"tokens": HUGE}),
    ("low_rank_masks", {"height": HUGE}),
    ("low_rank_masks", {"images": 1}),
    ("low_rank_masks", {"images": -2}),
    ("low_rank_masks", {"layers": 1}),
]


@pytest.mark.parametrize(("name", "change"), WRONG, ids=str)
def test_wrong_values(monkeypatch, name, change):
    function, given = fields(monkeypatch, name)
    assert refused(function, given | change)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("two_way_prepare", "prepared"),
        ("two_way", "prepared"),
        ("low_rank_prepare", "prepared"),
        ("low_rank", "image_out"),
        ("low_rank_masks", "low_rank"),
    ],
)
def test_memory_that_starts_within_a_cache_line(monkeypatch, name, field):
    function, given = fields(monkeypatch, name)
    x = given[field]
    moved = aligned(np.zeros(x.size + 1, x.dtype))[1:].reshape(x.shape)
    assert "multiple of 64 bytes" in refused(function, given | {field: moved})


def test_no_prompts():
    """Whatever else is wrong, there is nothing to read then."""
    given = arguments("two_way")
    out, image = operators.two_way(given[0][:0], *given[1:])
    assert (out.shape, image.shape) == ((0, T, C), (0, C, 15))


def tensors(x):
    import torch

    if isinstance(x, (list, tuple)):
        return [tensors(y) for y in x]
    return torch.from_numpy(x).clone() if isinstance(x, np.ndarray) else x


@pytest.mark.parametrize("name", ["mask_head", "two_way", "low_rank", "low_rank_masks", "two_way_prepare"])
def test_wrong_tensors(name):
    """Every tensor in turn without its last column, and of another dtype; each list without its last item."""
    pytest.importorskip("torch")
    operator, given = getattr(operators, name).torch, tensors(arguments(name))
    operator(*given)
    for k, x in enumerate(given):
        if isinstance(x, (int, float)):
            continue
        for value in [x[:-1]] if isinstance(x, list) else [x[..., :-1], x.double()]:
            with pytest.raises((ValueError, TypeError)):
                operator(*given[:k], value, *given[k + 1 :])


def test_wrong_composites():
    pytest.importorskip("torch")
    given = tensors((IMAGE, POSITION, PROMPT, WEIGHTS, HEADS, WIDTH, DEPTH, EPS))
    operator = operators.two_way_transformer.torch
    operator(*given)
    for k, value in ((1, given[1][..., :4]), (2, given[2][:3]), (3, given[3][:20]), (3, given[3][1:]), (4, 3), (6, 3)):
        with pytest.raises((ValueError, TypeError)):
            operator(*given[:k], value, *given[k + 1 :])
