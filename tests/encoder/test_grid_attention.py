"""Attention over a grid, in windows, with pooled queries: the kernels against the reference and torch."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

from fastprompt.ops.encoder.operators import grid_attention  # noqa: E402
from fastprompt.reference import encoder as reference  # noqa: E402

PLACES = {  # rows and columns of the grid, window, pool
    "all": ((16, 12), (0, 0), 1),
    "all, pooled": ((16, 12), (0, 0), 2),
    "blocks of keys": ((40, 36), (0, 0), 1),
    "windows": ((16, 12), (4, 4), 1),
    "windows of seven": ((15, 13), (7, 7), 1),
    "one window, larger than the grid": ((6, 4), (14, 14), 1),
    "windows, pooled": ((16, 12), (8, 8), 2),
    "padded and pooled": ((40, 36), (14, 14), 2),
    "pooled by four": ((8, 8), (4, 8), 4),
}


def draw(size, heads, width, images=2):
    made = torch.Generator().manual_seed(width)
    rows = torch.randn(images, size[0] * size[1], 3, heads, width, generator=made)
    return *rows.unbind(2), *torch.randn(2, heads, width, generator=made)


def exact(q, k, v, pad_key, pad_value, *place):
    arrays = [x.double().numpy() for x in (q, k, v, pad_key, pad_value)]
    return torch.from_numpy(reference.grid_attention(*arrays, *place))


def close(got, want, tolerance=1e-6):
    assert got.shape == want.shape
    assert (got - want).abs().max() <= tolerance * max(1.0, float(want.abs().max()))


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("width", [16, 56, 72, 96, 20, 1])
def test_reference(isa, place, width):
    rows = draw(place[0], 3, width)
    want = exact(*rows, *place, width**-0.5)
    close(grid_attention(*rows, *map(list, place[:2]), place[2], width**-0.5), want)
    arrays = [x.numpy() for x in rows]
    close(torch.from_numpy(grid_attention(*arrays, *place, width**-0.5)), want)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_reference_is_what_the_hosts_do(place):
    """Pad the qkv layer's input with zeros, cut windows, pool, attend, and put the windows back."""
    (height, width), window, pool = place
    cell = window if window[0] else (height, width)
    q, k, v, pad_key, pad_value = (x.double() for x in draw(place[0], 2, 8))
    whole = [-(-n // m) * m for n, m in zip((height, width), cell, strict=True)]
    windows = []
    for x, pad in ((q, torch.zeros(2, 8)), (k, pad_key), (v, pad_value)):
        filled = pad.double().expand(2, *whole, 2, 8).clone()
        filled[:, :height, :width] = x.unflatten(1, (height, width))
        windows.append(filled)
    out = torch.zeros(2, whole[0] // pool, whole[1] // pool, 2, 8, dtype=torch.double)
    for y in range(0, whole[0], cell[0]):
        for x in range(0, whole[1], cell[1]):
            cut = [w[:, y : y + cell[0], x : x + cell[1]].flatten(3) for w in windows]
            cut[0] = F.max_pool2d(cut[0].permute(0, 3, 1, 2), pool).permute(0, 2, 3, 1)
            heads = [c.unflatten(3, (2, 8)).flatten(1, 2).transpose(1, 2) for c in cut]
            part = F.scaled_dot_product_attention(*heads, scale=0.3).transpose(1, 2)
            at = y // pool, x // pool
            out[:, at[0] : at[0] + cell[0] // pool, at[1] : at[1] + cell[1] // pool] = part.unflatten(
                1, (cell[0] // pool, cell[1] // pool)
            )
    want = out[:, : height // pool, : width // pool].flatten(1, 2)
    close(exact(q, k, v, pad_key, pad_value, *place, 0.3), want, 1e-12)


@pytest.mark.parametrize("width", [64, 56, 96])
@pytest.mark.parametrize("place", [PLACES["padded and pooled"], PLACES["blocks of keys"]], ids=["windows", "all"])
def test_precision(engine, precision, width, place):
    rows = draw(place[0], 2, width)
    precision("highest")
    given = (*map(list, place[:2]), place[2], width**-0.5)
    want = grid_attention(*rows, *given)
    for name, tolerance in (("high", 5e-5), ("medium", 2e-2)):
        precision(name)
        got = grid_attention(*rows, *given)
        close(got, want, tolerance)
        assert torch.equal(got, want) == (name == "high" and engine == "avx512_bf16")


def test_large_logits_and_far_keys(isa):
    """Sums are rescaled when a later block has the largest logit."""
    q, k, v, *pads = draw((40, 36), 1, 16)
    k = k * torch.linspace(1, 60, 1440)[None, :, None, None]
    close(
        grid_attention(q, k, v, *pads, [40, 36], [0, 0], 1, 1.0), exact(q, k, v, *pads, (40, 36), (0, 0), 1, 1.0), 3e-4
    )


def test_threads_change_nothing():
    rows, before, found = draw((40, 36), 3, 56), torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(grid_attention(*rows, [40, 36], [14, 14], 2, 0.1))
    torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found)


def test_gradient():
    rows = [x.double().requires_grad_() for x in draw((4, 6), 2, 3)]
    call = lambda *rows: grid_attention(*rows, [4, 6], [4, 4], 2, 0.5)  # noqa: E731
    assert torch.autograd.gradcheck(call, rows)


def test_opcheck():
    torch.library.opcheck(grid_attention.torch, (*draw((8, 6), 2, 16), [8, 6], [4, 4], 2, 0.25))


def test_refusals():
    q, k, v, pad_key, pad_value = draw((4, 6), 2, 16)
    for text, given in {
        "pool must (be positive and )?divide": (pad_key, pad_value, [4, 6], [4, 4], 3),
        "pad_key (and pad_value )?must be given|pad_key and pad_value must": (None, pad_value, [4, 6], [4, 4], 2),
        "must have shape|must hold the tokens": (None, None, [4, 5], [0, 0], 1),
        "size must be two|size must be between": (None, None, [0, 6], [0, 0], 1),
        "window two or|window must be between": (None, None, [4, 6], [4, 0], 1),
    }.items():
        with pytest.raises(ValueError, match=text):
            grid_attention(q, k, v, *given, 0.25)
        with pytest.raises(ValueError, match=text):
            grid_attention(*(None if x is None else np.asarray(x) for x in (q, k, v, *given[:2])), *given[2:], 0.25)
