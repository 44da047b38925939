"""Pooling and similarity of tensors on a GPU: no look at them from the host, and what the CPU's kernels give."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from gpu_pool_calls import DIFFERENTIABLE, HALVES, POOLING, PRUNING, TOLERANCE  # noqa: E402
from torch._subclasses import FakeTensorMode  # noqa: E402

import fastprompt as fp  # noqa: E402

HAS_GPU = torch.cuda.is_available()
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="there is no CUDA device")]
CALLS = POOLING | PRUNING


@pytest.mark.skipif(
    not torch.backends.cuda.is_built(), reason="this torch knows no CUDA device, not even without numbers"
)
@pytest.mark.parametrize("name", CALLS)
def test_the_host_never_waits(name):
    """Tensors on "cuda" without numbers: a device that is not theirs is an error, and so is a look at a number."""
    call, arrays = CALLS[name]
    with FakeTensorMode():
        out = call(*(torch.empty(x.shape, dtype=x.dtype, device="cuda") for x in arrays))
        assert out.is_cuda


def on_gpu(arrays, dtype=torch.float32):
    return [x.cuda().to(dtype) if x.is_floating_point() else x.cuda() for x in arrays]


def close(got, want, tolerance):
    assert got.shape == want.shape
    top = max(1.0, float(want[want.isfinite()].abs().max()) if want.isfinite().any() else 0.0)
    torch.testing.assert_close(got.cpu().double(), want.double(), rtol=0, atol=tolerance * top, equal_nan=True)


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_gpu) for name in CALLS])
@pytest.mark.parametrize("dtype", HALVES)
def test_as_on_the_cpu(name, dtype):
    """float16 and bfloat16: against the CPU's kernels, which compute with the rounded numbers in float32."""
    call, arrays = CALLS[name]
    arrays = [x.to(HALVES[dtype]) if x.is_floating_point() else x for x in arrays]
    close(call(*on_gpu(arrays, HALVES[dtype])), call(*arrays), TOLERANCE[dtype])


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_gpu) for name in CALLS])
def test_in_a_graph(name):
    call, arrays = CALLS[name][0], on_gpu(CALLS[name][1])
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        want = call(*arrays)
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = call(*arrays)
    graph.replay()
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_gpu) for name in DIFFERENTIABLE])
def test_gradients(name):
    call, arrays = CALLS[name]

    def gradients(arrays):
        leaves = [x.detach().requires_grad_() if x.is_floating_point() else x for x in arrays]
        out = call(*leaves)
        wanted = [x for x in leaves if x.requires_grad]
        weight = torch.linspace(-1, 1, out.numel()).view(out.shape).to(out.device)
        found = torch.autograd.grad((out.nan_to_num() * weight).sum(), wanted, allow_unused=True)
        return [g for g in found if g is not None]

    for got, want in zip(gradients(on_gpu(arrays)), gradients(arrays), strict=True):
        close(got, want, 1e-4)


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_gpu) for name in CALLS])
def test_reference_on_a_gpu(name):
    call, arrays = CALLS[name]
    with fp.backend("reference"):
        close(call(*on_gpu(arrays)), call(*arrays), 5e-5)


@pytest.mark.parametrize("reduce", [pytest.param("argmax", marks=needs_gpu)])
def test_argmax(reduce):
    x, text = POOLING["softmax"][1]
    want = fp.text_similarity_map(x, text, reduce=reduce)
    got = fp.text_similarity_map(x.cuda(), text.cuda(), reduce=reduce).cpu()
    assert (got == want).double().mean() > 0.999, "but where two are as similar"


# The sizes that people have: batch, channels, side of the features and of the mask.
LARGE = [(1, 256, 60, 473), (1, 512, 60, 473), (2, 256, 64, 1024)]


@pytest.mark.parametrize("shape", [pytest.param(shape, marks=needs_gpu) for shape in LARGE])
def test_real_sizes(shape):
    batch, channels, side, large = shape
    features = torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(batch, 2, large, large, dtype=torch.bool)
    mask[:, 0, large // 3 : large // 2, large // 5 :] = True
    for options in ({"background": True}, {"preset": "pfenet"}, {"preset": "panet"}):
        got, want = (fp.masked_average_pool(*pair, **options) for pair in (on_gpu((features, mask)), (features, mask)))
        for a, b in zip(got, want, strict=True):
            close(a, b, 1e-5)
    maps = fp.cosine_prototype_map(features.cuda(), features[0, :, 0, :3].T.cuda())
    close(maps, fp.cosine_prototype_map(features, features[0, :, 0, :3].T), 1e-5)
    again = features.roll(3, 2)
    close(fp.prior_mask(*on_gpu((features, again, mask[:, 0]))), fp.prior_mask(features, again, mask[:, 0]), 1e-4)
