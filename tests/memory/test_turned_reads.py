"""Reads whose queries and keys are turned, and whose keys are a linear layer of the memory: against float64."""

import numpy as np
import pytest

import fastprompt as fp
from fastprompt import _C

torch = pytest.importorskip("torch")
from test_memory import rotated, tables  # noqa: E402

from fastprompt.ops.memory.operators import projected_memory_read, turned_memory_read  # noqa: E402
from fastprompt.reference import memory as reference  # noqa: E402

# images, grid of the queries, grid of a frame, frames, unturned keys, width, numbers of a token
SHAPES = {
    "tables": (2, (5, 4), (4, 4), 8, 7, 64, 16),
    "more frames than registers": (1, (9, 8), (2, 3), 33, 0, 96, 32),
    "a wide grid, in parts": (1, (2, 3), (3, 70), 6, 1, 64, 32),
    "many others": (1, (3, 3), (4, 4), 8, 300, 64, 16),
    "one frame": (2, (3, 5), (3, 5), 1, 4, 64, 16),
    "no frame": (1, (7, 10), (4, 4), 0, 130, 32, 48),
    "one query": (1, (1, 1), (1, 1), 9, 2, 32, 16),
}


def make(rng, shape):
    images, size, keys, frames, others, width, depth = shape
    count = frames * keys[0] * keys[1] + others
    q, source, value = (
        rng.standard_normal((images, n, d), np.float32)
        for n, d in ((size[0] * size[1], width), (count, depth), (count, depth))
    )
    linear = [rng.standard_normal(s, np.float32) / 4 for s in ((width, depth), (width,))]
    return q, source, value, linear, *tables(*size, width), *tables(*keys, width), list(keys), others, width**-0.5


def test_each_number_of_a_pair_counts(rng, isa):
    """Hosts give both the same cosine and sine; the kernels do not rely on it."""
    q, source, value, linear, cos, *_, size, others, scale = make(rng, SHAPES["tables"])
    own = [rng.standard_normal(cos.shape, np.float32) for _ in range(2)]
    by_column, by_row = rng.standard_normal((2, 2, 4, 1, q.shape[2] // 2), np.float32)
    keys = [
        np.concatenate([np.tile(x.swapaxes(0, 1), (4, 1, 1)), np.tile(y, (1, 4, 1))], 2).reshape(16, -1)
        for x, y in zip(by_column, by_row, strict=True)
    ]
    given = (q, source, value, linear, *own, *keys, size, others, scale)
    want = reference.projected_memory_read(*given)
    np.testing.assert_allclose(projected_memory_read(*given), want, atol=2e-5)
    key = (source @ linear[0].T + linear[1])[:, :, None]
    got = turned_memory_read(q[:, :, None], key, value[:, :, None], *own, *keys, others, scale)[:, :, 0]
    np.testing.assert_allclose(got, want, atol=2e-5)


def formula(q, source, value, linear, cos, sin, key_cos, key_sin, size, others, scale):
    """As complex numbers, in float64."""
    key = (source.astype(np.float64) @ linear[0].T.astype(np.float64) + linear[1])[:, :, None]
    turned, each = key.shape[1] - others, len(key_cos)
    frames = [rotated(key[:, n : n + each], key_cos, key_sin) for n in range(0, turned, each)]
    key = np.concatenate([*frames, key[:, turned:]], 1)
    logits = scale * np.einsum("bqhd,bkhd->bqk", rotated(q[:, :, None], cos, sin), key)
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True) @ value


@pytest.fixture(params=["numpy", "torch", "reference"])
def read(request, isa):
    def run(*arguments):
        with fp.backend("reference" if request.param == "reference" else "auto"):
            if request.param != "torch":
                return projected_memory_read(*arguments)
            given = [torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in arguments]
            given[3] = [torch.from_numpy(x) for x in given[3]]
            return projected_memory_read(*given).numpy()

    return run


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_projected(rng, read, shape):
    arguments = make(rng, shape)
    np.testing.assert_allclose(read(*arguments), formula(*arguments), rtol=0, atol=3e-6)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_turned(rng, isa, shape):
    q, source, value, linear, *turns, _, others, scale = make(rng, shape)
    key = source @ linear[0].T + linear[1]
    got = turned_memory_read(q[:, :, None], key[:, :, None], value[:, :, None], *turns, others, scale)[:, :, 0]
    np.testing.assert_allclose(got, formula(q, source, value, linear, *turns, None, others, scale), rtol=0, atol=3e-6)


def test_large_logits(rng, read):
    """Peaks move from position to position, up and down, by more than a float's exponent."""
    for slope in (1, -1):
        arguments = make(rng, SHAPES["tables"])
        arguments[1][:, :, 0] += np.linspace(-100, 100, arguments[1].shape[1], dtype=np.float32) * slope
        np.testing.assert_allclose(read(*arguments[:-1], 2.0), formula(*arguments[:-1], 2.0), rtol=0, atol=2e-4)


def test_positions_that_are_not_axial(rng, read):
    """One pair of one place is turned as that of another place."""
    for place, pair in ((5, 0), (15, 30), (4, 32), (14, 62)):
        arguments = make(rng, SHAPES["tables"])
        for table in arguments[6:8]:
            table[place, pair : pair + 2] = table[9, 4:6]
        np.testing.assert_allclose(read(*arguments), formula(*arguments), rtol=0, atol=3e-6)


def test_threads(rng):
    for shape in (SHAPES["tables"], SHAPES["one frame"]):
        arguments, found = make(rng, shape), []
        try:
            for threads in (1, 2, 5):
                fp.set_num_threads(threads)
                found.append(projected_memory_read(*arguments))
        finally:
            fp.set_num_threads(None)
        np.testing.assert_array_equal(found, [found[0]] * 3)


@pytest.mark.parametrize("shape", ["tables", "one frame", "many others"])
def test_precision_follows_torch(rng, engine, precision, shape):
    arguments = make(rng, SHAPES[shape])
    want, errors = formula(*arguments), {}
    q, source, value, linear, *turns, _, others, scale = arguments
    key = (source @ linear[0].T + linear[1])[:, :, None]
    for name in ("highest", "high", "medium"):
        precision(name)
        read = turned_memory_read(q[:, :, None], key, value[:, :, None], *turns, others, scale)[:, :, 0]
        errors[name] = [float(abs(x - want).max()) for x in (projected_memory_read(*arguments), read)]
    assert max(errors["highest"]) < 3e-6
    assert max(errors["high"]) < 2e-4
    assert all(3e-4 < error < 5e-2 for error in errors["medium"])


def test_through_torch(rng):
    q, source, value, linear, *turns, size, others, scale = make(rng, SHAPES["tables"])
    tensors = [torch.from_numpy(x) for x in (q, source, value)]
    linear, turns = [torch.from_numpy(x) for x in linear], [torch.from_numpy(x) for x in turns]
    given = (*tensors, linear, *turns, size, others, scale)
    torch.library.opcheck(torch.ops.fastprompt.projected_memory_read.default, given, test_utils="test_faketensor")
    heads = [x[:, :, None].clone() for x in (tensors[0], tensors[1] @ linear[0].T, tensors[2])]
    torch.library.opcheck(torch.ops.fastprompt.turned_memory_read.default, (*heads, *turns, others, scale))
    got = projected_memory_read(tensors[0].expand(2, -1, -1), *given[1:])
    assert torch.equal(got, projected_memory_read(*given))
    for wrong in (
        (tensors[0][:1], *given[1:]),
        (*given[:5], turns[1][1:], *given[6:]),
        (*given[:-3], [4, 5], others, scale),
        (*given[:-2], others + 1, scale),
        (*given[:-2], -1, scale),
        (*given[:-2], 10**6, scale),
    ):
        with pytest.raises(ValueError, match=r"projected_memory_read: |unturned"):
            projected_memory_read.torch(*wrong)


def test_gradient_of_turned(rng):
    q, source, value, linear, *turns, _, others, scale = make(rng, SHAPES["one query"])
    key = source @ linear[0].T + linear[1]
    given = [torch.from_numpy(x).double() for x in (q[:, :, None], key[:, :, None], value[:, :, None], *turns)]
    given = [x[..., :6].clone().requires_grad_() for x in given]
    assert torch.autograd.gradcheck(lambda *x: torch.ops.fastprompt.turned_memory_read(*x, others, scale), given)


# ---------------------------------------------------------------- fields


def f(*shape):
    return np.ones(shape, np.float32)


RIGHT = {"query": f(2, 3, 32), "source": f(2, 13, 16), "value": f(2, 13, 16), "weight": f(32, 16), "bias": f(32)}
RIGHT |= {"cos": f(3, 32), "sin": f(3, 32), "key_cos": f(6, 32), "key_sin": f(6, 32), "size": (2, 3), "unturned": 1}
RIGHT |= {"scale": 1.0, "out": f(2, 3, 16), "precision": 0, "threads": 1}
WRONG = [
    ("query", f(2, 3, 16), ValueError, "weight must have shape"),
    ("query", f(2, 4, 32), ValueError, "cos must have shape"),
    ("source", f(2, 12, 16), ValueError, "value must have shape"),
    ("source", f(2, 13, 16).astype(np.float64), TypeError, "source must hold float32"),
    ("value", f(2, 13, 32), ValueError, "value must have shape"),
    ("weight", f(16, 32), ValueError, "weight must have shape"),
    ("bias", f(16), ValueError, "bias must have shape"),
    ("sin", f(3, 16), ValueError, "sin must have shape"),
    ("key_cos", f(6, 16), ValueError, "key_cos must have shape"),
    ("key_sin", f(5, 32), ValueError, "key_sin must have shape"),
    ("size", (3, 3), ValueError, "size must be rows and columns of the positions"),
    ("size", (0, 3), ValueError, "size must be rows and columns of the positions"),
    ("size", (2**40, 2**40), ValueError, "size must be rows and columns of the positions"),
    ("size", (-2, -3), ValueError, "size must be rows and columns of the positions"),
    ("size", (6,), ValueError, "size must hold 2 numbers"),
    ("unturned", 2, ValueError, "unturned must leave a multiple of the rows of key_cos"),
    ("unturned", -5, ValueError, "unturned must be between 0 and the number of keys"),
    ("unturned", 14, ValueError, "unturned must be between 0 and the number of keys"),
    ("out", f(2, 3, 32), ValueError, "out must have shape"),
    ("precision", 3, ValueError, "precision must be 0, 1 or 2"),
]


@pytest.mark.parametrize(("name", "value", "error", "match"), WRONG)
def test_wrong_fields(name, value, error, match):
    with pytest.raises(error, match=f"^projected_memory_read: {match}"):
        _C.projected_memory_read(**RIGHT | {name: value})


def test_missing_fields_and_widths():
    _C.projected_memory_read(**RIGHT)
    for name in RIGHT:
        with pytest.raises(TypeError, match=f"projected_memory_read: {name} is missing"):
            _C.projected_memory_read(**{k: x for k, x in RIGHT.items() if k != name})
    narrow = {"query": f(2, 3, 16), "weight": f(16, 16), "bias": f(16), "cos": f(3, 16), "sin": f(3, 16)}
    narrow |= {"key_cos": f(6, 16), "key_sin": f(6, 16)}
    with pytest.raises(ValueError, match="query must have a width that is a multiple of 32"):
        _C.projected_memory_read(**RIGHT | narrow)
    thin = {"source": f(2, 13, 8), "value": f(2, 13, 8), "weight": f(32, 8), "out": f(2, 3, 8)}
    with pytest.raises(ValueError, match="source must have a width that is a multiple of 16"):
        _C.projected_memory_read(**RIGHT | thin)
    nothing = {"source": f(2, 0, 16), "value": f(2, 0, 16), "unturned": 0}
    with pytest.raises(ValueError, match="source must have at least one key"):
        _C.projected_memory_read(**RIGHT | nothing)
    none = {"key_cos": f(0, 32), "key_sin": f(0, 32), "size": (0, 0)}
    with pytest.raises(ValueError, match="unturned must leave a multiple"):
        _C.projected_memory_read(**RIGHT | none)
    _C.projected_memory_read(**RIGHT | none | {"unturned": 13})


def test_tables_of_a_read():
    right = {"query": f(2, 3, 1, 6), "key": f(2, 7, 1, 6), "value": f(2, 7, 1, 4), "out": f(2, 3, 1, 4), "scale": 1.0}
    right |= {"cos": f(3, 6), "sin": f(3, 6), "key_cos": f(2, 6), "key_sin": f(2, 6), "unturned": 1, "precision": 0}
    right |= {"threads": 1}
    _C.memory_read(**right)
    for name in ("cos", "sin", "key_cos", "key_sin"):
        with pytest.raises(ValueError, match="memory_read: cos must be given with sin, key_cos and key_sin"):
            _C.memory_read(**right | {name: None})
    for unturned in (2, -1, 8):
        with pytest.raises(ValueError, match="memory_read: unturned must"):
            _C.memory_read(**right | {"unturned": unturned})
    odd = {"query": f(2, 3, 1, 5), "key": f(2, 7, 1, 5)} | {k: x[:, :5].copy() for k, x in right.items() if k[-3:] in ("cos", "sin")}  # fmt: skip
    with pytest.raises(ValueError, match="memory_read: query must have an even width where it is turned"):
        _C.memory_read(**right | odd)
