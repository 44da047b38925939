"""Masks of CUDA tensors. Without a GPU: that the operators take the kernels, and the formulas where they should."""

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch", reason="torch is not installed")

from fastprompt.ops._operator import OPERATORS  # noqa: E402
from fastprompt.ops.decoder import formulas as decoder  # noqa: E402
from fastprompt.ops.masks import formulas as masks  # noqa: E402
from fastprompt.ops.memory import operators as _torch_memory  # noqa: E402
from fastprompt.ops.pooling import operators as _torch_pooling  # noqa: E402

HAS_GPU = torch.cuda.is_available()
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="there is no CUDA device")]
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}  # of the largest value


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def head_arguments(batch, channels, middle, depth, masks, height, width, images=0):
    weights = fp.MaskHeadWeights(
        normal(1, channels, middle, 2, 2) / channels**0.5, normal(2, middle), normal(3, middle), normal(4, middle),
        normal(5, middle, depth, 2, 2) / middle**0.5, normal(6, depth),
    )  # fmt: skip
    detail = normal(7, images, middle, 2 * height, 2 * width), normal(8, images, depth, 4 * height, 4 * width)
    image, vectors = normal(9, batch, channels, height, width), normal(10, batch, masks, depth)
    return image, vectors, weights, detail if images else None


def close(got, expected, dtype=torch.float32):
    assert got.shape == expected.shape
    error = (got.double().cpu() - expected.double().cpu()).abs().max()
    assert error <= TOLERANCE[dtype] * max(1.0, float(expected.abs().max()))


def mlp_arguments(prompts, tokens, channels, hidden, outputs):
    weights = []
    for k, last in enumerate(outputs):
        sizes = (channels, *hidden, last)
        for n in range(len(sizes) - 1):
            weights += [normal(100 * k + n, sizes[n + 1], sizes[n]) / sizes[n] ** 0.5, normal(k + n, sizes[n + 1])]
    return normal(0, prompts, tokens, channels), [k % tokens for k in range(len(outputs))], weights, len(hidden) + 1


# ---------------------------------------------------------------- without a GPU


@pytest.fixture
def on_ptx(monkeypatch):
    """The kernels' PTX, executed on CPU tensors; how many were launched."""
    pytest.importorskip("triton", reason="triton is not installed")
    from fastprompt.kernels import decoder_head as masks
    from fastprompt.kernels import decoder_mlps as token_mlps
    from fastprompt.kernels import masks as masks_resize
    from ptx.build import OnPtx

    launched = []
    for module in (masks, masks_resize, token_mlps):
        for name in [n for n in vars(module) if n.endswith("_kernel")]:
            kernel = OnPtx(getattr(module, name), 80)
            run = lambda *args, kernel=kernel, name=name: (launched.append(name), kernel.run(*args))  # noqa: E731
            monkeypatch.setattr(module, name, type("Kernel", (), {"__getitem__": lambda _, grid, run=run: (
                lambda *args, **constants: run(grid, args, constants))})())  # fmt: skip
    return launched


def test_operators_take_the_kernels(on_ptx):
    image, vectors, w, detail = head_arguments(2, 32, 16, 8, 2, 3, 5, images=1)
    call = (image, vectors, *w, *detail, 1e-6)
    with fp.backend("triton") if HAS_GPU else fp.backend("auto"):
        close(OPERATORS["mask_head"].on_gpu(*call), decoder.mask_head(*call))
        tokens = image.bfloat16().flatten(2).transpose(1, 2).contiguous()  # (B, N, C) as a view, not copied
        call = (tokens.transpose(1, 2).unflatten(2, (3, 5)), *call[1:])
        got = OPERATORS["mask_head"].on_gpu(*call)
        assert got.dtype == torch.bfloat16
        close(got, decoder.mask_head(*call), torch.bfloat16)
        mlps = mlp_arguments(2, 4, 32, (16, 16), (8, 4))
        for got, expected in zip(OPERATORS["token_mlps"].on_gpu(*mlps), decoder.token_mlps(*mlps), strict=True):
            close(got, expected)
        call = (normal(0, 2, 9, 12), [20, 33], [36, 48], [36, 40], 0.1, "float32", 1.0)
        for got, expected in zip(OPERATORS["resize_masks"].on_gpu(*call), fp.resize_masks(
            call[0], (20, 33), frame=(36, 48), crop=(36, 40), threshold=0.1, output="float32"), strict=True):  # fmt: skip
            close(got, expected)
    assert on_ptx == ["mask_head_kernel"] * 2 + ["layer_kernel", "last_kernel", "resize_kernel", "facts_kernel"]


def test_operators_leave_to_the_formula(on_ptx):
    """Sizes that no tile holds, MLPs of different hidden widths or one layer, and the backend "reference"."""
    wide = head_arguments(1, 16, 160, 4, 1, 2, 2)
    call = (*wide[:2], *wide[2], None, None, 1e-6)
    close(OPERATORS["mask_head"].on_gpu(*call), decoder.mask_head(*call))
    tokens, rows, weights, _ = mlp_arguments(2, 2, 16, (16,), (3, 3))
    for other in ((tokens, rows[:1], weights[:2], 1), (tokens, rows, [*weights[:4], normal(0, 32, 16), normal(0, 32), normal(0, 3, 32), normal(0, 3)], 2)):  # fmt: skip
        for got, expected in zip(
            OPERATORS["token_mlps"].on_gpu(*other), torch.ops.fastprompt.token_mlps(*other), strict=True
        ):
            close(got, expected)
    image, vectors, w, _ = head_arguments(1, 16, 8, 4, 1, 2, 2)
    with fp.backend("reference"):
        close(OPERATORS["mask_head"].on_gpu(image, vectors, *w, None, None, 1e-6), fp.mask_head(image, vectors, w))
        OPERATORS["token_mlps"].on_gpu(tokens, rows, weights, 2)
        OPERATORS["resize_masks"].on_gpu(normal(0, 1, 4, 4), [8, 8], [], [], 0.0, "bool", 1.0)
    assert on_ptx == []


@pytest.mark.parametrize("output", ["bool", "uint8", "packed", "float32"])
@pytest.mark.parametrize("threshold", [0.0, 50.0])
def test_resize_formula(output, threshold):
    call = ([21, 35], [40, 64], [40, 50], threshold, output, 0.5)
    got = masks.resize_masks(normal(1, 3, 10, 16), *call)
    options = {"frame": (40, 64), "crop": (40, 50), "threshold": threshold, "output": output, "stability_offset": 0.5}
    for a, b in zip(got, fp.resize_masks(normal(1, 3, 10, 16), (21, 35), **options), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=3e-6, equal_nan=True)


def test_formulas_of_other_operators():
    """film and the gradient of memory_read have no kernel for a GPU and take their formulas."""
    x, gamma, beta = normal(1, 1, 5, 7), normal(2, 3, 5), normal(3, 3, 5)
    close(OPERATORS["film"].on_gpu(x, gamma, beta, False), _torch_pooling.film(x, gamma, beta, False))
    q, k, v = normal(1, 2, 9, 2, 16), normal(2, 2, 7, 2, 16), normal(3, 2, 7, 2, 32)
    expected = _torch_memory.memory_read(q, k, v, 0.3)
    grad = normal(4, *expected[0].shape)
    saved = (grad, q, k, v, *expected, 0.3)
    for got, wanted in zip(OPERATORS["memory_read_backward"].on_gpu(*saved), torch.ops.fastprompt.memory_read_backward(*saved), strict=True):  # fmt: skip
        close(got, wanted)


# ---------------------------------------------------------------- with one

cuda = pytest.mark.parametrize("device", [pytest.param("cuda", marks=needs_gpu)])
HEADS = {
    "sam": (1, 256, 64, 32, 3, 64, 64, 0),
    "prompts": (16, 256, 64, 32, 1, 64, 64, 0),
    "ragged, detail": (4, 48, 24, 20, 5, 3, 71, 2),
    "formula": (1, 16, 160, 4, 1, 2, 2, 0),
}


def on(device, x, dtype=None):
    return type(x)(*(on(device, y, dtype) for y in x)) if hasattr(x, "_fields") else x.to(device, dtype)


@cuda
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", HEADS.values(), ids=HEADS)
def test_mask_head(device, dtype, case):
    image, vectors, w, detail = head_arguments(*case)
    given = [on(device, x, dtype) for x in (image, vectors, w)]
    pair = None if detail is None else tuple(on(device, x, dtype) for x in detail)
    expected = fp.mask_head(*(on("cpu", x, torch.float32) for x in given), detail=None if pair is None else tuple(x.float().cpu() for x in pair))  # fmt: skip
    got = fp.mask_head(*given, detail=pair)
    assert got.dtype == dtype
    close(got, expected, dtype)
    tokens = given[0].flatten(2).transpose(1, 2).contiguous().transpose(1, 2).unflatten(2, image.shape[2:])
    close(fp.mask_head(tokens, *given[1:], detail=pair), expected, dtype)


@cuda
@pytest.mark.parametrize(("precision", "tolerance"), [("highest", 2e-5), ("high", 5e-3)])
def test_precision(device, precision, tolerance):
    image, vectors, w, _ = head_arguments(*HEADS["sam"])
    expected, before = fp.mask_head(image, vectors, w), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        got = fp.mask_head(*(on(device, x) for x in (image, vectors, w))).cpu()
    finally:
        torch.set_float32_matmul_precision(before)
    assert float((got - expected).abs().max() / expected.abs().max()) <= tolerance


@cuda
def test_gradient(device, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # of the formula's convolutions
    image, vectors, w, detail = head_arguments(2, 32, 16, 8, 2, 4, 5, images=1)
    grads = []
    for where in ("cpu", device):
        leaves = [x.to(where).requires_grad_() for x in (image, vectors, *w, *detail)]
        out = fp.mask_head(*leaves[:2], fp.MaskHeadWeights(*leaves[2:8]), detail=tuple(leaves[8:]))
        grads.append(torch.autograd.grad((out * normal(3, *out.shape).to(where)).sum(), leaves))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-3, atol=1e-3)


@cuda
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("prompts", [1, 40])
def test_token_mlps(device, dtype, prompts):
    tokens, rows, weights, layers = mlp_arguments(prompts, 7, 256, (256, 256), (32, 32, 32, 32, 4))
    tokens, weights = tokens.to(device, dtype), [x.to(device, dtype) for x in weights]
    expected = decoder.token_mlps(tokens.double().float().cpu(), rows, [x.float().cpu() for x in weights], layers)
    first = torch.ops.fastprompt.token_mlps(tokens, rows, weights, layers)
    for got, wanted in zip(first, expected, strict=True):
        close(got, wanted, dtype)
    for _ in range(20):  # whichever program comes last, the same bits
        again = torch.ops.fastprompt.token_mlps(tokens, rows, weights, layers)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@cuda
@pytest.mark.parametrize("output", ["bool", "uint8", "packed", "float32"])
@pytest.mark.parametrize("case", [
    ((3, 256, 256), (1024, 1024), None, None), ((1, 256, 256), (480, 854), (1024, 1024), (576, 1024)),
    ((2, 3, 64, 96), (37, 1001), None, None), ((2, 100, 90), (13, 7), (40, 40), (33, 40)),
])  # fmt: skip
def test_resize_masks(device, output, case):
    shape, size, frame, crop = case
    logits = normal(1, *shape)
    options = {"frame": frame, "crop": crop, "output": output, "threshold": 0.1}
    got = fp.resize_masks(logits.to(device), size, **options)
    full = fp.resize_masks(logits.to(device), size, **(options | {"output": "float32"})).masks.cpu()
    close(full, fp.resize_masks(logits, size, **(options | {"output": "float32"})).masks)
    inside = full > 0.1
    assert torch.equal(got.area.cpu(), inside.flatten(-2).sum(-1))
    stability = (full > 1.1).flatten(-2).sum(-1).double() / (full > -0.9).flatten(-2).sum(-1).double()
    torch.testing.assert_close(got.stability.cpu(), stability.float(), rtol=0, atol=0)
    if output == "packed":
        assert np.array_equal(np.packbits(inside.numpy(), axis=-1, bitorder="little"), got.masks.cpu().numpy())
    else:
        assert torch.equal(got.masks.cpu(), full if output == "float32" else inside.to(got.masks.dtype))
    close(got.box, fp.resize_masks(logits, size, **options).box)  # noise: no pixel of the rim decides alone
    assert fp.resize_masks(logits[:0].to(device), size, **options).masks.shape[0] == 0


@cuda
def test_in_a_graph(device):
    image, vectors, w, _ = (x if x is None else on(device, x) for x in head_arguments(*HEADS["sam"]))
    call = lambda: fp.resize_masks(fp.mask_head(image, vectors, w), (480, 640)).masks  # noqa: E731
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        expected = call()  # compiles, and copies the tables of the resizing
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()
    out.zero_()
    graph.replay()
    assert torch.equal(out, expected)


@cuda
def test_run_lengths_and_other_operators(device):
    mask = normal(1, 2, 20, 30) > 0
    assert fp.mask_to_rle(mask.to(device)) == fp.mask_to_rle(mask)
    x, gamma, beta = normal(1, 1, 5, 7, 3), normal(2, 3, 5), normal(3, 3, 5)
    close(fp.film(*(v.to(device) for v in (x, gamma, beta))), fp.film(x, gamma, beta))
    q, k, v = normal(1, 2, 9, 2, 8), normal(2, 2, 7, 2, 8), normal(3, 2, 7, 2, 5)
    close(fp.memory_attention(*(y.to(device) for y in (q, k, v))), fp.memory_attention(q, k, v))
    w = fp.AttentionWeights(
        normal(4, 32, 64), None, normal(5, 32, 48), None, normal(6, 32, 48), None, normal(7, 64, 32), None
    )
    image, words, mask = normal(8, 2, 64, 6, 7), normal(9, 2, 5, 48), torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0]])
    for kind in ("boolean", "multiplicative"):
        for eps in (None, 1e-5):
            options = {"heads": 2, "mask_kind": kind, "query_norm": eps}
            expected = fp.pixel_word_attention(image, words, w, mask=mask, **options)
            given = fp.AttentionWeights(*(None if y is None else y.to(device) for y in w))
            got = fp.pixel_word_attention(image.to(device), words.to(device), given, mask=mask.to(device), **options)
            close(got, expected)
