"""token_scores: the cosine kernel against float64, the terms of place against a loop over the tokens."""

import itertools
import math

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")

# batch, tokens, channels, prompts, images of prompts
SHAPES = {
    "vit-s": (1, 1024, 384, 3, 1),
    "ragged": (3, 37, 19, 5, 3),
    "shared": (2, 10, 100, 4, 1),
    "many": (2, 9, 33, 13, 2),
    "one": (1, 1, 1, 1, 1),
    "two": (1, 5, 16, 2, 1),
}


def make(rng, shape):
    batch, tokens, channels, prompts, images = shape
    return (rng.standard_normal(s).astype(np.float32) for s in ((batch, tokens, channels), (images, prompts, channels)))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_cosine(rng, isa, shape):
    x, q = make(rng, shape)
    x, q = x * 30, q / 7
    want = torch.nn.functional.cosine_similarity(
        torch.from_numpy(x).double()[:, :, None], torch.from_numpy(q).double()[:, None], dim=-1
    ).amax(-1)
    for got in (fp.token_scores(x, prompts=q), fp.token_scores(torch.from_numpy(x), prompts=torch.from_numpy(q))):
        assert str(got.dtype).endswith("float32")
        np.testing.assert_allclose(got, want, rtol=0, atol=5e-7)
    with fp.backend("reference"):
        np.testing.assert_allclose(fp.token_scores(x, prompts=q), want, rtol=0, atol=1e-7)


def test_cosine_of_special_values(isa):
    x = np.zeros((1, 6, 40), np.float32)
    x[0, 1, 3], x[0, 2, 39], x[0, 3, 0], x[0, 4, 5] = 2, np.nan, 1e-30, -3
    q = np.zeros((1, 2, 40), np.float32)
    q[0, 0, 3], q[0, 1, 5] = 5, 1
    got = fp.token_scores(x, prompts=q)[0]
    np.testing.assert_array_equal(got, [0, 1, np.nan, 0, 0, 0])
    q[0, 0, 3] = np.nan
    assert np.isnan(fp.token_scores(x, prompts=q)).all()
    assert (fp.token_scores(x, prompts=q[:, :0]) == 0).all()


def test_views_and_dtypes(rng, isa):
    large = rng.standard_normal((3, 40, 64)).astype(np.float32)
    q = rng.standard_normal((1, 3, 64)).astype(np.float32)
    for view in (large[:, 1:], large[::2, ::3], large[:, ::-1], large[..., ::2], large.transpose(0, 2, 1)):
        p = np.resize(q, (1, 3, view.shape[2]))
        np.testing.assert_array_equal(fp.token_scores(view, prompts=p), fp.token_scores(view.copy(), prompts=p))
    for dtype in ("float16", "bfloat16", "float64"):
        t = torch.from_numpy(large).to(getattr(torch, dtype))
        got = fp.token_scores(t[:, 1:], prompts=torch.from_numpy(q))
        assert got.dtype == torch.float32
        np.testing.assert_allclose(got, fp.token_scores(t[:, 1:].float().numpy(), prompts=q), atol=1e-6)


def test_threads_change_no_bit(rng):
    x, q = make(rng, (2, 1000, 50, 3, 1))
    expected = fp.token_scores(x, prompts=q)
    try:
        for threads in (1, 2, 5):
            fp.set_num_threads(threads)
            np.testing.assert_array_equal(fp.token_scores(x, prompts=q), expected)
    finally:
        fp.set_num_threads(None)


def to_box(x, y, box):
    """The nearest point of the box is the clamped one."""
    return math.dist((x, y), (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])))


@pytest.mark.parametrize("way", ["numpy", "torch"])
@pytest.mark.parametrize("patch", [16, (8, 4), 2.5], ids=str)
def test_place(rng, way, patch):
    height, width = 3, 5
    high, wide = patch if isinstance(patch, tuple) else (patch, patch)
    points = rng.uniform(-20, 100, (2, 4, 2)).astype(np.float32)
    points[0, 1], points[1] = np.nan, np.nan
    boxes = np.array([[[10, 5, 30, 20], [np.nan, 0, 1, 1]], [[-9, -9, 200, 200], [0, 0, 1, 1]]], np.float32)
    wrap = torch.from_numpy if way == "torch" else lambda x: x
    x, options = wrap(np.zeros((2, 15, 4), np.float32)), {"grid": (height, width), "patch": patch}
    clicked = fp.token_scores(x, points=wrap(points), **options)
    boxed = fp.token_scores(x, boxes=wrap(boxes), boxes_weight=-2, **options)
    for n, (row, column) in enumerate(itertools.product(range(height), range(width))):
        c = (column + 0.5) * wide, (row + 0.5) * high
        want = -min(math.dist(c, p) for p in points[0] if not np.isnan(p).any())
        assert clicked[0, n] == pytest.approx(want, rel=1e-6)
        assert clicked[1, n] == 0  # no click
        assert boxed[0, n] == pytest.approx(2 * to_box(*c, boxes[0, 0]), rel=1e-6, abs=1e-6)
        assert boxed[1, n] == 0  # inside


@pytest.mark.parametrize("way", ["numpy", "torch"])
def test_mask_attention_and_sum(rng, way):
    wrap = torch.from_numpy if way == "torch" else lambda x: x
    x, q = (wrap(a) for a in make(rng, (2, 12, 6, 2, 1)))
    pixels, coarse = rng.random((1, 12, 8)) > 0.5, rng.random((2, 3, 4)).astype(np.float32)
    options = {"grid": (3, 4), "patch": (4, 2)}
    got = fp.token_scores(x, mask=wrap(pixels), **options)
    want = [pixels[0, 4 * r : 4 * r + 4, 2 * c : 2 * c + 2].mean() for r in range(3) for c in range(4)]
    np.testing.assert_allclose(got, [want] * 2, rtol=1e-6)
    np.testing.assert_array_equal(fp.token_scores(x, mask=wrap(coarse), **options), coarse.reshape(2, 12))
    row, points, box = rng.random((2, 12)).astype(np.float32), np.array([[[3.0, 4.0]]]), np.array([[[1.0, 1, 5, 6]]])
    terms = {"prompts": q, "attention": wrap(row), "points": wrap(points), "boxes": wrap(box), "mask": wrap(coarse)}
    weights = dict(zip(terms, (1.0, 0.5, 0.01, -2.0, 3.0), strict=True))
    total = fp.token_scores(x, **terms, **{f"{k}_weight": w for k, w in weights.items()}, **options)
    one_by_one = sum(w * np.asarray(fp.token_scores(x, **{k: terms[k]}, **options)) for k, w in weights.items())
    assert total.shape == (2, 12)
    np.testing.assert_allclose(total, one_by_one, rtol=1e-5, atol=1e-5)


def test_gradient():
    g = torch.Generator().manual_seed(0)
    shapes = {"tokens": (2, 6, 5), "prompts": (1, 3, 5), "attention": (2, 6), "points": (2, 2, 2), "mask": (1, 2, 3)}
    given = {k: torch.randn(*s, generator=g).requires_grad_() for k, s in shapes.items()}
    given["boxes"] = torch.tensor([[[1.0, 2, 7, 9]]], requires_grad=True)
    options = {"grid": (2, 3), "patch": 4}
    weight = torch.randn(2, 6, generator=g)
    found = torch.autograd.grad((fp.token_scores(**given, **options) * weight).sum(), list(given.values()))
    x, q = (torch.nn.functional.normalize(given[k].double(), dim=-1) for k in ("tokens", "prompts"))
    want = torch.autograd.grad(((x @ q.transpose(1, 2)).amax(-1) * weight).sum(), [given["tokens"], given["prompts"]])
    torch.testing.assert_close(found[:2], want, rtol=1e-4, atol=1e-6)
    for (name, leaf), grad in zip(given.items(), found, strict=True):  # along one direction, by differences
        step, h = torch.randn(leaf.shape, generator=g), 1e-2
        with torch.no_grad():
            moved = (given | {name: leaf + s * step} for s in (h, -h))
            sides = [float((fp.token_scores(**m, **options) * weight).sum()) for m in moved]
        assert float((grad * step).sum()) == pytest.approx((sides[0] - sides[1]) / (2 * h), rel=5e-2, abs=2e-3)
    on_centre = torch.tensor([[[2.0, 2.0]]], requires_grad=True)
    fp.token_scores(given["tokens"], points=on_centre, **options).sum().backward()
    assert on_centre.grad.isfinite().all()


def test_opcheck():
    x, q = torch.randn(2, 7, 9, requires_grad=True), torch.randn(1, 3, 9, requires_grad=True)
    torch.library.opcheck(torch.ops.fastprompt.cosine_scores.default, (x, q))


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_no_place_at_all_gives_nothing(rng, kind):
    tokens, mask = kind(rng.standard_normal((2, 6, 4), np.float32)), kind(rng.random((2, 2, 3), np.float32))
    for batch in (1, 2):
        for name, last in (("points", 2), ("boxes", 4)):
            none = {name: kind(np.zeros((batch, 0, last)))}
            found = fp.token_scores(tokens, **none, grid=(2, 3))
            assert tuple(found.shape) == (2, 6)
            assert (found == 0).all()
            both, alone = (fp.token_scores(tokens, mask=mask, grid=(2, 3), **given) for given in (none, {}))
            assert (both == alone).all()


X, PLACE = np.zeros((2, 6, 4), np.float32), {"grid": (2, 3)}
WRONG = {
    "nothing": ({}, ValueError, "needs at least one of prompts, attention, points, boxes, mask"),
    "axes": ({"tokens": X[0], "attention": X[0]}, ValueError, r"tokens must be \(B, N, C\), got shape \(6, 4\)"),
    "prompts": ({"prompts": X[..., :3]}, ValueError, r"prompts must be \(B or 1, P, 4\) with B = 2, got .*\(2, 6, 3\)"),
    "prompts_axes": ({"prompts": X[0]}, ValueError, r"prompts must be \(B or 1, P, 4\)"),
    "prompts_batch": ({"prompts": np.zeros((3, 1, 4))}, ValueError, "prompts must be .* with B = 2"),
    "prompts_kind": ({"prompts": torch.zeros(1, 1, 4)}, TypeError, "both be NumPy arrays or both torch tensors"),
    "prompts_text": ({"prompts": "cat"}, TypeError, "prompts must hold real numbers"),
    "attention": ({"attention": np.zeros((2, 5))}, ValueError, r"attention must be \(B or 1, 6\)"),
    "points": ({"points": np.zeros((1, 2, 3))} | PLACE, ValueError, r"points must be \(B or 1, P, 2\)"),
    "boxes": ({"boxes": np.zeros((1, 4))} | PLACE, ValueError, r"boxes must be \(B or 1, P, 4\)"),
    "mask_axes": ({"mask": np.zeros((2, 3))} | PLACE, ValueError, r"mask must be \(B or 1, h, w\)"),
    "mask_size": ({"mask": np.zeros((1, 3, 3))} | PLACE, ValueError, "mask must have 2 x 3 tokens or 32 x 48 pixels"),
    "no_grid": ({"points": np.zeros((1, 1, 2))}, ValueError, "grid must be two positive integers .* got None"),
    "grid": ({"points": np.zeros((1, 1, 2)), "grid": (2, 2)}, ValueError, "grid must hold the 6 tokens, got 2 x 2"),
    "patch": ({"points": np.zeros((1, 1, 2)), "patch": 0} | PLACE, ValueError, "patch must be one or two positive"),
    "weight": (
        {"attention": np.zeros((2, 6)), "attention_weight": "1x"},
        TypeError,
        "attention_weight must be a number",
    ),
    "weight_nan": (
        {"attention": np.zeros((2, 6)), "attention_weight": math.nan},
        ValueError,
        "attention_weight must be",
    ),
}


@pytest.mark.parametrize("change", WRONG)
def test_wrong_calls(change):
    changes, error, match = WRONG[change]
    with pytest.raises(error, match=match):
        fp.token_scores(**({"tokens": X} | changes))
