"""memory_attention: softmax in float64, torch's own attention for the gradient, the rotation of transformers' SAM 2."""

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")

# batch, queries, keys, heads, width, width of a value
SHAPES = {
    "sam2": (1, 64, 4 * 64 + 5, 1, 64, 64),
    "cmn": (2, 35, 300, 1, 16, 80),
    "ragged": (2, 13, 7, 3, 20, 9),
    "blocks": (1, 130, 515, 2, 32, 32),
    "one": (1, 1, 1, 1, 1, 1),
}


def make(rng, shape):
    batch, queries, keys, heads, width, depth = shape
    sizes = ((batch, queries, heads, width), (batch, keys, heads, width), (batch, keys, heads, depth))
    return tuple(rng.standard_normal(s, np.float32) for s in sizes)


def formula(q, k, v, scale=None):
    q, k, v = (torch.as_tensor(x).transpose(1, 2).double() for x in (q, k, v))
    weight = (q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scale is None else scale)).softmax(-1)
    return (weight @ v).transpose(1, 2).flatten(2)


@pytest.fixture(params=["numpy", "torch", "reference", "torch reference"])
def read(request, isa):
    def run(*arrays, rotation=None, **options):
        with fp.backend("reference" if "reference" in request.param else "auto"):
            if "torch" not in request.param:
                return fp.memory_attention(*arrays, rotation=rotation, **options)
            pair = rotation and tuple(torch.from_numpy(x) for x in rotation)
            return fp.memory_attention(*(torch.from_numpy(x) for x in arrays), rotation=pair, **options).numpy()

    return run


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_read(rng, read, shape):
    q, k, v = make(rng, shape)
    for scale in (None, 1.0):  # CMN's read has no scale
        got = read(q, k, v, scale=scale)
        assert got.shape == (shape[0], shape[1], shape[3] * shape[5])
        np.testing.assert_allclose(got, formula(q, k, v, scale), rtol=0, atol=1e-5)
    np.testing.assert_allclose(read(q[0], k[0], v[0], scale=1.0), got[0], rtol=0, atol=2e-6)


def test_large_logits(rng, read):
    """Peaks move from block to block, in both directions, by more than a float's exponent."""
    q, k, v = make(rng, (1, 20, 700, 1, 32, 16))
    for slope in (1, -1):
        k[0, :, 0] = (np.linspace(-40, 40, 700) * slope)[:, None]
        np.testing.assert_allclose(read(q, k, v, scale=1.0), formula(q, k, v, 1.0), rtol=0, atol=1e-4)


def tables(height, width, dim, theta=10000.0):
    """SAM 2's: the first half of the pairs turns with the column, the second with the row."""
    frequency = theta ** -(np.arange(0, dim, 4)[: dim // 4] / dim)
    y, x = np.divmod(np.arange(height * width), width)
    angle = np.concatenate([x[:, None] * frequency, y[:, None] * frequency], 1).repeat(2, 1)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rotated(x, cos, sin):
    """As complex numbers."""
    pairs = x.astype(np.float64)[..., 0::2] + 1j * x[..., 1::2]
    turned = pairs * (cos[:, None, 0::2] + 1j * sin[:, None, 0::2])
    return np.stack([turned.real, turned.imag], -1).reshape(x.shape)


@pytest.mark.parametrize("pointers", [0, 7])
def test_rotation(rng, read, pointers):
    """The rows of a frame again for every frame; the last keys are not turned, and neither are values."""
    q, k, v = make(rng, (2, 12, 3 * 12 + pointers, 2, 16, 24))
    cos, sin = tables(3, 4, 16)
    frames = [rotated(k[:, n : n + 12], cos, sin) for n in (0, 12, 24)]
    want = formula(rotated(q, cos, sin), np.concatenate([*frames, k[:, 36:]], 1), v)
    np.testing.assert_allclose(read(q, k, v, rotation=(cos, sin), unrotated=pointers), want, rtol=0, atol=2e-6)


def test_only_pointers(rng, read):
    q, k, v = make(rng, (1, 12, 5, 1, 16, 16))
    cos, sin = tables(3, 4, 16)
    want = formula(rotated(q, cos, sin), k, v)
    np.testing.assert_allclose(read(q, k, v, rotation=(cos, sin), unrotated=5), want, rtol=0, atol=2e-6)


def test_the_attention_of_transformers(rng):
    host = pytest.importorskip("transformers.models.sam2_video.modeling_sam2_video")
    q, k, v = (torch.from_numpy(x) for x in make(rng, (1, 16, 2 * 16 + 3, 1, 64, 64)))
    cos, sin = (torch.from_numpy(x) for x in tables(4, 4, 64))
    turned = host.apply_rotary_pos_emb_2d(
        q.transpose(1, 2), k.transpose(1, 2), cos[None, None], sin[None, None], 3, repeat_freqs_k=True
    )
    want = torch.nn.functional.scaled_dot_product_attention(*turned, v.transpose(1, 2)).transpose(1, 2).flatten(2)
    got = fp.memory_attention(q, k, v, rotation=(cos, sin), unrotated=3)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_views_dtypes_and_threads(rng, isa):
    q, k, v = make(rng, SHAPES["blocks"])
    want = fp.memory_attention(q, k, v)
    wide = np.full((1, 600, 4, 40), np.nan, np.float32)
    wide[:, 3:518, ::2, 5:37] = k
    np.testing.assert_array_equal(fp.memory_attention(q, wide[:, 3:518, ::2, 5:37], v), want)
    half = fp.memory_attention(*(torch.from_numpy(x).bfloat16() for x in (q, k, v)))
    assert half.dtype == torch.bfloat16
    np.testing.assert_allclose(half.float(), want, atol=2e-2)
    found = []
    try:
        for threads in (1, 2, 5):
            fp.set_num_threads(threads)
            found.append(fp.memory_attention(q, k, v))
    finally:
        fp.set_num_threads(None)
    np.testing.assert_array_equal(found, [want] * 3)
    assert fp.memory_attention(q[:, :0], k, v).shape == (1, 0, 64)
    assert fp.memory_attention(q[:0], k[:0], v[:0]).shape == (0, 130, 64)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_gradient(rng, backend):
    arrays = [torch.from_numpy(x).requires_grad_() for x in make(rng, (2, 300, 600, 2, 16, 20))]
    cos, sin = (torch.from_numpy(x).requires_grad_() for x in tables(15, 20, 16))
    weight = torch.from_numpy(rng.standard_normal((2, 300, 40), np.float32))
    with fp.backend(backend):
        out = fp.memory_attention(*arrays, rotation=(cos, sin))
        found = torch.autograd.grad((out * weight).sum(), (*arrays, cos, sin))
    wide = [x.detach().double().requires_grad_() for x in (*arrays, cos, sin)]
    q, k, v, c, s = wide

    def turn(x, frames):
        swapped = torch.stack([-x[..., 1::2], x[..., 0::2]], -1).flatten(-2)
        return x * c.repeat(frames, 1)[:, None] + swapped * s.repeat(frames, 1)[:, None]

    want = torch.autograd.grad((formula(turn(q, 1), turn(k, 2), v) * weight).sum(), wide)
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)


def test_gradcheck_opcheck_and_compile(rng):
    q, k, v = (torch.from_numpy(x).requires_grad_() for x in make(rng, (1, 4, 5, 2, 16, 16)))
    torch.library.opcheck(torch.ops.fastprompt.memory_read.default, (q, k, v, 0.25))
    with fp.backend("reference"):  # which takes any dtype and width
        wide = [x.detach().double()[:, :4, :, :2].requires_grad_() for x in (q, k, v)]
        assert torch.autograd.gradcheck(lambda *x: torch.ops.fastprompt.memory_read(*x, 0.7)[0], wide)

    def model(q, k, v):
        return fp.memory_attention(q.sin(), k, v).cos()

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q, k, v), model(q, k, v))
    grads = [torch.autograd.grad(f(q, k, v).sum(), q)[0] for f in (model, compiled)]
    torch.testing.assert_close(*grads)


Q, K = np.zeros((4, 2, 8)), np.zeros((12, 2, 8))
R = np.zeros((4, 8))
WRONG = {
    "q": ({"q": Q[0]}, ValueError, r"q must be \(\[B,\] N, heads, width\), got \(2, 8\)"),
    "k": ({"k": K[:, :1]}, ValueError, r"k must be \(M, 2, 8\), got \(12, 1, 8\)"),
    "no_keys": ({"k": K[:0], "v": K[:0]}, ValueError, "k must have at least one key"),
    "v": ({"v": K[:3]}, ValueError, r"v must be \(12, 2, width\), got \(3, 2, 8\)"),
    "kinds": ({"v": torch.zeros(12, 2, 8)}, TypeError, "both be NumPy arrays or both torch tensors"),
    "scale": ({"scale": "1"}, TypeError, "scale must be a number, got '1'"),
    "infinite": ({"scale": float("nan")}, ValueError, "scale must be finite, got nan"),
    "rotation": ({"rotation": R}, TypeError, "rotation must be a pair of cosines and sines, got ndarray"),
    "rotation_shape": (
        {"rotation": (R, R[:3])},
        ValueError,
        r"rotation must hold two arrays of shape \(4, 8\), .* got \(3, 8\)",
    ),
    "frames": (
        {"rotation": (R, R), "unrotated": 3},
        ValueError,
        "k must have a multiple of the 4 queries and 3 unrotated",
    ),
    "unrotated": (
        {"rotation": (R, R), "unrotated": 13},
        ValueError,
        "unrotated must be an integer from 0 to .* 12, got 13",
    ),
    "alone": ({"unrotated": 4}, ValueError, "unrotated needs rotation"),
}


@pytest.mark.parametrize("change", WRONG)
def test_wrong_calls(change):
    changes, error, match = WRONG[change]
    with pytest.raises(error, match=match):
        fp.memory_attention(**({"q": Q, "k": K, "v": K} | changes))
