"""Hiera's block in one operator, against the reference in float64."""

import pytest

torch = pytest.importorskip("torch")

from fastprompt.ops.encoder.operators import grid_layer  # noqa: E402
from fastprompt.reference import encoder as reference  # noqa: E402

LAYERS = {  # images, rows, columns, channels, results, width of all heads, heads, window, pool
    "windows of eight": (2, 24, 40, 96, 96, 96, 1, 8, 1),
    "windows of four": (2, 12, 16, 96, 96, 96, 2, 4, 1),
    "padded windows": (1, 17, 22, 48, 48, 32, 2, 7, 1),
    "all": (2, 10, 9, 112, 112, 112, 2, 0, 1),
    "pooled": (1, 16, 24, 48, 96, 96, 2, 8, 2),
    "windows of four, pooled": (2, 12, 20, 48, 96, 96, 4, 4, 2),
    "padded and pooled": (2, 30, 20, 32, 64, 64, 2, 14, 2),
    "several parts": (1, 70, 70, 32, 32, 32, 1, 14, 1),
    "one token": (1, 1, 1, 16, 16, 16, 1, 8, 1),
    "narrow heads": (1, 8, 8, 64, 64, 64, 8, 8, 1),
}


def arguments(layer):
    images, height, columns, channels, outputs, width, heads, window, pool = LAYERS[layer]
    made = torch.Generator().manual_seed(sum(LAYERS[layer]))
    normal = lambda *shape, std=1.0: torch.randn(*shape, generator=made) * std  # noqa: E731
    linear = lambda rows, depth: [normal(rows, depth, std=depth**-0.5), normal(rows, std=0.3)]  # noqa: E731
    norm = lambda n: [1 + normal(n, std=0.2), normal(n, std=0.2)]  # noqa: E731
    residual = linear(outputs, channels) if outputs != channels else []
    mlp = [*linear(4 * outputs, outputs), *linear(outputs, 4 * outputs)]
    x = normal(images, height, columns, channels, std=2.0)
    weights = norm(channels), linear(3 * width, channels), residual, linear(outputs, width), norm(outputs), mlp
    return x, *weights, heads, window, pool, [1e-6, 1e-5], "gelu"


def in_double(x):
    if isinstance(x, torch.Tensor):
        return x.double().numpy()
    return [in_double(item) for item in x] if isinstance(x, list) and x and isinstance(x[0], torch.Tensor) else x


def error(got, want):
    assert got.shape == want.shape
    return float((got - torch.from_numpy(want)).abs().max()) / float(abs(want).max())


@pytest.mark.parametrize("layer", LAYERS)
def test_reference(isa, layer):
    given = arguments(layer)
    assert error(grid_layer(*given), reference.grid_layer(*map(in_double, given))) < 1e-6
    relu = (*given[:-1], "relu")
    assert error(grid_layer(*relu), reference.grid_layer(*map(in_double, relu))) < 1e-6


@pytest.mark.parametrize("layer", ["windows of eight", "pooled", "all"])
def test_precision(engine, precision, layer):
    given = arguments(layer)
    want, found = reference.grid_layer(*map(in_double, given)), {}
    for name, tolerance in (("highest", 1e-6), ("high", 5e-5), ("medium", 2e-2)):
        precision(name)
        found[name] = grid_layer(*given)
        assert error(found[name], want) < tolerance
    assert torch.equal(found["highest"], found["high"]) == (engine == "avx512_bf16")
    assert not torch.equal(found["highest"], found["medium"])


@pytest.mark.parametrize("layer", ["windows of eight", "several parts", "pooled"])
def test_threads_change_nothing(layer):
    given, before, found = arguments(layer), torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(grid_layer(*given))
    torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found)


def test_any_strides():
    x, *rest = arguments("windows of four")
    turned = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert torch.equal(grid_layer(turned, *rest), grid_layer(x, *rest))


def test_opcheck():
    torch.library.opcheck(grid_layer.torch, arguments("windows of four, pooled"))


def test_refusals():
    given = list(arguments("pooled"))
    for text, place, value in (
        ("heads must divide", 7, 7),
        ("heads must divide", 7, 0),
        ("pool must", 9, 3),
        ("pool must", 9, 0),
        ("pool must|window must be", 8, -2),
        ("residual must be given|residual_weight must be given", 3, []),
        ("qkv", 2, [torch.ones(48, 48), torch.ones(48)]),
        ("norm2", 5, [torch.ones(48), torch.ones(48)]),
        ("multiples of 16|must have shape", 4, [torch.ones(96, 40), torch.ones(96)]),
    ):
        with pytest.raises(ValueError, match=text):
            grid_layer(*given[:place], value, *given[place + 1 :])
    with pytest.raises(ValueError, match="activation"):
        grid_layer(*given[:-1], "tanh")
