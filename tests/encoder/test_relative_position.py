"""relative_position_attention: the kernels against the written-out formula, the models that use it, and autograd."""

import itertools

import numpy as np
import pytest

import fastprompt as fp
from fastprompt import _C
from fastprompt.reference import encoder as reference

# images, (rows, columns), heads, width of a head
GRIDS = {
    "window": (3, (14, 14), 2, 64),
    "ragged": (2, (5, 7), 3, 32),
    "one row": (1, (1, 9), 2, 16),
    "one column": (1, (13, 1), 2, 16),
    "one token": (2, (1, 1), 1, 16),
    "wide": (1, (3, 70), 1, 48),
    "tall": (1, (67, 3), 1, 128),
    "two blocks of keys": (1, (23, 29), 2, 80),
    "odd width": (1, (6, 6), 2, 10),
}


def normal(rng, *shape, scale=1.0):
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def make(rng, grid, tokens=None, cell=None):
    """q, k, v as slices of one qkv tensor, and the tables."""
    images, size, heads, width = grid
    qkv = normal(rng, images, size[0] * size[1] if tokens is None else tokens, 3, heads, width)
    tables = (normal(rng, 2 * n - 1, width, scale=0.4) for n in cell or size)
    return (qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], *tables)


def exact(q, k, v, rel_h, rel_w, size, scale=None, coordinates=None, window=None, padding=None):
    """The reference in float64, heads side by side."""
    arrays = [x.astype(np.float64) for x in (q, k, v, rel_h, rel_w)]
    places = None if coordinates is None else np.reshape(coordinates, (-1, *np.shape(coordinates)[-2:]))
    pad = (None, None) if padding is None else [x.astype(np.float64) for x in padding]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out = reference.relative_attention(*arrays, places, *pad, size, window or (0, 0), scale)[0]
    return out.reshape(*q.shape[:2], -1)


def close(got, want, tolerance=1e-5):
    assert got.shape == want.shape
    assert np.isfinite(got).all()
    assert np.abs(got - want).max() <= tolerance * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_grid(rng, isa, grid):
    arrays = make(rng, grid)
    close(fp.relative_position_attention(*arrays, size=grid[1]), exact(*arrays, grid[1]))
    got = fp.relative_position_attention(*arrays, size=grid[1], scale=0.7)
    close(got, exact(*arrays, grid[1], scale=0.7), 3e-5)


def subsets(rng):
    """Of a grid of 9 x 20."""
    every = np.stack(np.indices((9, 20)), -1).reshape(-1, 2)
    keep = rng.permutation(180)[:101]
    yield "shuffled", every[keep]
    yield "in order", every[np.sort(keep)]
    yield (
        "rows of windows",
        np.concatenate([every.reshape(9, 20, 2)[:7, 7 * n : 7 * n + 7].reshape(-1, 2) for n in (0, 1)]),
    )
    yield "one", every[33:34]
    yield "twice the same", np.concatenate([every[5:9], every[5:9]])
    yield "none", every[:0]
    large = rng.integers(0, 9, (1100, 2))
    yield "three blocks of keys", large * [1, 2]
    yield "a list for each image", np.stack([every[keep], every[keep[::-1]]])


def test_subsets(rng, isa):
    for name, places in subsets(rng):
        arrays = make(rng, (2, (9, 20), 2, 32), places.shape[-2])
        got = fp.relative_position_attention(*arrays, size=(9, 20), coordinates=places)
        if name == "none":
            assert got.shape == (2, 0, 64)
            continue
        close(got, exact(*arrays, (9, 20), coordinates=places))


def test_a_list_of_all_tokens_is_the_grid(rng):
    arrays = make(rng, GRIDS["window"])
    every = np.stack(np.indices((14, 14)), -1).reshape(-1, 2)
    wanted = fp.relative_position_attention(*arrays, size=(14, 14))
    np.testing.assert_array_equal(fp.relative_position_attention(*arrays, size=(14, 14), coordinates=every), wanted)


# grid, window
WINDOWS = {
    "whole": ((8, 12), (4, 6)),
    "right": ((8, 13), (4, 6)),
    "below": ((9, 12), (4, 6)),
    "corner": ((10, 9), (4, 6)),
    "smaller than a window": ((3, 5), (14, 14)),
    "sam": ((32, 32), (14, 14)),
    "two blocks of keys": ((30, 31), (26, 27)),
}


@pytest.mark.parametrize("case", WINDOWS.values(), ids=WINDOWS)
def test_windows(rng, isa, case):
    size, window = case
    arrays = make(rng, (2, size, 2, 32), cell=window)
    padding = normal(rng, 2, 32), normal(rng, 2, 32)
    for level in (1.0, 30.0):  # strong tables: the weight of the padding spans many orders of magnitude
        arrays[3][:] *= level
        got = fp.relative_position_attention(*arrays, size=size, window=window, padding=padding)
        close(got, exact(*arrays, size, window=window, padding=padding), 1e-5 * level)


def test_windows_equal_windows_as_images(rng):
    """As SAM does it: the qkv layer sees zeros, so that keys and values outside the grid are its bias."""
    size, window, heads, width = (19, 23), (8, 8), 2, 16
    weight, bias = normal(rng, 3 * heads * width, 24, scale=0.2), normal(rng, 3 * heads * width)
    x = normal(rng, 1, size[0] * size[1], 24)
    _, _, _, rel_h, rel_w = make(rng, (1, (8, 8), heads, width))

    def qkv(tokens):
        return np.moveaxis((tokens @ weight.T + bias).reshape(*tokens.shape[:2], 3, heads, width), 2, 0)

    zeros = reference.partition(x, size, window, None)
    wanted = fp.relative_position_attention(*qkv(zeros), rel_h, rel_w, size=window)
    padding = bias.reshape(3, heads, width)[1:]
    got = fp.relative_position_attention(*qkv(x), rel_h, rel_w, size=size, window=window, padding=tuple(padding))
    close(got, reference.unite(wanted, size, window))


def test_large_logits(rng, isa):
    """The peak of a row grows from block to block, and lies far above or below zero."""
    q, k, v, rel_h, rel_w = make(rng, (1, (6, 90), 1, 32))
    k = k * np.linspace(-3, 30, 540, dtype=np.float32)[None, :, None, None]
    close(
        fp.relative_position_attention(q, k, v, rel_h, rel_w, size=(6, 90)), exact(q, k, v, rel_h, rel_w, (6, 90)), 2e-4
    )
    q, k = np.abs(q), -np.abs(k) * 3
    close(
        fp.relative_position_attention(q, k, v, rel_h, rel_w, size=(6, 90)), exact(q, k, v, rel_h, rel_w, (6, 90)), 2e-4
    )


def test_nan_stays_in_its_rows(rng, isa):
    q, k, v, rel_h, rel_w = make(rng, (2, (5, 7), 2, 16))
    q[0, 3, 1, 2] = np.nan
    got = fp.relative_position_attention(q, k, v, rel_h, rel_w, size=(5, 7)).reshape(2, 35, 2, 16)
    bad = np.isnan(got).any(-1)
    assert bad[0, 3, 1]
    assert bad.sum() == 1
    k[1, 30, 0] = np.nan
    got = fp.relative_position_attention(q, k, v, rel_h, rel_w, size=(5, 7)).reshape(2, 35, 2, 16)
    assert np.isnan(got[1, :, 0]).all()
    assert np.isfinite(got[1, :, 1]).all()


def test_threads_and_views(rng):
    grid = (2, (9, 20), 3, 32)
    arrays = make(rng, grid)
    wanted = fp.relative_position_attention(*arrays, size=grid[1])
    views = {
        "contiguous": [np.ascontiguousarray(x) for x in arrays],
        "heads first": [np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) if x.ndim == 4 else x for x in arrays],
        "fortran": [np.asfortranarray(x) for x in arrays],
        "reversed": [x[::-1].copy()[::-1] for x in arrays],
        "offset": [np.stack([x, x])[1] for x in arrays],
        "float64": [x.astype(np.float64) for x in arrays],
    }
    try:
        for (name, view), threads in itertools.product(views.items(), (1, 2, 5)):
            fp.set_num_threads(threads)
            np.testing.assert_array_equal(fp.relative_position_attention(*view, size=grid[1]), wanted, name)
    finally:
        fp.set_num_threads(None)


def test_one_image_without_batch_axis(rng):
    q, k, v, *tables = make(rng, GRIDS["ragged"])
    got = fp.relative_position_attention(q[0], k[0], v[0], *tables, size=(5, 7))
    np.testing.assert_array_equal(got, fp.relative_position_attention(q, k, v, *tables, size=(5, 7))[0])


def test_backends_and_empty_batch(rng):
    arrays = make(rng, GRIDS["ragged"])
    with fp.backend("reference"):
        close(fp.relative_position_attention(*arrays, size=(5, 7)), exact(*arrays, (5, 7)))
    got = fp.relative_position_attention(*(x[:0] if x.ndim == 4 else x for x in arrays), size=(5, 7))
    assert got.shape == (0, 35, 96)


# ---------------------------------------------------------------- errors

X = {k: np.zeros((2, 12, 2, 16), np.float32) for k in ("q", "k", "v")}
X |= {"rel_h": np.zeros((5, 16)), "rel_w": np.zeros((7, 16)), "size": (3, 4)}
LIST = np.zeros((12, 2), int)
WRONG = {
    "axes": ({"q": np.zeros((12, 16))}, ValueError, r"q must be \(\[B,\] N, heads, width\)"),
    "k": ({"k": np.zeros((2, 11, 2, 16))}, ValueError, r"k must have the shape of q \(2, 12, 2, 16\)"),
    "v": ({"v": np.zeros((2, 12, 2, 8))}, ValueError, "v must have the shape of q"),
    "rel_h": ({"rel_h": np.zeros((7, 16))}, ValueError, r"rel_h must have shape \(5, 16\), got \(7, 16\)"),
    "rel_w": ({"rel_w": np.zeros((7, 8))}, ValueError, r"rel_w must have shape \(7, 16\)"),
    "size": ({"size": (4, 4), "rel_h": np.zeros((7, 16))}, ValueError, "the 4 x 4 tokens of the grid, got 12"),
    "size_type": ({"size": 12}, TypeError, "size must be two ints"),
    "size_range": ({"size": (0, 4)}, ValueError, "size must be between 1 and"),
    "scale": ({"scale": "x"}, TypeError, "scale must be a number"),
    "window_type": ({"window": 2.5}, TypeError, "window must be two ints"),
    "window_tables": ({"window": (3, 2)}, ValueError, r"rel_w must have shape \(3, 16\)"),
    "padding": (
        {"window": (2, 4), "rel_h": np.zeros((3, 16))},
        ValueError,
        r"padding must give key and value where windows \(2, 4\) do not divide the grid \(3, 4\)",
    ),
    "padding_alone": ({"padding": (np.zeros((2, 16)),) * 2}, ValueError, "padding is for windows"),
    "padding_shape": ({"window": (3, 4), "padding": (np.zeros(16),) * 2}, ValueError, "padding must hold two arrays"),
    "padding_type": ({"window": (3, 4), "padding": 3}, TypeError, "padding must be a pair"),
    "list_shape": ({"coordinates": LIST[:5]}, ValueError, r"coordinates must have shape \(12, 2\)"),
    "list_type": ({"coordinates": LIST * 1.0}, TypeError, "coordinates must hold integers"),
    "list_high": ({"coordinates": LIST + [0, 4]}, ValueError, r"inside the grid \(3, 4\), axis 1 is not"),
    "list_low": ({"coordinates": LIST - 1}, ValueError, r"inside the grid \(3, 4\), axis 0 is not"),
    "list_huge": ({"coordinates": LIST + 2**40}, ValueError, "inside the grid"),
    "list_and_window": ({"coordinates": LIST, "window": (3, 4)}, ValueError, "exclude each other"),
    "complex": ({"q": np.zeros((2, 12, 2, 16), complex)}, TypeError, "q must hold real numbers"),
}


@pytest.mark.parametrize("change", WRONG)
def test_wrong_calls(change):
    changes, error, match = WRONG[change]
    with pytest.raises(error, match=match):
        fp.relative_position_attention(**(X | changes))


def test_the_instruction_sets_agree(rng):
    arrays = make(rng, GRIDS["two blocks of keys"])
    found = []
    for name in ("baseline", "avx2", "avx512"):
        _C.set_isa(name)
        found.append(fp.relative_position_attention(*arrays, size=(23, 29)))
    _C.set_isa(_C.best_isa())
    for other in found[1:]:
        close(other, found[0])
