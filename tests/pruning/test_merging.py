"""merge_tokens: matching and means against the reference and torch's own operators; conservation; unmerge."""

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")

# batch, tokens, channels, width of the metric, r, protected
SHAPES = {
    "regular": (1, 512, 96, 64, 200, 0),
    "class token": (2, 197, 48, 64, 98, 1),
    "ragged": (3, 37, 19, 7, 5, 2),
    "all": (2, 40, 8, 40, 20, 0),
    "odd": (2, 41, 8, 33, 20, 0),
    "three protected": (1, 20, 4, 16, 8, 3),
    "none": (2, 9, 5, 5, 0, 0),
    "pair": (1, 2, 3, 3, 1, 0),
    "one": (1, 1, 3, 3, 0, 0),
    "no token": (2, 0, 3, 3, 0, 0),
}


def make(rng, shape):
    batch, tokens, channels, width, r, protected = shape
    x, metric = (rng.standard_normal((batch, tokens, n)).astype(np.float32) for n in (channels, width))
    return x, metric, {"r": r, "protected": protected, "size": rng.integers(1, 5, (batch, tokens)).astype(np.float32)}


def oracle(x, metric, r, protected, size):
    """One image in torch: normalize, matmul, max, a stable sort, index_add."""
    count = len(x)
    unit = torch.nn.functional.normalize(torch.from_numpy(metric).double(), dim=-1)
    target = torch.arange(count)
    even, odd = (target[(target % 2 == k) & (target >= protected)] for k in (0, 1))
    if r:
        best, partner = (unit[even] @ unit[odd].T).max(1)
        leaving = torch.sort(best, descending=True, stable=True).indices[:r]
        target[even[leaving]] = odd[partner[leaving]]
    x, size = torch.from_numpy(x).double(), torch.from_numpy(size).double()
    weighted = torch.zeros_like(x).index_add_(0, target, x * size[:, None])
    total = torch.zeros_like(size).index_add_(0, target, size)
    stays = target == torch.arange(count)
    place = stays.cumsum(0) - 1
    return (weighted / total[:, None])[stays], total[stays], place[target]


@pytest.fixture(params=["numpy", "torch", "reference", "torch reference"])
def merge(request):
    def run(x, metric, **options):
        if "torch" in request.param:
            x, metric = (a if a is None else torch.from_numpy(a) for a in (x, metric))
            options = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        with fp.backend("reference" if "reference" in request.param else "auto"):
            return fp.merge_tokens(x, metric, **options)

    run.exact = request.param != "torch reference"  # (size x) / size may round
    return run


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_torch(rng, isa, merge, shape):
    x, metric, options = make(rng, shape)
    y, sizes, unmerge = merge(x, metric, **options)
    assert tuple(y.shape) == (shape[0], shape[1] - shape[4], shape[2])
    for b in range(shape[0]):
        want, total, target = oracle(x[b], metric[b], shape[4], shape[5], options["size"][b])
        np.testing.assert_array_equal(unmerge.target[b], target)
        np.testing.assert_allclose(y[b], want, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(sizes[b], total, rtol=1e-6)
        np.testing.assert_array_equal(unmerge(y)[b], np.asarray(y)[b][target.numpy()])
    if merge.exact:
        np.testing.assert_array_equal(np.asarray(y)[:, : shape[5]], x[:, : shape[5]])
    weighted = (np.asarray(sizes, np.float64)[..., None] * np.asarray(y)).sum(1)
    conserved = (options["size"][..., None].astype(np.float64) * x).sum(1)
    np.testing.assert_allclose(weighted, conserved, atol=1e-3 if shape[1] > 100 else 1e-4)


def test_repeated_merging_gives_the_mean_of_all(rng, merge):
    """Sizes carried on: 64 tokens become one, the mean of them all."""
    x = rng.standard_normal((2, 64, 5)).astype(np.float32)
    y, sizes = x, None
    for _ in range(6):
        sizes = None if sizes is None else np.asarray(sizes)
        y, sizes, _ = merge(np.asarray(y), None, r=y.shape[1] // 2, size=sizes)
    np.testing.assert_allclose(y[:, 0], x.mean(1), atol=1e-6)
    assert np.asarray(sizes).tolist() == [[64], [64]]


@pytest.mark.parametrize("kind", ["equal", "zero", "nan"])
def test_ties_go_to_the_lowest(merge, isa, kind):
    metric = np.full((1, 300, 8), {"equal": 0.5, "zero": 0, "nan": np.nan}[kind], np.float32)
    x = np.arange(300, dtype=np.float32).reshape(1, 300, 1)
    y, sizes, unmerge = merge(x, metric, r=3)
    target = np.concatenate([[0, 0, 0, 1, 0], np.arange(2, 297)])  # 0, 2 and 4 into 1
    np.testing.assert_array_equal(unmerge.target[0], target)
    np.testing.assert_array_equal(sizes[0], [4, *[1] * 296])
    assert float(y[0, 0, 0]) == (0 + 1 + 2 + 4) / 4


def test_a_nan_matches_nothing(merge, isa):
    metric = np.random.default_rng(0).standard_normal((1, 200, 16)).astype(np.float32)
    metric[0, [8, 9, 151]] = np.nan
    x = np.random.default_rng(1).standard_normal((1, 200, 3)).astype(np.float32)
    y, _, unmerge = merge(x, metric, r=99)
    target = np.asarray(unmerge.target[0])
    for n in (8, 9, 151):
        assert (target == target[n]).sum() == 1
        np.testing.assert_array_equal(np.asarray(y)[0, target[n]], x[0, n])


def test_tomesd(rng):
    """Another's implementation. It merges odd tokens into even ones: with the order turned that is ours."""
    merging = pytest.importorskip("tomesd").merge
    x, metric = (torch.from_numpy(rng.standard_normal((2, 96, n)).astype(np.float32)) for n in (12, 16))
    merge, _ = merging.bipartite_soft_matching_random2d(metric.flip(1), 96, 1, 2, 1, 30, no_rand=True)
    theirs = merge(x.flip(1))
    ours, _, _ = fp.merge_tokens(x, metric, r=30)
    for b in range(2):
        np.testing.assert_allclose(
            *(np.asarray(y[b])[np.lexsort(np.asarray(y[b]).T)] for y in (ours, theirs)), rtol=1e-5, atol=1e-6
        )


def test_threads_and_layout_change_no_bit(rng):
    x, metric, options = make(rng, (2, 900, 300, 32, 300, 1))
    expected = fp.merge_tokens(x, metric, **options)
    try:
        for threads in (1, 2, 5):
            fp.set_num_threads(threads)
            got = fp.merge_tokens(np.asfortranarray(x), np.asfortranarray(metric), **options)
            np.testing.assert_array_equal(got.tokens, expected.tokens)
            np.testing.assert_array_equal(got.target, expected.target)
    finally:
        fp.set_num_threads(None)


def test_dtypes(rng):
    x, metric, options = make(rng, (2, 30, 6, 8, 10, 0))
    expected = fp.merge_tokens(x, metric, **options).tokens
    options["size"] = torch.from_numpy(options["size"])
    for dtype, atol in ((torch.float16, 1e-2), (torch.bfloat16, 1e-1), (torch.float64, 1e-6)):
        got = fp.merge_tokens(torch.from_numpy(x).to(dtype), torch.from_numpy(metric), **options)
        assert (got.tokens.dtype, got.sizes.dtype) == (dtype, torch.float32)
        np.testing.assert_allclose(got.tokens.float(), expected, atol=atol)


def test_gradient(rng):
    x, metric, options = make(rng, (2, 13, 4, 5, 5, 1))
    x, metric = torch.from_numpy(x).requires_grad_(), torch.from_numpy(metric)
    size = torch.from_numpy(options.pop("size")).requires_grad_()
    y, sizes, unmerge = fp.merge_tokens(x, metric, size=size, **options)
    w = [torch.randn(s, generator=torch.Generator().manual_seed(0)) for s in (x.shape, sizes.shape)]
    found = torch.autograd.grad((unmerge(y.sin()) * w[0]).sum() + (sizes.log() * w[1]).sum(), (x, size))

    def value(x, size):
        matrix = torch.nn.functional.one_hot(unmerge.target, y.shape[1]).double().transpose(1, 2)
        total = (matrix @ size[..., None]).squeeze(-1)
        means = matrix @ (x * size[..., None]) / total[..., None]
        return (matrix.transpose(1, 2) @ means.sin() * w[0]).sum() + (total.log() * w[1]).sum()

    pair = [a.detach().double().requires_grad_() for a in (x, size)]
    for got, want in zip(found, torch.autograd.grad(value(*pair), pair), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)


def test_unmerge_gradient_in_double():
    target = torch.tensor([[0, 1, 0, 2, 1]])
    y = torch.randn(1, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: torch.ops.fastprompt.gather_rows(y, target).sin(), (y,))


def model(x, metric):
    y, sizes, unmerge = fp.merge_tokens(x, metric, r=6, protected=1)
    return unmerge(y * 2), sizes


def test_compile_export_and_opcheck(rng):
    x, metric, _ = (torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in make(rng, (2, 20, 4, 5, 0, 0)))
    expected = model(x, metric)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")

    class Module(torch.nn.Module):
        def forward(self, x, metric):
            return model(x, metric)

    for call in (compiled, torch.export.export(Module(), (x, metric)).module()):
        for got, want in zip(call(x, metric), expected, strict=True):
            assert torch.equal(got, want)
    x.requires_grad_()
    grads = [torch.autograd.grad(f(x, metric)[0].sum(), x)[0] for f in (model, compiled)]
    torch.testing.assert_close(*grads)
    kept, target = torch.ops.fastprompt.match_tokens(metric, 6, 1)
    size = torch.ones(2, 20, requires_grad=True)
    torch.library.opcheck(torch.ops.fastprompt.match_tokens.default, (metric, 6, 1))
    torch.library.opcheck(torch.ops.fastprompt.merge_rows.default, (x, size, kept, target))


def test_an_index_is_not_trusted():
    x, size = torch.ones(1, 4, 3), torch.ones(1, 4)
    kept, target = torch.tensor([[0, 2**62, -5]]), torch.tensor([[0, -1, 3, 0]])
    with pytest.raises(ValueError, match="kept must be rows of the tokens"):
        torch.ops.fastprompt.merge_rows(x, size, kept, target.clip(0, 2))
    with pytest.raises(ValueError, match="target must be rows of the merged tokens"):
        torch.ops.fastprompt.merge_rows(x, size, kept.clip(0, 3), target)
    with pytest.raises(ValueError, match="r must be at most"):
        torch.ops.fastprompt.match_tokens(x, 3, 0)


X = np.zeros((2, 7, 4), np.float32)
WRONG = {
    "axes": ({"tokens": X[0]}, ValueError, r"tokens must be \(B, N, C\), got shape \(7, 4\)"),
    "metric": ({"metric": X[:, :6]}, ValueError, r"metric must be \(2, 7, 'D'\), got shape \(2, 6, 4\)"),
    "metric_axes": ({"metric": X[0]}, ValueError, r"metric must be \(B, N, C\)"),
    "metric_kind": ({"metric": torch.zeros(2, 7, 4)}, TypeError, "both be NumPy arrays or both torch tensors"),
    "r": ({"r": 4}, ValueError, r"r must be at most \(N - protected\) // 2 = 3, got 4"),
    "r_protected": ({"r": 3, "protected": 2}, ValueError, r"r must be at most \(N - protected\) // 2 = 2, got 3"),
    "r_negative": ({"r": -1}, ValueError, "r must be an integer from 0 to the number of tokens 7, got -1"),
    "r_float": ({"r": 1.0}, ValueError, "r must be an integer"),
    "protected": ({"protected": 8}, ValueError, "protected must be an integer from 0 to the number of tokens 7, got 8"),
    "size": ({"size": np.ones((2, 6))}, ValueError, r"size must be \(2, 7\), got shape \(2, 6\)"),
    "size_zero": ({"size": np.zeros((2, 7))}, ValueError, "size must be positive and finite, got 0"),
    "size_negative": ({"size": -np.ones((2, 7))}, ValueError, "size must be positive and finite, got -1"),
    "size_nan": ({"size": np.full((2, 7), np.nan)}, ValueError, "size must be positive and finite, got nan"),
    "size_inf": ({"size": np.full((2, 7), np.inf)}, ValueError, "size must be positive and finite, got inf"),
    "size_tensor": (
        {"tokens": torch.ones(2, 7, 4), "size": torch.arange(14.0).reshape(2, 7)},
        ValueError,
        "size must be positive and finite, got 0",
    ),
    "size_kind": ({"size": torch.ones(2, 7)}, TypeError, "both be NumPy arrays or both torch tensors"),
}


@pytest.mark.parametrize("change", WRONG)
def test_wrong_calls(change):
    changes, error, match = WRONG[change]
    with pytest.raises(error, match=match):
        fp.merge_tokens(**({"tokens": X, "r": 1} | changes))


def test_wrong_unmerge():
    _, _, unmerge = fp.merge_tokens(X, r=2)
    with pytest.raises(ValueError, match=r"y must be \(2, 5, C\), got shape \(2, 7, 4\)"):
        unmerge(X)
