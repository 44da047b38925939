"""The two operators of an encoder layer's linear parts, against the formula in float64."""

import ctypes

import pytest
from conftest import HAS_AMX

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

from fastprompt.ops.encoder.operators import normalised_linear, residual_mlp  # noqa: E402
from fastprompt.ops.encoder.relative import relative_position_attention  # noqa: E402

EPS = 1e-6
SIZES = {  # tokens, channels, width of the attention, inner width of the MLP
    "one token": (1, 16, 16, 16),
    "a tile": (64, 48, 48, 96),
    "more": (65, 48, 48, 96),
    "less": (47, 96, 32, 304),
    "long sums": (130, 288, 320, 640),
    "of 32": (20, 32, 64, 96),
    "none": (0, 16, 16, 32),
}


def draw(*shape, std=1.0, mean=0.0, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(hash(shape) % 1000 + seed)) * std + mean


def linear(rows, depth, seed=0):
    return [draw(rows, depth, std=depth**-0.5, seed=seed), draw(rows, std=0.3, seed=seed)]


def norm(channels):
    return [draw(channels, std=0.2, mean=1.0), draw(channels, std=0.2, seed=1)]


def wanted_linear(x, norm, weights):
    x, norm, weights = x.double(), [w.double() for w in norm], [w.double() for w in weights]
    return F.linear(F.layer_norm(x, x.shape[-1:], *norm, EPS) if norm else x, *weights)


def wanted_mlp(x, attended, project, norm, mlp, activation="gelu"):
    x, attended = x.double(), attended.double()
    project, norm, mlp = ([w.double() for w in weights] for weights in (project, norm, mlp))
    y = x + F.linear(attended, *project)
    inner = F.linear(F.layer_norm(y, y.shape[-1:], *norm, EPS), *mlp[:2])
    return y + F.linear(getattr(F, activation)(inner), *mlp[2:])


def arguments(size):
    tokens, channels, width, hidden = SIZES[size]
    x, attended = draw(1, tokens, channels, std=3.0, mean=1.0), draw(1, tokens, width, seed=1)
    mlp = [*linear(hidden, channels), *linear(channels, hidden)]
    return x, attended, linear(channels, width), norm(channels), mlp


def error(got, want):
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max()) if want.numel() else 0.0


@pytest.mark.parametrize("size", SIZES)
def test_formula(isa, size):
    x, attended, project, weights, mlp = arguments(size)
    for rows in (16, 3 * x.shape[-1]):
        layer = linear(rows, x.shape[-1])
        for normed in (weights, []):
            assert error(normalised_linear(x, normed, EPS, layer), wanted_linear(x, normed, layer)) < 1e-6
    for activation in ("gelu", "relu"):
        got = residual_mlp(x, attended, project, weights, EPS, mlp, activation)
        assert error(got, wanted_mlp(x, attended, project, weights, mlp, activation)) < 1e-6


@pytest.mark.parametrize("size", SIZES)
def test_precision(engine, precision, size, emulator):
    x, attended, project, weights, mlp = arguments(size)
    layer = linear(2 * x.shape[-1], x.shape[-1])
    want = wanted_linear(x, weights, layer), wanted_mlp(x, attended, project, weights, mlp)
    found = {}
    for name, tolerance in (("highest", 1e-6), ("high", 5e-5), ("medium", 1e-2)):
        precision(name)
        got = normalised_linear(x, weights, EPS, layer), residual_mlp(x, attended, project, weights, EPS, mlp, "gelu")
        for g, w in zip(got, want, strict=True):
            assert error(g, w) < tolerance
        found[name] = got
    three_pay = engine != "avx512_bf16"  # there one product in float32 takes less time than three in bfloat16
    for k in range(2):
        if x.numel():
            assert torch.equal(found["highest"][k], found["high"][k]) != three_pay
            assert not torch.equal(found["highest"][k], found["medium"][k])
    if engine == "amx" and not HAS_AMX:
        assert ctypes.c_long.in_dll(emulator, "amx_executed").value > 0


@pytest.mark.parametrize("width", [64, 80, 16, 144])
@pytest.mark.parametrize("window", [None, 5], ids=["whole", "windows"])
def test_precision_of_the_attention(engine, precision, width, window):
    grid, cell = (13, 9), (window or 13, window or 9)
    q, k, v = draw(2, grid[0] * grid[1], 3, 2, width).unbind(2)
    tables = [draw(2 * n - 1, width, std=0.3) for n in cell]
    padding = (draw(2, width), draw(2, width, seed=1)) if window else None
    place = {"size": grid, "window": window, "padding": padding}
    precision("highest")
    want = relative_position_attention(q, k, v, *tables, **place)
    for name, tolerance in (("high", 5e-5), ("medium", 2e-2)):
        precision(name)
        got = relative_position_attention(q, k, v, *tables, **place)
        assert error(got, want) < tolerance
        in_float32 = name == "high" and engine == "avx512_bf16"
        assert torch.equal(got, want) == in_float32
    with torch.autocast("cpu", torch.bfloat16):  # asks for what "medium" gives
        precision("highest")
        torch.testing.assert_close(relative_position_attention(q, k, v, *tables, **place), got, rtol=0, atol=0)


def test_any_strides():
    x, attended, project, weights, mlp = arguments("more")
    turned = lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2)  # noqa: E731
    got = residual_mlp(turned(x), turned(attended), project, weights, EPS, [turned(mlp[0]), *mlp[1:]], "gelu")
    assert torch.equal(got, residual_mlp(x, attended, project, weights, EPS, mlp, "gelu"))
    layer = linear(32, x.shape[-1])
    got = normalised_linear(turned(x), weights, EPS, [turned(layer[0]), layer[1]])
    assert torch.equal(got, normalised_linear(x, weights, EPS, layer))


def test_threads_change_nothing():
    x, attended, project, weights, mlp = arguments("long sums")
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(residual_mlp(x, attended, project, weights, EPS, mlp, "gelu"))
    torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found)


def test_odd_sizes_are_refused():
    x, weights = draw(1, 5, 48), norm(48)
    with pytest.raises(ValueError, match="multiples of 16"):
        normalised_linear(x, weights, EPS, linear(24, 48))


def test_opcheck():
    x, attended, project, weights, mlp = arguments("less")
    torch.library.opcheck(normalised_linear.torch, (x, weights, EPS, linear(32, x.shape[-1])))
    torch.library.opcheck(residual_mlp.torch, (x, attended, project, weights, EPS, mlp, "gelu"))
