"""The torch side: same numbers as NumPy, registration, compile, export, gradients."""

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")

METHODS = ["raster", "toivanen", "exact"]


def problem(*shape, channels=3, sets=2, batch=2, dtype=torch.float32):
    torch.manual_seed(0)
    image = torch.rand(batch, channels, *shape, dtype=torch.float32).to(dtype)
    seeds = torch.rand(batch, sets, *shape) < 0.01
    seeds[..., -1] |= torch.rand(batch, sets, *shape[:-1]) < 0.1
    seeds.reshape(batch * sets, -1)[:, 5] = True
    return image, seeds


def op(name):
    fp.geodesic_distance(torch.zeros(1, 1), torch.zeros(1, 1))  # registers the operators
    return getattr(torch.ops.fastprompt, name).default


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_equals_numpy(dtype, method):
    image, seeds = problem(17, 40, dtype=dtype)
    expected = fp.geodesic_distance(image.float().numpy(), seeds.numpy(), method=method)
    result = fp.geodesic_distance(image, seeds, method=method)
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    np.testing.assert_array_equal(result.numpy(), expected)


def test_every_bfloat16():
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16).reshape(1, -1)
    seeds = torch.zeros(bits.shape, dtype=torch.bool)
    seeds[0, 0] = True
    expected = fp.geodesic_distance(bits.float(), seeds, method="raster")
    torch.testing.assert_close(
        fp.geodesic_distance(bits, seeds, method="raster"), expected, rtol=0, atol=0, equal_nan=True
    )


def test_views():
    image, seeds = problem(30, 18)
    expected = fp.geodesic_distance(image, seeds)
    last = image.to(memory_format=torch.channels_last)
    turned = image.transpose(2, 3).contiguous().transpose(2, 3)
    offset = torch.full((2, 3, 33, 25), 9.0)
    offset[:, :, 1:31, 4:22] = image
    for view in (last, turned, offset[:, :, 1:31, 4:22]):
        assert torch.equal(fp.geodesic_distance(view, seeds), expected)
    one = fp.geodesic_distance(image[:1].expand(2, -1, -1, -1), seeds)
    assert torch.equal(one[0], expected[0])


SETTINGS = ("nonzero", "fastgeodis", "exact", 2, 0.5, 0.5, [1.0, 1.0], float("inf"), float("inf"))


def test_opcheck():
    image, seeds = problem(9, 11)
    image5, seeds5 = image[:, :, None], seeds[:, :, None]
    walls = torch.rand(2, 1, 1, 9, 11) < 0.1
    torch.library.opcheck(op("geodesic_distance"), (image5, seeds5, None, *SETTINGS))
    torch.library.opcheck(op("geodesic_distance"), (image5.clone().requires_grad_(), seeds5, walls, *SETTINGS))
    signed = ("signed_seed", *SETTINGS[1:7], 3.0, float("inf"))
    torch.library.opcheck(op("geodesic_distance"), (image5, seeds5.float().requires_grad_(), None, *signed))
    grad = torch.rand(seeds5.shape)
    torch.library.opcheck(op("geodesic_distance_backward"), (grad, image5, seeds5, None, *SETTINGS))


class Module(torch.nn.Module):
    def forward(self, image, seeds):
        signed = fp.signed_geodesic_distance(image, seeds, lam=0.5)
        smooth = fp.geodesic_symmetric_filter(image, seeds, theta=0.1, lam=0.5)
        near = fp.exponentiated_geodesic(image, seeds, normalize="minmax")
        return fp.geodesic_distance(image, seeds, lam=0.5) * 2 + signed + smooth + near


def test_compile_whole_graph():
    image, seeds = problem(12, 14)
    expected = Module()(image, seeds)
    torch.testing.assert_close(torch.compile(Module(), fullgraph=True, backend="eager")(image, seeds), expected)
    torch.testing.assert_close(torch.compile(Module(), fullgraph=True, backend="aot_eager")(image, seeds), expected)


def test_export_with_dynamic_shapes():
    image, seeds = problem(12, 14)
    dynamic = torch.export.Dim.DYNAMIC
    shapes = {"image": {0: dynamic, 2: dynamic, 3: dynamic}, "seeds": {0: dynamic, 2: dynamic, 3: dynamic}}
    program = torch.export.export(Module(), (image, seeds), dynamic_shapes=shapes)
    assert "fastprompt.geodesic_distance" in str(program.graph)
    image, seeds = problem(7, 23, batch=3)
    torch.testing.assert_close(program.module()(image, seeds), Module()(image, seeds))


# ---------------------------------------------------------------- gradients


def gradcheck(function, *inputs):
    """Finite differences fit: the path does not change within eps, and a path through reals is unique."""
    return torch.autograd.gradcheck(function, inputs, eps=1e-4, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("shape", [(6, 7), (3, 4, 5)], ids=["plane", "volume"])
@pytest.mark.parametrize("metric", ["fastgeodis", "geodistk", "geodistk_fm"])
@pytest.mark.parametrize("function", [fp.geodesic_distance, fp.signed_geodesic_distance])
def test_gradient_by_image(function, metric, shape):
    torch.manual_seed(0)
    image = torch.rand(1, 3, *shape, dtype=torch.float64, requires_grad=True)
    seeds = torch.zeros(1, 2, *shape, dtype=torch.bool)
    seeds[0, 0].view(-1)[7] = seeds[0, 1].view(-1)[0] = seeds[0, 1].view(-1)[-1] = True
    assert gradcheck(lambda x: function(x, seeds, lam=0.5, metric=metric), image)


@pytest.mark.parametrize("function", [fp.geodesic_distance, fp.signed_geodesic_distance])
def test_gradient_by_soft_seeds_and_barriers(function):
    torch.manual_seed(0)
    image = torch.rand(1, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    soft = torch.rand(1, 1, 6, 7, dtype=torch.float64, requires_grad=True)
    walls = torch.zeros(6, 7, dtype=torch.bool)
    walls[2, 1:5] = True
    clear = ~walls
    assert gradcheck(lambda x, s: function(x, s, lam=0.5, v=3.0)[..., clear], image, soft)
    assert gradcheck(lambda x: function(x, soft.detach(), lam=0.5, v=3.0, barriers=walls)[..., clear], image)


def test_gradient_of_a_path_by_hand():
    image = torch.tensor([[0.0, 1.0, 5.0]], requires_grad=True)
    seeds = torch.tensor([[1, 0, 0]])
    fp.geodesic_distance(image, seeds)[0, 2].backward()  # |1 - 0| + |5 - 1|
    assert image.grad.tolist() == [[-1.0, 0.0, 1.0]]


def test_ties_give_a_subgradient_and_no_cycle():
    image = torch.zeros(20, 20, requires_grad=True)
    seeds = torch.zeros(20, 20, dtype=torch.bool)
    seeds[3, 3] = True
    fp.geodesic_distance(image, seeds, lam=1.0).sum().backward()
    assert (image.grad == 0).all()


def test_unreached_pixels_have_no_gradient():
    image = torch.rand(8, 9, requires_grad=True)
    walls = torch.zeros(8, 9, dtype=torch.bool)
    walls[:, 4] = True
    seeds = torch.zeros(8, 9, dtype=torch.bool)
    seeds[2, 2] = True
    d = fp.geodesic_distance(image, seeds, barriers=walls)
    d[d.isfinite()].sum().backward()
    assert image.grad[:, 5:].abs().sum() == 0
    assert image.grad[:, :4].abs().sum() > 0
    assert image.grad.isfinite().all()


def test_half_precision_gradient():
    image = torch.rand(5, 6).bfloat16().requires_grad_()
    seeds = torch.zeros(5, 6, dtype=torch.bool)
    seeds[0, 0] = True
    fp.geodesic_distance(image, seeds, lam=0.5).sum().backward()
    assert image.grad.dtype == torch.bfloat16
    assert image.grad.abs().sum() > 0
