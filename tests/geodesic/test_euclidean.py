"""The Euclidean distance transform against its reference, against SciPy, and against known answers."""

import concurrent.futures

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

import fastprompt as fp

SHAPES = {
    "pixel": (1, 1),
    "row": (1, 37),
    "column": (23, 1),
    "block": (16, 16),
    "ragged": (17, 33),
    "square": (64, 64),
    "bands": (301, 45),
    "wide": (3, 2111),
    "tall": (1100, 5),
    "cached_plane": (256, 300),
    "banded_plane": (700, 390),
    "voxel": (1, 1, 1),
    "volume": (5, 7, 9),
    "thin_volume": (1, 3, 2),
    "deep": (130, 3, 2),
    "ragged_volume": (33, 18, 70),
}
SMALL = {k: s for k, s in SHAPES.items() if np.prod(s) < 3000}
SPACINGS = {"unit": (1.0, 1.0, 1.0), "anisotropic": (2.5, 0.3, 1.1), "steep": (0.01, 30.0, 0.7)}
EXTREME = [(1e-15, 1.0), (1.0, 1e-15), (1e15, 1e-5), (5e-324, 1e308), (1e308, 1e308)]
SEEDS = {"one": 0.0, "few": 0.003, "some": 0.05, "many": 0.5, "all": 1.0}


def problem(rng, shape, density):
    seeds = rng.random(shape) < density
    seeds.flat[rng.integers(seeds.size)] = True
    return seeds


def transform(seeds, **settings):
    return fp.euclidean_distance_transform(seeds, **settings)


def scipy_transform(seeds, spacing):
    return distance_transform_edt(~seeds, sampling=spacing)


def assert_exact(result, expected):
    """Within the rounding that the docstring promises."""
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result, expected, rtol=3e-7, atol=0)


# ---------------------------------------------------------------- against the oracles


@pytest.mark.parametrize("spacing", SPACINGS.values(), ids=SPACINGS)
@pytest.mark.parametrize("density", SEEDS.values(), ids=SEEDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_scipy(rng, isa, shape, density, spacing):
    spacing = spacing[-len(shape) :]
    seeds = problem(rng, shape, density)
    assert_exact(transform(seeds, spacing=spacing), scipy_transform(seeds, spacing))


@pytest.mark.parametrize("density", SEEDS.values(), ids=SEEDS)
@pytest.mark.parametrize("shape", SMALL.values(), ids=SMALL)
def test_reference(rng, isa, shape, density):
    seeds = np.stack([problem(rng, shape, density), np.zeros(shape, bool), problem(rng, shape, density)])
    settings = {"spacing": (0.7, 1.9, 1.2)[-len(shape) :]}
    with fp.backend("reference"):
        expected = transform(seeds, **settings)
    assert_exact(transform(seeds, **settings), expected)


@pytest.mark.parametrize("shape", [(600, 700), (40, 50, 60)], ids=["plane", "volume"])
def test_correctly_rounded(rng, isa, shape):
    """Squares of distances in pixels are integers: no rounding but that of the root."""
    for density in SEEDS.values():
        seeds = problem(rng, shape, density)
        np.testing.assert_array_equal(transform(seeds, dims=len(shape)), scipy_transform(seeds, 1.0).astype(np.float32))


@pytest.mark.parametrize("shape", [(1500, 1300), (2, 6000), (6000, 2)], ids=str)
def test_large(rng, isa, shape):
    for density in (0.0, 1e-4, 0.01):
        seeds = problem(rng, shape, density)
        assert_exact(transform(seeds), scipy_transform(seeds, 1.0))


def test_structures(isa):
    """Ties, straight fronts and enclosed regions."""
    y, x = np.mgrid[:200, :150]
    for seeds in (y == x, (x % 10 == 0) & (y % 10 == 0), (x - 70) ** 2 + (y - 90) ** 2 > 60**2, x == 149, y == 0):
        for spacing in (1.0, (0.5, 2.0), (3.0, 0.1)):
            assert_exact(transform(seeds, spacing=spacing), scipy_transform(seeds, spacing))


@pytest.mark.parametrize("unit", [1e-40, 1e-30, 1e-19, 1e19, 1e30, 1e35])
def test_units(rng, isa, unit):
    """Squares neither overflow nor vanish."""
    seeds = problem(rng, (40, 50), 0.01)
    expected = scipy_transform(seeds, (2.0, 3.0)) * unit
    np.testing.assert_allclose(transform(seeds, spacing=(2 * unit, 3 * unit)), expected, rtol=3e-7, atol=2e-45)


@pytest.mark.parametrize("spacing", EXTREME, ids=str)
def test_extreme_ratios(isa, spacing):
    seeds = np.zeros((20, 30), bool)
    seeds[3, 4] = True
    y, x = np.mgrid[:20, :30]
    with np.errstate(over="ignore"):
        expected = np.hypot((y - 3) * spacing[0], (x - 4) * spacing[1]).astype(np.float32)
    np.testing.assert_allclose(transform(seeds, spacing=spacing), expected, rtol=3e-7, atol=0)


# ---------------------------------------------------------------- input forms


@pytest.mark.parametrize("lead", [(), (1,), (3,), (2, 3), (2, 1, 2)], ids=str)
@pytest.mark.parametrize("pixels", [(17, 33), (6, 7, 20)], ids=["plane", "volume"])
def test_batch(rng, lead, pixels):
    seeds = rng.random(lead + pixels) < 0.02
    seeds[..., 0, 0] = True
    result = transform(seeds, spacing=(2.0, 1.0, 0.5)[-len(pixels) :])
    assert result.shape == seeds.shape
    for k in np.ndindex(lead):
        assert_exact(result[k], scipy_transform(seeds[k], (2.0, 1.0, 0.5)[-len(pixels) :]))


VIEWS = {
    "transposed": lambda s: s.T,
    "reversed": lambda s: s[::-1, ::-1],
    "every_third": lambda s: s[1::2, ::3],
    "offset": lambda s: s[3:, 5:],
    "broadcast": lambda s: np.broadcast_to(s[:1], s.shape),
    "fortran": np.asfortranarray,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("dtype", ["bool", "uint8"])
def test_views(rng, isa, view, dtype):
    seeds = view((problem(rng, (200, 333), 0.02) * (255 if dtype == "uint8" else 1)).astype(dtype))
    expected = transform(np.ascontiguousarray(seeds))
    np.testing.assert_array_equal(transform(seeds), expected)
    np.testing.assert_array_equal(transform(seeds[None])[0], expected)
    assert_exact(expected, scipy_transform(seeds != 0, 1.0))


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", ">i4", "int64", "float16", "float32", ">f8"])
def test_dtypes(rng, dtype):
    seeds = problem(rng, (20, 30), 0.05)
    values = (seeds * (1 if dtype == "bool" else 200 if dtype == "uint16" else -1)).astype(dtype)
    np.testing.assert_array_equal(transform(values), transform(seeds))


def test_nan_is_no_seed():
    seeds = np.array([[np.nan, 0.0, -0.0, np.inf]], np.float32)
    assert transform(seeds).tolist() == [[3.0, 2.0, 1.0, 0.0]]
    assert transform([[np.nan, 0.0]]).tolist() == [[np.inf, np.inf]]


@pytest.mark.parametrize("shape", [(40, 50), (3, 40, 50), (300, 400)], ids=str)
def test_no_seed(isa, shape):
    assert np.isposinf(transform(np.zeros(shape, bool))).all()
    assert np.isposinf(transform(np.zeros(shape, bool), dims=len(shape), spacing=0.1)).all()
    assert (transform(np.ones(shape, bool)) == 0).all()


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 4, 5), (2, 0, 0), (0, 0, 3, 4)], ids=str)
def test_empty(shape):
    for dims in (2, 3):
        if len(shape) >= dims:
            result = transform(np.zeros(shape, bool), dims=dims)
            assert result.shape == shape
            assert result.dtype == np.float32


def test_dims():
    seeds = np.zeros((3, 4, 5), bool)
    seeds[0, 0, 0] = True
    assert np.isposinf(transform(seeds)[1:]).all()  # three images
    for settings in ({"dims": 3}, {"spacing": (1, 1, 1)}):
        assert transform(seeds, **settings)[2, 0, 0] == 2
    volumes = np.stack([[seeds], [seeds[::-1]]])  # five axes are volumes, as in geodesic_distance
    np.testing.assert_array_equal(transform(volumes), transform(volumes, dims=3))
    assert np.isposinf(transform(volumes, dims=2)[0, 0, 1:]).all()


def test_writes_nothing_else(isa, monkeypatch):
    """The output is a view into a larger array full of sentinels."""
    whole = np.full(5000, -7.0, np.float32)
    monkeypatch.setattr(np, "empty", lambda shape, dtype: whole[101 : 101 + np.prod(shape)].reshape(shape))
    for shape in ((17, 33), (40, 5), (3, 301), (5, 6, 19)):
        whole[:] = -7
        transform(np.ones(shape, bool), dims=len(shape))
        count = np.prod(shape)
        assert (whole[:101] == -7).all()
        assert (whole[101 : 101 + count] == 0).all()
        assert (whole[101 + count :] == -7).all()


# ---------------------------------------------------------------- threads


@pytest.mark.parametrize("shape", [(300, 401), (2, 520, 380), (20, 64, 75)], ids=str)
def test_threads_give_the_same_bits(rng, isa, shape):
    seeds = problem(rng, shape, 0.01)
    try:
        for dims in {2, len(shape)}:
            fp.set_num_threads(1)
            expected = transform(seeds, dims=dims, spacing=0.3)
            for threads in (2, 5):
                fp.set_num_threads(threads)
                np.testing.assert_array_equal(transform(seeds, dims=dims, spacing=0.3), expected)
    finally:
        fp.set_num_threads(None)


def test_instruction_sets_give_the_same_bits(rng, isa):
    seeds = problem(rng, (70, 333), 0.01)
    result = transform(seeds, spacing=(0.3, 0.7))
    fp._C.set_isa("baseline")
    np.testing.assert_array_equal(result, transform(seeds, spacing=(0.3, 0.7)))


def test_concurrent_calls(rng):
    seeds = [problem(rng, (150, 90 + k), 0.02) for k in range(16)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for s, result in zip(seeds, pool.map(transform, seeds), strict=True):
            assert_exact(result, scipy_transform(s, 1.0))


# ---------------------------------------------------------------- errors

OK = np.ones((4, 5), bool)
ERRORS = {
    "zero_spacing": (ValueError, "spacing must be positive and finite, got 0", OK, {"spacing": 0}),
    "negative_spacing": (ValueError, "spacing must be positive", OK, {"spacing": (1, -1)}),
    "infinite_spacing": (ValueError, "spacing must be positive and finite", OK, {"spacing": np.inf}),
    "nan_spacing": (ValueError, "spacing must be positive and finite", OK, {"spacing": (1, np.nan)}),
    "spacing_length": (ValueError, "spacing must be one number or 2 or 3 numbers, got 4", OK, {"spacing": [1] * 4}),
    "spacing_dims": (ValueError, "spacing must be one number or 3 numbers, got 2", OK, {"spacing": (1, 1), "dims": 3}),
    "spacing_type": (TypeError, "spacing must be a number", OK, {"spacing": "wide"}),
    "dims": (ValueError, "dims must be one of 2, 3, None, got 1", OK, {"dims": 1}),
    "axes": (ValueError, r"seeds must have at least 2 axes .*got shape \(4,\)", OK[:, 0], {}),
    "axes_3d": (ValueError, r"seeds must have at least 3 axes .*got shape \(4, 5\)", OK, {"dims": 3}),
    "complex": (TypeError, "seeds must hold real numbers, got dtype complex128", OK * 1j, {}),
    "text": (TypeError, "seeds must hold real numbers", [["a"]], {}),
}


@pytest.mark.parametrize(("error", "message", "seeds", "settings"), ERRORS.values(), ids=ERRORS)
def test_errors(error, message, seeds, settings):
    with pytest.raises(error, match=message):
        transform(seeds, **settings)


# ---------------------------------------------------------------- torch


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", "bfloat16"])
def test_torch(rng, torch, dtype):
    seeds = problem(rng, (2, 40, 50), 0.02)
    tensor = torch.from_numpy(seeds).to(getattr(torch, dtype))
    for t in (tensor, tensor.transpose(1, 2).contiguous().transpose(1, 2), tensor.expand(3, 2, 40, 50)):
        result = transform(t, spacing=(2, 3))
        assert result.dtype is torch.float32
        assert result.is_contiguous()
        assert result.shape == t.shape
        np.testing.assert_array_equal(result.numpy(), np.broadcast_to(transform(seeds, spacing=(2, 3)), t.shape))
    with fp.backend("reference"):
        np.testing.assert_allclose(transform(tensor, spacing=(2, 3)), transform(seeds, spacing=(2, 3)), rtol=3e-7)


def test_torch_errors(torch):
    soft = torch.ones(4, 5, requires_grad=True)
    with pytest.raises(ValueError, match="seeds must not require a gradient"):
        transform(soft)
    with torch.no_grad():
        assert (transform(soft) == 0).all()
    with pytest.raises(TypeError, match=r"seeds must hold real numbers, got dtype torch\.complex64"):
        transform(torch.ones(4, 5, dtype=torch.complex64))
    with torch._subclasses.FakeTensorMode():
        assert transform(torch.empty(4, 5, device="cuda:0")).device == torch.device("cuda:0")
        with pytest.raises(ValueError, match=r"seeds is on xpu:0: .*seeds\.cpu\(\)"):
            transform(torch.empty(4, 5, device="xpu:0"))


def test_opcheck(rng, torch):
    transform(torch.ones(1, 1))  # registers the operator
    op = torch.ops.fastprompt.euclidean_distance_transform.default
    seeds = torch.from_numpy(problem(rng, (2, 1, 3, 20, 30), 0.02))
    torch.library.opcheck(op, (seeds, [3.0, 1.0, 1.0]))
    torch.library.opcheck(op, (seeds.transpose(3, 4).byte(), [3.0, 1.0, 1.0]))


def test_compile(rng, torch):
    compiled = torch.compile(lambda s: transform(s > 0.5, spacing=(1, 2)) * 2, fullgraph=True, backend="aot_eager")
    for shape in ((20, 30), (3, 17, 19)):
        seeds = torch.rand(shape)
        torch.testing.assert_close(compiled(seeds), transform(seeds > 0.5, spacing=(1, 2)) * 2, rtol=0, atol=0)


def test_export(rng, torch):
    class Model(torch.nn.Module):
        def forward(self, seeds):
            return fp.euclidean_distance_transform(seeds) * 2

    d = torch.export.Dim.DYNAMIC
    example = torch.from_numpy(problem(rng, (2, 20, 30), 0.05))
    program = torch.export.export(Model(), (example,), dynamic_shapes={"seeds": {0: d, 1: d, 2: d}})
    assert "fastprompt.euclidean_distance_transform" in str(program.graph)
    seeds = torch.from_numpy(problem(rng, (3, 41, 17), 0.05))
    torch.testing.assert_close(program.module()(seeds), Model()(seeds), rtol=0, atol=0)


def test_numpy_needs_no_torch(fresh_python):
    fresh_python(
        "import sys, fastprompt as fp; fp.euclidean_distance_transform([[1, 0]]); assert 'torch' not in sys.modules"
    )
