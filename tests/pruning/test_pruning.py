"""prune_tokens: kernel against the reference and torch's topk, sort and gather; restore; gradients; wrong calls."""

import math

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")

# batch, tokens, channels
SHAPES = {"regular": (1, 1024, 384), "ragged": (3, 37, 19), "one": (1, 1, 1), "narrow": (2, 50, 1)}
KEEPS = {
    "half": {"keep": 0.5},
    "few": {"keep": 1e-9},
    "most": {"keep": 0.93},
    "all": {"keep": 1.0},
    "count": {"count": 1},
}
SCORES = {
    "random": lambda rng, shape: rng.standard_normal(shape),
    "equal": lambda rng, shape: np.zeros(shape),
    "ties": lambda rng, shape: rng.integers(-2, 3, shape),
    "zeros": lambda rng, shape: rng.choice([0.0, -0.0], shape),
    "special": lambda rng, shape: rng.choice([np.nan, np.inf, -np.inf, -1.0, -0.0, 0.0, 1e-45, 3e38], shape),
    "close": lambda rng, shape: 1 + rng.integers(0, 4, shape) * 2.0**-23,
}


def make(rng, shape, kind="random"):
    return rng.standard_normal(shape).astype(np.float32), SCORES[kind](rng, shape[:2]).astype(np.float32)


def oracle(tokens, scores, k):
    """A stable descending sort of torch's, its first k in ascending order, and gather."""
    order = torch.sort(scores.nan_to_num(-math.inf, math.inf, -math.inf), dim=1, descending=True, stable=True).indices
    index = order[:, :k].sort(1).values
    return index, tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2]))


def number_kept(options, tokens):
    return options.get("count") or max(1, math.ceil(options["keep"] * tokens))


@pytest.fixture(params=["numpy", "torch", "reference", "torch reference"])
def prune(request):
    """``prune_tokens`` of arrays by four ways; arrays come out."""

    name = "reference" if "reference" in request.param else "auto"

    def run(tokens, scores, **options):
        if "torch" in request.param:
            options = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
            tokens, scores = torch.from_numpy(tokens), torch.from_numpy(scores)
        with fp.backend(name):
            pruned = fp.prune_tokens(tokens, scores, **options)

        def restore(y, *rest):
            with fp.backend(name):
                if "torch" in request.param:
                    return pruned.restore(torch.as_tensor(y), *rest).numpy()
                return pruned.restore(np.asarray(y), *rest)

        return pruned, restore

    return run


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("options", KEEPS.values(), ids=KEEPS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_torch_bit_by_bit(rng, prune, shape, options, kind):
    tokens, scores = make(rng, shape, kind)
    pruned, restore = prune(tokens, scores, **options)
    k = number_kept(options, shape[1])
    index, kept = oracle(torch.from_numpy(tokens), torch.from_numpy(scores), k)
    np.testing.assert_array_equal(pruned.indices, index)
    np.testing.assert_array_equal(pruned.tokens, kept)
    assert pruned.mask is None
    np.testing.assert_array_equal(restore(pruned.tokens), tokens)
    full = restore(-np.asarray(pruned.tokens), 0)
    want = torch.zeros(shape).scatter(1, index[..., None].expand(-1, -1, shape[2]), -kept)
    np.testing.assert_array_equal(full, want)


def test_many_tokens_and_all_radix_digits(rng):
    """Scores of every size, so that each of the three digits decides somewhere."""
    bits = rng.integers(0, 2**32, (4, 5000), np.uint64).astype(np.uint32)
    scores = bits.view(np.float32)
    scores[1] = (bits[1] & 0x3FF | 0x3F800000).view(np.float32)
    scores[2] = (bits[2] & 0x1FFC00 | 0x3F800000).view(np.float32)
    tokens = rng.standard_normal((4, 5000, 2))
    for k in (1, 2, 1023, 2500, 4999):
        got = fp.prune_tokens(tokens, scores, count=k)
        index, _ = oracle(torch.from_numpy(tokens), torch.from_numpy(scores), k)
        np.testing.assert_array_equal(got.indices, index)


@pytest.mark.parametrize("tokens", [3, 7, 10, 100, 1024])
def test_number_of_tokens(tokens):
    """k = ceil(keep N) of the decimal number: 0.07 * 100 in binary is a little more than 7."""
    x = np.zeros((1, tokens, 1))
    for hundredths in range(0, 101, 7):
        want = max(1, -(-hundredths * tokens // 100))
        assert fp.prune_tokens(x, x[..., 0], keep=hundredths / 100).indices.shape[1] == want


def test_number_of_samples():
    """floor(stride_mix k) of the decimal number too: 0.29 * 100 in binary is a little less than 29."""
    scores = np.arange(1000.0)[None]
    index = fp.prune_tokens(scores[..., None], scores, count=100, stride_mix=0.29).indices[0]
    assert index[-71:].tolist() == list(range(929, 1000))  # 71 by score
    assert index[-72] < 928


def test_always_keep(rng, prune):
    tokens, scores = make(rng, (2, 40, 8))
    scores[:, 5] = np.inf
    always = np.zeros((2, 40), bool)
    always[0, [0, 39]], always[1, 7] = True, True
    scores[0, 0] = np.nan
    pruned, _ = prune(tokens, scores, count=4, always_keep=always)
    index = np.asarray(pruned.indices)
    forced = np.where(always, np.inf, np.nan_to_num(scores, nan=-np.inf, posinf=1e9))
    want, _ = oracle(torch.from_numpy(tokens), torch.from_numpy(forced), 4)
    np.testing.assert_array_equal(index, want)
    pruned, _ = prune(tokens, scores, count=2, always_keep=always[0])
    np.testing.assert_array_equal(pruned.indices, [[0, 39]] * 2)
    with pytest.raises(ValueError, match="always_keep must mark at most the tokens that are kept, got 2 in image 0"):
        prune(tokens, scores, count=1, always_keep=always)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_stride_mix(rng, prune, share):
    tokens, scores = make(rng, (2, 100, 3))
    pruned, _ = prune(tokens, scores, count=20, stride_mix=share)
    samples = int(share * 20)
    for b in range(2):
        top = np.argsort(-scores[b], kind="stable")[: 20 - samples]
        rest = np.setdiff1d(np.arange(100), top)
        even = rest[((np.arange(samples) + 0.5) * len(rest) / samples).astype(int)]
        np.testing.assert_array_equal(pruned.indices[b], np.sort(np.concatenate([top, even])))
    always = np.arange(100) < 18  # leaves room for two samples
    pruned, _ = prune(tokens, scores, count=20, stride_mix=share, always_keep=always)
    assert np.asarray(pruned.indices)[:, :18].tolist() == [list(range(18))] * 2
    everything, _ = prune(tokens, scores, keep=1.0, stride_mix=share)
    np.testing.assert_array_equal(everything.tokens, tokens)


@pytest.mark.parametrize("pad", [None, 3, 12, 60])
def test_threshold(rng, prune, pad):
    tokens, scores = make(rng, (3, 40, 5))
    scores[0], scores[1, 3], scores[2, :30] = np.minimum(scores[0], 0.4), np.nan, -9
    scores[0, 17] = 0.45
    pruned, restore = prune(tokens, scores, threshold=0.5, pad=pad)
    over = [np.flatnonzero(s > 0.5) for s in scores]
    over[0] = np.array([17])  # nothing is over it: the highest
    rows = max(map(len, over)) if pad is None else pad
    want = np.full((3, rows), -1)
    for b, n in enumerate(over):
        n = np.sort(n[np.argsort(-scores[b, n], kind="stable")[:rows]])
        want[b, : len(n)] = n
    np.testing.assert_array_equal(pruned.indices, want)
    np.testing.assert_array_equal(pruned.mask, want >= 0)
    np.testing.assert_array_equal(pruned.tokens, np.where(want[..., None] >= 0, tokens[np.arange(3)[:, None], want], 0))
    np.testing.assert_array_equal(restore(np.asarray(pruned.tokens)), tokens)
    noise = rng.standard_normal((3, rows, 5)).astype(np.float32)  # what an attention leaves in the padding
    expected = tokens.copy()
    for b in range(3):
        expected[b, want[b, want[b] >= 0]] = noise[b, want[b] >= 0]
    np.testing.assert_array_equal(restore(noise), expected)


def test_restore(rng, prune):
    tokens, scores = make(rng, (2, 9, 4))
    pruned, restore = prune(tokens, scores, count=5)
    y, base = rng.standard_normal((2, 5, 7)).astype(np.float32), rng.standard_normal((2, 9, 7)).astype(np.float32)
    torch_way = torch.is_tensor(pruned.tokens)
    expected = base.copy()
    for b in range(2):
        expected[b, pruned.indices[b]] = y[b]
    np.testing.assert_array_equal(restore(y, torch.from_numpy(base) if torch_way else base), expected)
    with pytest.raises(ValueError, match=r"base must be \(2, 9, 7\), got shape \(2, 9, 4\)"):
        restore(y)


def test_restore_in_place(rng):
    for wrap in (lambda x: x, torch.from_numpy):
        tokens, scores = (wrap(x) for x in make(rng, (2, 30, 8)))
        kept, restore = fp.prune_tokens(tokens, scores, keep=0.3)
        expected = restore(-kept)
        assert restore(-kept, inplace=True) is tokens
        np.testing.assert_array_equal(tokens, expected)
    turned = torch.zeros(2, 8, 30).transpose(1, 2)  # channels are not contiguous
    assert restore(kept, turned, inplace=True) is turned
    np.testing.assert_array_equal(turned, restore(kept, base=0))
    with pytest.raises(RuntimeError, match="single memory location"):
        restore(kept, torch.zeros(2, 1, 8).expand(2, 30, 8), inplace=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32", "bool"])
def test_dtypes_are_copied(rng, dtype):
    tokens, scores = make(rng, (2, 33, 7))
    t = torch.from_numpy(tokens).to(getattr(torch, dtype))
    pruned = fp.prune_tokens(t, torch.from_numpy(scores).to(torch.bfloat16), keep=0.4)
    index, kept = oracle(t, torch.from_numpy(scores).to(torch.bfloat16), 14)
    assert pruned.tokens.dtype == t.dtype
    assert torch.equal(pruned.indices, index)
    assert torch.equal(pruned.tokens, kept)
    assert torch.equal(pruned.restore(kept), t)
    if dtype != "bfloat16":
        np.testing.assert_array_equal(fp.prune_tokens(t.numpy(), scores, keep=0.4).tokens.dtype, t.numpy().dtype)


def test_views_and_sentinels(rng):
    """Views are read where they are, and nothing outside the result is written."""
    large = rng.standard_normal((4, 50, 24)).astype(np.float32)
    scores = rng.standard_normal((4, 50)).astype(np.float32)
    before = large.copy()
    views = {
        "without the first": (large[:, 1:], scores[:, 1:]),
        "every other": (large[::2, ::3], scores[::2, ::3]),
        "backwards": (large[:, ::-1], scores[:, ::-1]),
        "some channels": (large[..., 3:11], scores),
        "every other channel": (large[..., ::2], scores),
        "transposed": (large.transpose(1, 0, 2), scores.T),
        "channels first": (large.transpose(0, 2, 1), rng.standard_normal((4, 24)).astype(np.float32)),
    }
    for x, s in views.values():
        got = fp.prune_tokens(x, s, keep=0.5)
        want = fp.prune_tokens(x.copy(), s.copy(), keep=0.5)
        np.testing.assert_array_equal(got.tokens, want.tokens)
        np.testing.assert_array_equal(got.restore(got.tokens), x)
    same = torch.from_numpy(large[:1]).expand(3, -1, -1)
    got = fp.prune_tokens(same[:, 1:], torch.from_numpy(scores[:3, 1:]), keep=0.5)
    assert torch.equal(got.restore(got.tokens), same[:, 1:])
    np.testing.assert_array_equal(large, before)
    got = fp.prune_tokens(large[1:3, 5:9], scores[1:3, 5:9], count=2)
    got.restore(got.tokens + 1, large[1:3, 5:9], inplace=True)
    changed = (large != before).any(2)
    assert changed.sum() == 4
    assert changed[1:3, 5:9].sum() == 4


def test_threads_change_nothing(rng):
    tokens, scores = make(rng, (2, 2000, 200))
    expected = fp.prune_tokens(tokens, scores, keep=0.7)
    full = expected.restore(-expected.tokens)
    try:
        for threads in (1, 2, 5):
            fp.set_num_threads(threads)
            got = fp.prune_tokens(tokens, scores, keep=0.7)
            np.testing.assert_array_equal(got.tokens, expected.tokens)
            np.testing.assert_array_equal(got.restore(-got.tokens), full)
    finally:
        fp.set_num_threads(None)


def test_an_index_is_not_trusted(rng):
    """Operators that somebody calls without the checks: what is no row is zero, or passed over."""
    rows = torch.randn(1, 3, 4)
    index = torch.tensor([[2, -1, 3, -(2**62), 2**62, 0]])
    got = torch.ops.fastprompt.gather_rows(rows, index)
    np.testing.assert_array_equal(got[0, [0, 5]], rows[0, [2, 0]])
    assert (got[0, 1:5] == 0).all()
    back = torch.ops.fastprompt.scatter_rows(None, torch.ones(1, 6, 4), index, 3)
    assert back[0, :, 0].tolist() == [1, 0, 1]
    with fp.backend("reference"):
        assert torch.equal(torch.ops.fastprompt.gather_rows(rows, index), got)
        assert torch.equal(torch.ops.fastprompt.scatter_rows(None, torch.ones(1, 6, 4), index, 3), back)


def test_empty(prune):
    for shape in ((0, 5, 3), (2, 0, 3)):
        for options in ({"keep": 0.5}, {"threshold": 0.0}, {"threshold": 0.0, "pad": 4}):
            x = np.zeros(shape, np.float32)
            pruned, restore = prune(x, x[..., 0], **options)
            assert restore(np.asarray(pruned.tokens)).shape == shape
