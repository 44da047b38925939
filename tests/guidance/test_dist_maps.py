"""fastprompt.nn.DistMaps and the drop-in, against modules rebuilt from RITM's formula."""

import copy
import pickle
import sys
import types

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from fastprompt.nn import DistMaps as Ours  # noqa: E402
from fastprompt.nn.parts import host_path  # noqa: E402


class DistMaps(nn.Module):
    """RITM's torch path, written from its description: the map of every click, then the least of each sign."""

    def __init__(self, norm_radius, spatial_scale=1.0, cpu_mode=False, use_disks=False):
        super().__init__()
        self.norm_radius, self.spatial_scale = norm_radius, spatial_scale
        self.cpu_mode, self.use_disks = cpu_mode, use_disks

    def get_coord_features(self, points, batchsize, rows, cols):
        reach = self.norm_radius * self.spatial_scale
        clicks = points[..., :2].reshape(-1, 2)
        grid = torch.stack(torch.meshgrid(torch.arange(rows).float(), torch.arange(cols).float(), indexing="ij"))
        shift = grid - (clicks * self.spatial_scale)[:, :, None, None]
        shift = shift if self.use_disks else shift / reach
        squares = shift[:, 0] * shift[:, 0] + shift[:, 1] * shift[:, 1]
        squares[clicks.amax(1) < 0] = 1e6
        least = squares.view(-1, 2, points.shape[1] // 2, rows, cols).amin(2)
        return (least <= reach**2).float() if self.use_disks else (least.sqrt() * 2).tanh()

    def forward(self, x, coords):
        return self.get_coord_features(coords, x.shape[0], x.shape[2], x.shape[3])


class Earlier:
    class DistMaps(nn.Module):
        """f-BRS: no disks, and points without an order."""

        def __init__(self, norm_radius, spatial_scale=1.0, cpu_mode=False):
            super().__init__()
            self.norm_radius, self.spatial_scale, self.cpu_mode = norm_radius, spatial_scale, cpu_mode

        def get_coord_features(self, points, batchsize, rows, cols):
            host = globals()["DistMaps"](self.norm_radius, self.spatial_scale)
            return host.get_coord_features(points, batchsize, rows, cols)

        def forward(self, x, coords):
            return self.get_coord_features(coords, x.shape[0], x.shape[2], x.shape[3])


class Model(nn.Module):
    def __init__(self, maps):
        super().__init__()
        self.conv, self.maps = nn.Conv2d(3, 2, 1), maps

    def forward(self, x, coords):
        return self.conv(x) + self.maps(x, coords)


def clicks(batch=2, count=24, size=(61, 83), width=3):
    g = torch.Generator().manual_seed(0)
    coords = torch.rand(batch, 2 * count, width, generator=g) * 1.2 * max(size) - 6
    coords[:, ::4] = -1
    coords[:, 1::4] = coords[:, 1::4].round()
    coords[0, :count] = -1
    return coords, torch.zeros(batch, 3, *size)


CASES = {
    "disks": {"norm_radius": 5, "use_disks": True},
    "tanh": {"norm_radius": 260},
    "tanh_5": {"norm_radius": 5},
    "scaled": {"norm_radius": 24.5, "spatial_scale": 0.5, "use_disks": True},
    "scaled_tanh": {"norm_radius": 100, "spatial_scale": 0.25},
    "empty_is_1000_pixels": {"norm_radius": 1000, "use_disks": True},  # trap 4: an empty slot lies in such a disk
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
@torch.no_grad()
def test_the_same_maps(options, dtype):
    coords, x = clicks()
    coords = coords.to(dtype)
    want = DistMaps(**options)(x, coords)
    accelerated = fp.accelerate(DistMaps(**options))
    for module in (Ours(**options), accelerated):
        got = module(x, coords)
        assert got.dtype == torch.float32
        if options.get("use_disks"):
            assert torch.equal(got, want)
        else:
            assert float((got - want).abs().max()) <= 1e-6
    assert fp.report(accelerated).replaced


@torch.no_grad()
def test_f_brs():
    coords, x = clicks(width=2)
    host = Earlier.DistMaps(260)
    want = host(x, coords)
    fp.accelerate(host)
    assert type(host) is not Earlier.DistMaps
    assert float((host(x, coords) - want).abs().max()) <= 1e-6
    assert fp.restore(host).__class__ is Earlier.DistMaps


def test_accelerate_and_back():
    coords, x = clicks()
    model = Model(DistMaps(5, use_disks=True))
    want = model(x, coords)
    fp.accelerate(fp.accelerate(model))
    assert fp.report(model).replaced == {"maps": f"{__name__}.DistMaps"}
    assert isinstance(model.maps, DistMaps)
    assert torch.equal(model(x, coords), want)
    assert torch.equal(copy.deepcopy(model)(x, coords), want)
    again = copy.deepcopy(model).maps
    assert fp.report(again).replaced
    with fp.disabled():
        assert torch.equal(model(x, coords), want)
    assert fp.restore(model).maps.__class__ is DistMaps


def test_pickle():
    sys.modules.setdefault(__name__, types.ModuleType(__name__)).__dict__.setdefault("DistMaps", DistMaps)
    module = fp.accelerate(DistMaps(5, use_disks=True))
    coords, x = clicks()
    again = pickle.loads(pickle.dumps(module))
    assert fp.report(again).replaced
    assert torch.equal(again(x, coords), module(x, coords))


def test_others_are_left_alone():
    class Other(DistMaps):
        def __init__(self):
            super().__init__(5)
            self.mode = "gaussian"

    class Volume(DistMaps):
        def get_coord_features(self, points, batchsize, depth, rows, cols):
            return None

    class Bare(nn.Module):
        pass

    for cls in (Other, Volume, Bare):
        cls.__name__ = "DistMaps"
    for module, reason in (
        (Other(), "it is another DistMaps than RITM's"),
        (Volume(5), "it is another DistMaps than RITM's"),
        (Bare(), "it is another DistMaps than RITM's"),
        (DistMaps(0), "it has no positive norm_radius and spatial_scale"),
        (DistMaps(5, cpu_mode=True), "its cpu_mode is an approximate search, which rounds the clicks"),
    ):
        cls = type(module)
        assert type(fp.accelerate(module)) is cls
        assert reason in fp.report(module).skipped[""]
    ours = fp.accelerate(Ours(5))
    assert type(ours) is Ours
    assert not fp.report(ours).replaced


@pytest.mark.parametrize("case", ["float64", "gradient", "cpu_mode"])
def test_the_host_takes_what_is_not_covered(case, monkeypatch):
    coords, x = clicks()
    module = fp.accelerate(DistMaps(260))
    if case == "float64":
        coords = coords.double()
    elif case == "gradient":
        coords.requires_grad_()
    else:
        module.cpu_mode = True
    monkeypatch.setattr(host_path, "_said", set())
    with pytest.warns(UserWarning, match="DistMaps takes the host's path"):
        got = module(x, coords)
    assert torch.equal(got, DistMaps(260)(x, coords))
    if case == "gradient":
        assert torch.autograd.grad(got.sum(), coords)[0].any()


def test_no_slot_at_all_is_the_hosts_error():
    coords, x = clicks()
    with pytest.warns(UserWarning, match="coords is not"), pytest.raises((RuntimeError, IndexError)):
        fp.accelerate(DistMaps(260))(x, coords[:, :0])


def test_cpu_mode_rounds_and_does_not_scale():
    """What RITM's compiled path does with clicks; its search aside."""
    coords = torch.tensor([[[2.5, 3.5, 0], [-0.4, 6.0, 1], [-0.6, 9, 2], [4, -1, 3]]])
    x = torch.zeros(1, 3, 9, 12)
    got = Ours(1, spatial_scale=2.0, cpu_mode=True, use_disks=True)(x, coords)
    rounded = torch.tensor([[[2.0, 4, 0], [0, 6, 1], [-1, -1, 2], [4, -1, 3]]])
    assert torch.equal(got, DistMaps(2, use_disks=True)(x, rounded))
    tanh = Ours(10, spatial_scale=2.0, cpu_mode=True)(x, coords)
    assert float((tanh - DistMaps(20)(x, rounded)).abs().max()) <= 1e-6


def test_wrong_calls():
    x = torch.zeros(1, 3, 4, 5)
    for coords in (torch.zeros(1, 3, 3), torch.zeros(4, 3), torch.zeros(1, 4, 5)):
        with pytest.raises(ValueError, match=r"coords must be \(B, 2 N, 2 or 3\) of row, column"):
            Ours(5)(x, coords)
    for radius, scale in ((0, 1), (5, 0), (-1, 1), (float("nan"), 1)):
        with pytest.raises(ValueError, match="norm_radius and spatial_scale must be > 0"):
            Ours(radius, scale)
    with pytest.raises(TypeError, match="coords must be a tensor, got ndarray"):
        Ours(5)(x, np.zeros((1, 4, 3)))
    for short in (x[0], np.zeros((4, 5)), 3):
        with pytest.raises(ValueError, match=r"x must be \(B, C, H, W\), got"):
            Ours(5)(short, torch.zeros(1, 4, 3))
    with pytest.raises(ValueError, match="coords is on meta"):
        Ours(5)(x, torch.zeros(1, 4, 3, device="meta"))
    assert torch.equal(Ours(5, use_disks=True)(x, torch.zeros(1, 0, 3)), torch.zeros(1, 2, 4, 5))
    assert torch.equal(Ours(5)(x, torch.zeros(1, 0, 3)), torch.ones(1, 2, 4, 5))


def test_compile():
    coords, x = clicks()
    module = Ours(260)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, coords), module(x, coords))
    model = fp.accelerate(DistMaps(5, use_disks=True))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert np.array_equal(compiled(x, coords), model(x, coords))
