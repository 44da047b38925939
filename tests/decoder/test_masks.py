"""The mask head: kernel against the written-out formula, transformers' modules and their gradient."""

import numpy as np
import pytest

import fastprompt as fp
from fastprompt import MaskHeadWeights
from fastprompt.reference import decoder as reference

# batch, images of the detail, channels, middle, depth, masks, height, width
SHAPES = {
    "sam": (1, 1, 256, 64, 32, 3, 9, 64),
    "ragged": (4, 2, 48, 24, 20, 1, 3, 70),
    "odd": (2, 1, 31, 7, 5, 9, 2, 3),
}


def make(rng, shape):
    batch, images, channels, middle, depth, masks, height, width = shape

    def normal(*s, scale=1.0):
        return (rng.standard_normal(s) * scale).astype(np.float32)

    w = MaskHeadWeights(
        normal(channels, middle, 2, 2, scale=channels**-0.5),
        normal(middle),
        normal(middle, scale=0.2) + 1,
        normal(middle),
        normal(middle, depth, 2, 2, scale=middle**-0.5),
        normal(depth),
    )
    detail = normal(images, middle, 2 * height, 2 * width), normal(images, depth, 4 * height, 4 * width)
    return normal(batch, channels, height, width), normal(batch, masks, depth), w, detail


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_the_formula(rng, isa, shape):
    image, vectors, w, detail = make(rng, shape)
    double = [x.astype(np.float64) for x in (image, vectors)]
    weights = MaskHeadWeights(*(x.astype(np.float64) for x in w))
    for d in (None, detail):
        got = fp.mask_head(image, vectors, w, detail=d, eps=1e-5)
        want = reference.mask_head(*double, weights, 1e-5, d)
        assert got.dtype == np.float32
        assert np.abs(got - want).max() < 1e-5 * max(1, np.abs(want).max())


def test_threads_change_no_bit(rng):
    image, vectors, w, _ = make(rng, SHAPES["ragged"])
    expected = fp.mask_head(image, vectors, w)
    try:
        for threads in (1, 2, 5):
            fp.set_num_threads(threads)
            np.testing.assert_array_equal(fp.mask_head(np.asfortranarray(image), vectors, w), expected)
    finally:
        fp.set_num_threads(None)


def test_empty(rng):
    image, vectors, w, _ = make(rng, SHAPES["odd"])
    assert fp.mask_head(image[:0], vectors[:0], w).shape == (0, 9, 8, 12)
    assert fp.mask_head(image, vectors[:, :0], w).shape == (2, 0, 8, 12)


torch = pytest.importorskip("torch")


def test_equals_torch_modules(rng):
    image, vectors, w, detail = (None if x is None else x for x in make(rng, SHAPES["sam"]))
    t = torch.from_numpy
    conv1, conv2 = torch.nn.ConvTranspose2d(256, 64, 2, 2), torch.nn.ConvTranspose2d(64, 32, 2, 2)
    norm = torch.nn.LayerNorm(64, eps=1e-6)
    with torch.no_grad():
        for module, weight, bias in ((conv1, w[0], w[1]), (norm, w[2], w[3]), (conv2, w[4], w[5])):
            module.weight.copy_(t(weight))
            module.bias.copy_(t(bias))
        x = norm((conv1(t(image)) + t(detail[0])).movedim(1, -1)).movedim(-1, 1)
        x = torch.nn.functional.gelu(conv2(torch.nn.functional.gelu(x)) + t(detail[1]))
        want = (t(vectors) @ x.flatten(2)).reshape(1, 3, 36, 256)
        weights = MaskHeadWeights(conv1.weight, conv1.bias, norm.weight, norm.bias, conv2.weight, conv2.bias)
        got = fp.mask_head(t(image), t(vectors), weights, detail=tuple(map(t, detail)))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=2e-5)
    half = fp.mask_head(t(image).bfloat16(), t(vectors), weights)
    assert half.dtype == torch.bfloat16


def test_gradient(rng):
    image, vectors, w, detail = make(rng, (2, 1, 16, 6, 4, 2, 2, 3))
    leaves = [torch.from_numpy(x).requires_grad_() for x in (image, vectors, *w, *detail)]
    out = fp.mask_head(leaves[0], leaves[1], MaskHeadWeights(*leaves[2:8]), detail=tuple(leaves[8:]))
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad((out * weight).sum(), leaves)
    for leaf, grad in zip(leaves, found, strict=True):  # along one direction, by differences in float64
        step = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(1))
        inputs = [x.detach().double().numpy() for x in leaves]
        sides = []
        for sign in (1, -1):
            moved = [
                x + sign * 1e-5 * step.double().numpy() if y is leaf else x for x, y in zip(inputs, leaves, strict=True)
            ]
            value = reference.mask_head(moved[0], moved[1], MaskHeadWeights(*moved[2:8]), 1e-6, moved[8:])
            sides.append(float((value * weight.double().numpy()).sum()))
        assert float((grad * step).sum()) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-3, abs=1e-3)


def test_compile_and_opcheck(rng):
    image, vectors, w, detail = make(rng, (2, 1, 16, 6, 4, 2, 2, 3))
    tensors = [torch.from_numpy(x) for x in (image, vectors, *w, *detail)]

    def call(image, vectors):
        return fp.mask_head(image, vectors, MaskHeadWeights(*tensors[2:8])) * 2

    expected = call(*tensors[:2])
    torch.testing.assert_close(torch.compile(call, fullgraph=True, backend="aot_eager")(*tensors[:2]), expected)
    tensors[0].requires_grad_()
    torch.library.opcheck(torch.ops.fastprompt.mask_head.default, (*tensors, 1e-6))


IMAGE, VECTORS, W = (
    np.zeros((2, 16, 2, 3)),
    np.zeros((2, 1, 4)),
    MaskHeadWeights(*(np.zeros(s) for s in ((16, 8, 2, 2), 8, 8, 8, (8, 4, 2, 2), 4))),
)
WRONG = {
    "axes": ({"image": IMAGE[0]}, ValueError, r"image must be \(B, 16, H, W\)"),
    "channels": ({"image": IMAGE[:, :8]}, ValueError, r"image must be \(B, 16, H, W\), got \(2, 8, 2, 3\)"),
    "vectors": ({"vectors": VECTORS[..., :3]}, ValueError, r"vectors must be \(2, K, 4\)"),
    "vectors_batch": ({"vectors": VECTORS[:1]}, ValueError, r"vectors must be \(2, K, 4\)"),
    "weights": ({"weights": [1]}, TypeError, "weights must be MaskHeadWeights, got list"),
    "kernel": (
        {"weights": W._replace(conv1_weight=np.zeros((16, 8, 3, 3)))},
        ValueError,
        "weights.conv1_weight must have",
    ),
    "norm": ({"weights": W._replace(norm_bias=np.zeros(4))}, ValueError, r"weights.norm_bias must have shape \(8,\)"),
    "detail": ({"detail": (np.zeros((1, 8, 4, 6)),)}, ValueError, "detail must be two feature maps, got 1"),
    "detail_size": ({"detail": (np.zeros((1, 8, 4, 6)), np.zeros((1, 4, 8, 8)))}, ValueError, r"detail\[1\] must be"),
    "detail_images": ({"detail": (np.zeros((1, 8, 4, 6)), np.zeros((2, 4, 8, 12)))}, ValueError, "equally many images"),
    "detail_lists": ({"detail": ([1], [2])}, ValueError, r"detail\[0\] must be \(B', 8, 4, 6\), got \(1,\)"),
    "detail_number": ({"detail": 3}, ValueError, "detail must be two feature maps, got int"),
    "detail_mixed": (
        {"detail": (torch.zeros(1, 8, 4, 6), torch.zeros(1, 4, 8, 12))},
        TypeError,
        r"image and detail\[0\] must both be",
    ),
    "eps": ({"eps": "small"}, TypeError, "eps must be a number, got 'small'"),
    "no_channels": (
        {"image": IMAGE[:, :0], "weights": W._replace(conv1_weight=np.zeros((0, 8, 2, 2)))},
        ValueError,
        r"weights must have channels, got conv1_weight of shape \(0, 8, 2, 2\)",
    ),
    "mixed": ({"vectors": torch.zeros(2, 1, 4)}, TypeError, "both be NumPy arrays or both torch tensors"),
}


@pytest.mark.parametrize("change", WRONG)
def test_wrong_calls(change):
    changes, error, match = WRONG[change]
    call = {"image": IMAGE, "vectors": VECTORS, "weights": W} | changes
    with pytest.raises(error, match=match):
        fp.mask_head(**call)
