"""On a GPU: the geodesic functions give what they give on the CPU, on any stream and in a CUDA graph."""

import math

import numpy as np
import pytest
from test_geodesic_cuda import OPTIONS, VOLUME_OPTIONS, cpu, pictures, same_bits

import fastprompt as fp
from fastprompt import _gpu

torch = pytest.importorskip("torch", reason="torch is not installed")
WHY = _gpu.reason("cuda")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(WHY is not None, reason=str(WHY))]


def on_gpu(method, image, start, *, barrier=None, limit=math.inf, lam=0.6, iterations=2, spacing=1, **options):
    image, start, barrier = (None if x is None else torch.from_numpy(x).cuda() for x in (image, start, barrier))
    out = fp.geodesic_distance(
        image, start, method=method, lam=lam, max_distance=limit, barriers=barrier, spacing=spacing,
        dims=image.ndim - 2, iterations=iterations if method == "raster" else None, **options,
    )  # fmt: skip
    assert out.is_cuda
    return out.cpu().numpy()


SIZES = [(1, 1, 1, 17, 35), (2, 3, 2, 333, 517), (1, 3, 1, 1024, 1024), (1, 1, 1, 23, 70, 41), (2, 2, 2, 9, 40, 33)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("method", ["raster", "exact"])
def test_bits_of_the_cpu(rng, method, size):
    image, start = pictures(rng, *size)
    for options in (OPTIONS if len(size) == 5 else VOLUME_OPTIONS).values():
        if options.get("barrier") is not None:
            options = options | {"barrier": (rng.random((size[0], *size[3:])) < 0.2).astype(np.uint8)}
        expected = cpu(method, image, start, **options)
        for _ in range(3):
            same_bits(on_gpu(method, image, start, **options), expected)


@pytest.mark.parametrize("method", ["raster", "exact"])
def test_more_tiles_than_blocks(rng, method):
    image, start = pictures(rng, 1, 1, 1, 12, 400, 400)
    same_bits(on_gpu(method, image, start, iterations=1), cpu(method, image, start, iterations=1))


@pytest.mark.parametrize("method", ["raster", "exact"])
def test_a_path_that_winds(rng, method):
    image, start = pictures(rng, 1, 1, 1, 200, 300)
    wall = np.zeros((1, 200, 300), np.uint8)
    wall[0, 2:, 8::16] = wall[0, :-2, 16::16] = 1
    options = {"barrier": wall, "iterations": 7}
    same_bits(on_gpu(method, image, start, **options), cpu(method, image, start, **options))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8, torch.float64])
def test_other_functions(dtype):
    image = (200 * torch.rand(2, 50, 70, 3)).to(dtype).permute(0, 3, 1, 2)
    region = torch.zeros(50, 70, dtype=torch.bool)
    region[10:20, 30:60] = True
    for call in (
        lambda i, r: fp.signed_geodesic_distance(i, r, lam=0.7),
        lambda i, r: fp.signed_geodesic_distance(i, r.float() * 0.8, lam=0.7, v=20.0, method="raster"),
        lambda i, r: fp.geodesic_symmetric_filter(i, r, theta=2.0),
        lambda i, r: fp.geodesic_distance(i, r.float() * 0.8, v=3.0, spacing=(2, 1)),
    ):
        got = call(image.cuda(), region.expand(2, 1, 50, 70).cuda())
        assert got.is_cuda
        same_bits(got.cpu().numpy(), call(image, region.expand(2, 1, 50, 70)).numpy())
    near = fp.exponentiated_geodesic(image[0].cuda(), region.cuda(), normalize="minmax")
    torch.testing.assert_close(near.cpu(), fp.exponentiated_geodesic(image[0], region, normalize="minmax"))


def test_fastgeodis():
    from fastprompt.compat import fastgeodis as compat

    image, mask = torch.rand(1, 3, 60, 70), torch.ones(1, 1, 60, 70)
    mask[..., 20:30, 20:30] = 0
    volume, solid = torch.rand(1, 1, 9, 20, 30), torch.ones(1, 1, 9, 20, 30)
    solid[..., 3, 4, 5] = 0
    for name, args in {
        "generalised_geodesic2d": (image, mask, 1e10, 0.6, 2),
        "signed_generalised_geodesic2d": (image, mask, 1e10, 0.6, 2),
        "GSF2d": (image, mask, 1.0, 1e10, 0.6, 2),
        "signed_geodesic2d_pixelqueue": (image, mask, 0.6),
        "generalised_geodesic3d": (volume, solid, (1.0, 2.0, 0.5), 1e10, 0.6, 2),
    }.items():
        f = getattr(compat, name)
        got = f(*(a.cuda() if isinstance(a, torch.Tensor) else a for a in args))
        same_bits(got.cpu().numpy(), f(*args).numpy())
    with pytest.raises(ValueError, match="image must be on the CPU"):
        compat.generalised_geodesic2d_toivanen(image.cuda(), mask.cuda(), 1e10, 0.6)


@pytest.mark.parametrize("method", ["raster", "exact"])
def test_side_stream_and_graph(rng, method):
    images, start = pictures(rng, 3, 1, 1, 150, 260)
    given = torch.from_numpy(images).cuda()
    image, seeds = given[0].clone(), torch.from_numpy(start[0]).cuda()

    def call():
        return fp.geodesic_distance(image, seeds, method=method, lam=0.6, dims=2)

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(2):
            on_side = call()
    torch.cuda.current_stream().wait_stream(side)
    same_bits(on_side.cpu().numpy(), cpu(method, images[:1], start[:1])[0])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()
    for n in range(3):
        image.copy_(given[n])
        graph.replay()
        same_bits(out.cpu().numpy(), cpu(method, images[n : n + 1], start[:1])[0])


@pytest.mark.parametrize("size", [(2, 3, 2, 100, 130), (1, 1, 1, 12, 30, 25)], ids=str)
@pytest.mark.parametrize(("metric", "lam"), [("fastgeodis", 0.6), ("geodistk", 0.6), ("fastgeodis", 1.0)])
def test_gradient(rng, size, metric, lam):
    image, start = pictures(rng, *size)
    if lam == 1:
        image = np.round(4 * image).astype(np.float32)  # plateaus
    soft = np.clip(start + 0.3 * rng.random(start.shape, dtype=np.float32), 0, 1)
    weight = torch.from_numpy(rng.normal(size=start.shape).astype(np.float32))

    def gradients(device):
        i, s = (torch.tensor(x, device=device, requires_grad=True) for x in (image, soft))
        d = fp.geodesic_distance(i, s, metric=metric, lam=lam, v=30.0, dims=len(size) - 3)
        (d * weight.to(device)).sum().backward()
        return i.grad.cpu(), s.grad.cpu()

    first, again = gradients("cuda"), gradients("cuda")
    for ours, repeated, theirs in zip(first, again, gradients("cpu"), strict=True):
        assert torch.equal(ours, repeated)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-6 * float(theirs.abs().max()))
