"""prior_mask: PFENet's block, rebuilt from its formula in float64, with the matrix of all similarities."""

import numpy as np
import pytest

import fastprompt as fp
from fastprompt import _C

torch = pytest.importorskip("torch")
F = torch.nn.functional

# batch, shots, channels, (h, w) of the query, of the support, (H, W) of the mask
SHAPES = {
    "pfenet": (1, 1, 520, (15, 15), (15, 15), (113, 113)),
    "shots": (2, 3, 35, (9, 13), (9, 13), (65, 97)),
    "two sizes": (2, 1, 300, (12, 11), (7, 18), (50, 40)),
    "one pixel": (1, 2, 5, (1, 1), (2, 3), (2, 3)),
}


def make(rng, shape):
    batch, shots, channels, size, other, large = shape
    query = np.maximum(rng.standard_normal((batch, channels, *size), np.float32), 0)
    support = np.maximum(rng.standard_normal((batch, shots, channels, *other), np.float32), 0)
    mask = np.zeros((batch, shots, *large), np.float32)
    mask[..., large[0] // 4 : large[0] // 2 + 1, large[1] // 3 :] = 1
    return query, support, mask


def formula(query, support, mask, size=None, eps=1e-7):
    query, support, mask = (torch.from_numpy(np.asarray(x)).double() for x in (query, support, mask))
    found = []
    for k in range(support.shape[1]):
        small = F.interpolate(mask[:, k : k + 1], support.shape[-2:], mode="bilinear", align_corners=True)
        s, q = (support[:, k] * small).flatten(2).transpose(1, 2), query.flatten(2)
        cosine = s @ q / (s.norm(dim=2, keepdim=True) @ q.norm(dim=1, keepdim=True) + eps)
        most = cosine.amax(1)
        low, high = most.amin(1, keepdim=True), most.amax(1, keepdim=True)
        level = ((most - low) / (high - low + 1e-7)).view(len(query), 1, *query.shape[-2:])
        found.append(F.interpolate(level, size or query.shape[-2:], mode="bilinear", align_corners=True))
    return torch.cat(found, 1).mean(1, keepdim=True).numpy()


@pytest.fixture(params=["numpy", "torch", "reference", "torch reference"])
def prior(request, isa):
    def run(*arrays, **options):
        with fp.backend("reference" if "reference" in request.param else "auto"):
            if "torch" not in request.param:
                return fp.prior_mask(*arrays, **options)
            return fp.prior_mask(*(torch.from_numpy(np.asarray(x)) for x in arrays), **options).numpy()

    return run


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_prior_mask(rng, prior, shape):
    arrays = make(rng, shape)
    for size in (None, (17, 5)):
        got = prior(*arrays, size=size)
        assert got.dtype == np.float32
        assert got.shape == (shape[0], 1, *(size or shape[3]))
        np.testing.assert_allclose(got, formula(*arrays, size=size), rtol=0, atol=5e-5)
    single = prior(arrays[0], arrays[1][:, 0], arrays[2][:, 0])
    np.testing.assert_array_equal(single, prior(arrays[0], arrays[1][:, :1], arrays[2][:, :1]))
    np.testing.assert_array_equal(prior(arrays[0][0], arrays[1][0], arrays[2][0]), prior(*arrays)[0])
    np.testing.assert_array_equal(prior(arrays[0][0], arrays[1][0, 0], arrays[2][0, 0]), single[0])


def test_a_masked_pixel_has_the_similarity_0(rng, prior):
    """So the maximum is at least 0 as soon as one is masked out, and not before."""
    query, support, mask = make(rng, (1, 1, 40, (6, 6), (6, 6), (6, 6)))
    query, support = query - 3, support + 1  # all cosines are negative
    for whole in (True, False):
        mask[:] = 1
        mask[..., 0, 0] = whole
        want = formula(query, support, mask)
        np.testing.assert_allclose(prior(query, support, mask), want, rtol=0, atol=2e-5)
        assert (want.max() > 0.9) == whole  # else constant: 0


def test_soft_masks_and_eps(rng, prior):
    """A soft value leaves the cosine but for eps."""
    query, support, mask = make(rng, (1, 1, 24, (5, 7), (5, 7), (5, 7)))
    mask *= rng.random(mask.shape).astype(np.float32)
    for eps in (0.0, 1e-7, 0.5, 30.0):
        if eps == 0:
            mask[mask == 0] = 0.5
        np.testing.assert_allclose(
            prior(query, support, mask, eps=eps), formula(query, support, mask, eps=eps), atol=3e-5
        )


def test_nothing_to_compare(rng, prior):
    query, support, mask = make(rng, SHAPES["shots"])
    mask[0, 1] = 0
    mask[1] = 0
    got = prior(query, support, mask)
    np.testing.assert_allclose(got, formula(query, support, mask), rtol=0, atol=5e-5)
    assert (got[1] == 0).all()
    same = np.ones_like(query)
    assert (prior(same, np.ones_like(support), mask + 1) == 0).all()  # constant similarity


def test_not_finite(rng, prior):
    query, support, mask = make(rng, (1, 1, 24, (5, 7), (5, 7), (5, 7)))
    hidden = support.copy()
    hidden[0, 0, 3, 4, 6] = np.nan  # outside of the mask: not read
    assert mask[0, 0, 4, 6] == 0
    np.testing.assert_array_equal(prior(query, hidden, mask), prior(query, support, mask))
    for value in (np.nan, np.inf):
        bad = support.copy()
        bad[0, 0, 3, 2, 4] = value
        assert np.isnan(prior(query, bad, mask)).all()
        bad = query.copy()
        bad[0, 2, 1, 1] = value
        assert np.isnan(prior(bad, support, mask)).all()


@pytest.mark.parametrize("engine", ["avx512_bf16", "plain"])
def test_precision(rng, engine):
    if _C.best_isa() != "avx512" or (engine != "plain" and _C.bf16() not in ("avx512_bf16", "amx")):
        pytest.skip("this machine has no AVX-512, or no bfloat16 products")
    arrays = make(rng, SHAPES["pfenet"])
    _C.set_bf16(engine)
    torch.set_float32_matmul_precision("medium")
    try:
        got = fp.prior_mask(*arrays)
    finally:
        torch.set_float32_matmul_precision("highest")
        _C.set_bf16("best")
    error = np.abs(got - formula(*arrays)).max()
    assert 1e-5 < error < 2e-2


def test_views_dtypes_and_no_gradient(rng, isa):
    query, support, mask = (torch.from_numpy(x) for x in make(rng, SHAPES["shots"]))
    want = fp.prior_mask(query, support, mask)
    large = torch.full((2, 40, 11, 30), torch.nan)
    large[:, 3:38, 1:10, 4:30:2] = query
    assert torch.equal(fp.prior_mask(large[:, 3:38, 1:10, 4:30:2], support, mask), want)
    assert torch.equal(fp.prior_mask(query, support, mask.bool()), want)
    half = fp.prior_mask(query.bfloat16(), support.bfloat16(), mask)
    assert torch.equal(half, fp.prior_mask(query.bfloat16().float(), support.bfloat16().float(), mask))
    assert not fp.prior_mask(query.requires_grad_(), support, mask).requires_grad
    assert fp.prior_mask(query[:0], support[:0], mask[:0]).shape == (0, 1, 9, 13)


def test_threads_change_no_bit(rng):
    arrays, found = make(rng, (2, 2, 70, (20, 21), (20, 21), (40, 41))), []
    try:
        for threads in (1, 2, 5):
            fp.set_num_threads(threads)
            found.append(fp.prior_mask(*arrays))
    finally:
        fp.set_num_threads(None)
    np.testing.assert_array_equal(found[1:], found[:1] * 2)


Q, S, M = np.zeros((2, 4, 3, 5)), np.zeros((2, 3, 4, 3, 5)), np.zeros((2, 3, 9, 9))
WRONG = {
    "query": ({"query": Q[0, 0]}, r"query must be \(\[B,\] C, h, w\), got shape \(3, 5\)"),
    "support": ({"support": S[:, :, :3]}, r"support must be \(2, \[K,\] 4, h, w\), got shape \(2, 3, 3, 3, 5\)"),
    "batch": ({"support": S[:1]}, r"support must be \(2, \[K,\] 4, h, w\)"),
    "no_shots": ({"support": S[:, :0], "mask": M[:, :0]}, "support must be"),
    "mask": ({"mask": M[:, 0]}, r"mask must be \(2, 3, H, W\), got shape \(2, 9, 9\)"),
    "size": ({"size": (0, 3)}, "size must be two positive integers"),
    "eps": ({"eps": -1}, "eps must be between 0 and inf"),
}


@pytest.mark.parametrize("change", WRONG)
def test_wrong_calls(change):
    changes, match = WRONG[change]
    with pytest.raises(ValueError, match=match):
        fp.prior_mask(**({"query": Q, "support": S, "mask": M} | changes))
