"""The drop-ins for FastGeodis and GeodisTK: against the reference, recorded results, and the originals if installed."""

import importlib
import inspect
import itertools

import numpy as np
import pytest

import fastprompt as fp
from fastprompt.compat import geodistk as ours_gtk

torch = pytest.importorskip("torch", reason="fastprompt.compat.fastgeodis works on torch tensors")
from fastprompt.compat import fastgeodis as ours  # noqa: E402

PLANES = {"pixel": (1, 1), "row": (1, 37), "column": (23, 1), "ragged": (17, 33), "wide": (9, 70)}
VOLUMES = {"voxel": (1, 1, 1), "slice": (1, 6, 9), "thin": (5, 1, 7), "block": (6, 7, 18)}
SCANS = {2: (0.5, 1e10), 3: (0.3, 20.0)}
SPACING = [2.1, 1.3, 0.7]


def original(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} is not installed: {error}")


def names(part, dims):
    return [n for n in ours.__all__ if f"{dims}d" in n and any(p in n for p in part)]


def tensors(shape, channels=1, scale=1.0, mask="click"):
    torch.manual_seed(sum(shape) + channels)
    image = torch.rand(1, channels, *shape) * scale
    start = {"click": torch.ones, "soft": torch.rand, "hard": torch.rand, "all": torch.zeros}[mask](1, 1, *shape)
    if mask == "hard":
        start = (start > 0.4).float()
    start.view(-1)[start.numel() // 3] = 0
    return image, start


def call(module, name, image, mask, lamb=0.5, v=1e10, iterations=2, theta=0.4):
    """``name`` with the arguments that it takes, by name."""
    given = {"image": image, "softmask": mask, "seed": mask, "spacing": SPACING}
    given |= {"lamb": lamb, "v": v, "iter": iterations, "theta": theta}
    return getattr(module, name)(**{k: given[k] for k in inspect.signature(getattr(ours, name)).parameters})


def assert_same(result, expected, **close):
    result, expected = np.asarray(result), np.asarray(expected)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    assert result.shape == expected.shape
    (np.testing.assert_allclose if close else np.testing.assert_array_equal)(result, expected, **close)


# ---------------------------------------------------------------- always on: reference and recorded results


@pytest.mark.parametrize("name", [n for n in ours.__all__ if "fastmarch" not in n])
def test_equals_the_reference(isa, name):
    shape = (4, 5, 6) if "3d" in name else (9, 17)
    for mask, channels in (("hard", 1), ("soft", 3)):
        image, start = tensors(shape, channels, mask=mask)
        with fp.backend("reference"):
            expected = call(ours, name, image, start)
        assert_same(call(ours, name, image, start), expected)


IMAGE = (torch.arange(24).reshape(1, 2, 3, 4) * 7 % 13).float()
MASK = torch.ones(1, 1, 3, 4)
MASK[0, 0, 1, 0] = 0
SOFT = MASK.clone()
SOFT[0, 0, 2, 3] = 0.5
VOLUME = (torch.arange(12).reshape(1, 1, 2, 2, 3) * 7 % 11).float()
CORNER = torch.ones(1, 1, 2, 2, 3)
CORNER[0, 0, 0, 0, 0] = 0
SIZES = [2.0, 1.0, 0.5]
EDGE = [2.828427, 12.047972, 21.267515, 30.48706]
STEEP = [2.45, 4.0, 3.7, 2.582624, 4.132624, 4.1, 2.9430869, 4.4865255, 3.9652476, 2.8039017, 4.353902]
RECORDED = {  # what FastGeodis 1.0.5 and GeodisTK 0.1.7 return
    "generalised_geodesic2d": (
        (IMAGE, SOFT, 20.0, 0.3, 1),
        [1.9000001, 4.88995, 9.48995, 13.799999, 0, 4.6, 9.2, 11.9, 1.9000001, 4.88995, 9.48995, 10],
    ),
    "signed_generalised_geodesic2d_toivanen": (
        (IMAGE, MASK, 1e10, 0.3, 1),
        [
            1.9000001,
            4.88995,
            9.48995,
            14.089949,
            -1.9000001,
            4.6,
            9.2,
            13.799999,
            1.9000001,
            4.88995,
            9.48995,
            14.089949,
        ],
    ),
    "generalised_geodesic3d": ((VOLUME, CORNER, SIZES, 1e10, 0.3, 1), [0, *STEEP]),
    "geodesic3d_pixelqueue": ((VOLUME, CORNER, SIZES, 0.3), [0, *STEEP]),
    "geodesic2d_fastmarch": (
        (IMAGE, MASK, 0.3),
        [3.2503455, 5.548687, 8.172923, 10.6979475, 0, 3.2503455, 6.500691, 9.751037]
        + [4.750345, 7.3832717, 10.400347, 14.022271],
    ),
    "geodesic2d_fast_marching": (
        (IMAGE[0].permute(1, 2, 0), MASK[0, 0] == 0),
        [*EDGE, 0, 9.219544, 18.439089, 27.658634, *EDGE],
    ),
    "geodesic2d_raster_scan": (
        (IMAGE[0].permute(1, 2, 0), MASK[0, 0] == 0, 0.3, 1),
        [1.2405938, 1.932514, 3.297628, 4.662742, 0, 1.3651141, 2.7302282, 4.095342]
        + [1.2405938, 1.9360579, 3.301172, 4.666286],
    ),
    "geodesic3d_raster_scan": (
        (VOLUME[0, 0], CORNER[0, 0] == 0, SIZES, 0.3, 1),
        [0, 0.673077, 1.3182385, 1.369863, 1.4907123, 2.1358738, 2.727273, 2.71257, 3.3577313, 2.9643717]
        + [2.9565012, 3.6016626],
    ),
}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded(isa, name):
    arguments, expected = RECORDED[name]
    result = getattr(ours if name in ours.__all__ else ours_gtk, name)(*arguments)
    np.testing.assert_allclose(np.asarray(result).ravel(), expected, rtol=1e-6)


# ---------------------------------------------------------------- against the originals


def test_signatures():
    peer = original("FastGeodis")
    public = {n for n, f in vars(peer).items() if inspect.isfunction(f)}
    assert public == set(ours.__all__)
    for name in public:
        a, b = (inspect.signature(getattr(m, name)).parameters for m in (ours, peer))
        assert [(p.name, p.default) for p in a.values()] == [(p.name, p.default) for p in b.values()], name


@pytest.mark.parametrize("mask", ["click", "soft", "hard", "all"])
@pytest.mark.parametrize("shape", (PLANES | VOLUMES).values(), ids=PLANES | VOLUMES)
def test_scans_equal_fastgeodis(isa, shape, mask):
    peer = original("FastGeodis")
    for channels, lamb in itertools.product((1, 2, 3), (0.0, 0.3, 1.0)):
        image, start = tensors(shape, channels, 255.0, mask)
        for name in names(("generalised", "GSF2d", "GSF3d"), len(shape)):
            if "pixelqueue" in name or "fastmarch" in name:
                continue
            for iterations, v in ((0, 1e10), (1, 20.0), (2, 1e10)):
                case = (name, image, start, lamb, v, iterations)
                assert_same(call(ours, *case), call(peer, *case))


@pytest.mark.parametrize("shape", (PLANES | VOLUMES).values(), ids=PLANES | VOLUMES)
def test_pixelqueue_equals_fastgeodis(shape):
    peer = original("FastGeodis")
    for channels, lamb, mask in itertools.product((1, 3), (0.0, 0.3, 1.0), ("click", "soft", "hard", "all")):
        image, start = tensors(shape, channels, mask=mask)
        for name in names(("pixelqueue",), len(shape)):
            assert_same(
                call(ours, name, image, start, lamb), call(peer, name, image, start, lamb), rtol=1e-5, atol=1e-5
            )


@pytest.mark.parametrize("shape", [(2, 9), (17, 33), (9, 70)], ids=str)
def test_fastmarch_equals_fastgeodis(shape):
    peer = original("FastGeodis")
    for channels, lamb, scale in itertools.product((1, 2, 3), (0.0, 0.3, 1.0), (1.0, 255.0)):
        image, start = tensors(shape, channels, scale)
        case = ("geodesic2d_fastmarch", image, start, lamb)
        assert_same(call(ours, *case), call(peer, *case))


@pytest.mark.parametrize("tail", [(), (1,), (3,)], ids=str)
@pytest.mark.parametrize("shape", (PLANES | VOLUMES).values(), ids=PLANES | VOLUMES)
def test_equals_geodistk(isa, rng, shape, tail):
    peer = original("GeodisTK")
    image = (rng.random((*shape, *tail)) * 255).astype(np.float32)
    spacing = () if len(shape) == 2 else (np.array(SPACING, np.float32),)
    for density, lamb, iterations in itertools.product((0.0, 0.05, 1.0), (0.0, 0.3, 1.0), (0, 1, 3)):
        seeds = (rng.random(shape) < density).astype(np.uint8) * 7
        for name, numbers in (("raster_scan", (lamb, iterations)), ("fast_marching", ())):
            case = (image, seeds, *spacing, *numbers)
            name = f"geodesic{len(shape)}d_{name}"
            assert_same(getattr(ours_gtk, name)(*case), getattr(peer, name)(*case))


# ---------------------------------------------------------------- what is taken, and what is refused


@pytest.mark.parametrize("name", ours.__all__)
def test_layout_and_channels(name):
    shape = (4, 5, 6) if "3d" in name else (9, 12)
    image, start = tensors(shape, 3, mask="hard")
    expected = call(ours, name, image, start)
    last = torch.channels_last_3d if "3d" in name else torch.channels_last
    assert_same(call(ours, name, image.to(memory_format=last), start.flip(-1).contiguous().flip(-1)), expected)
    with torch.no_grad():
        assert_same(call(ours, name, image.requires_grad_(), start), expected)
    if "GSF" not in name:
        two = torch.cat([start, torch.full_like(start, 0.25)], 1)
        assert_same(call(ours, name, image.detach(), two)[:, :1].contiguous(), expected)


def test_further_mask_channels_and_integer_masks():
    image, start = tensors((5, 7), mask="hard")
    two = torch.cat([start, torch.full_like(start, 0.25)], 1)
    assert (ours.generalised_geodesic2d(image, two, 8.0, 0.5)[:, 1] == 2.0).all()
    assert (ours.signed_generalised_geodesic2d(image, two, 8.0, 0.5)[:, 1] == -4.0).all()
    assert (ours.geodesic2d_pixelqueue(image, two, 0.5)[:, 1] == 0.25).all()
    expected = ours.signed_generalised_geodesic2d(image, start, 8.0, 0.5)
    for dtype in (torch.bool, torch.uint8, torch.int64):
        assert_same(ours.signed_generalised_geodesic2d(image, start.to(dtype), 8.0, 0.5), expected)


@pytest.mark.parametrize("name", [n for n in ours.__all__ if "2d" in n and n != "GSF2d_fastmarch"])
def test_a_negation_that_waits(rng, name):
    image, mask = (torch.from_numpy(rng.random((1, 1, 9, 11), np.float32)) for _ in range(2))
    mask = (mask > 0.2).float()
    numbers = {"theta": 1.0, "v": 1e10, "lamb": 0.5, "iter": 2}
    rest = [numbers[n] for n in inspect.signature(getattr(ours, name)).parameters if n in numbers]
    wanted = getattr(ours, name)(image, mask, *rest)
    assert torch.equal(getattr(ours, name)(torch._neg_view(-image), torch._neg_view(-mask), *rest), wanted)


def test_geodistk_takes_any_numbers(rng):
    image, seeds = rng.random((6, 9, 3)), rng.random((6, 9)) < 0.1
    seeds[2, 2] = True
    expected = ours_gtk.geodesic2d_fast_marching(image.astype(np.float32), seeds.astype(np.uint8))
    flipped = np.asfortranarray(image)[::-1].copy()[::-1]
    for i, s in ((image, seeds), (flipped, seeds * -1 * -3), (image.tolist(), seeds.tolist())):
        assert_same(ours_gtk.geodesic2d_fast_marching(i, s), expected)
    assert (ours_gtk.geodesic2d_fast_marching(image, np.zeros((6, 9), np.uint8)) == np.float32(1e10)).all()
