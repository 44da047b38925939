"""Attention between prompt and image: the kernels against the written-out formula, transformers and finite differences."""

import itertools

import numpy as np
import pytest

import fastprompt as fp
from fastprompt import AttentionWeights
from fastprompt.reference import attention as reference

# images, prompts, tokens, channels, (height, width), heads, inner width
SHAPES = {
    "sam": (1, 1, 7, 256, (16, 16), 8, 128),
    "ragged pixels": (1, 2, 7, 64, (7, 13), 4, 64),
    "one pixel": (1, 1, 3, 32, (1, 1), 2, 32),
    "many tokens": (1, 1, 37, 64, (9, 11), 2, 32),
    "several images": (2, 6, 4, 32, (5, 9), 2, 32),
    "narrow heads": (1, 2, 5, 48, (6, 7), 6, 48),
    "one head": (1, 1, 9, 64, (8, 9), 1, 16),
}
FORMS = ["auto", "absorbed", "projected"]


def make(rng, shape, bias=True):
    images, prompts, tokens, channels, size, heads, inner = shape

    def normal(*s, scale=1.0):
        return (rng.standard_normal(s) * scale).astype(np.float32)

    sizes = [(inner, channels), (inner,)] * 3 + [(channels, inner), (channels,)]
    w = AttentionWeights(*(normal(*s, scale=s[-1] ** -0.5) if len(s) == 2 or bias else None for s in sizes))
    arrays = {
        "prompt": normal(prompts, tokens, channels),
        "image": normal(images, channels, *size),
        "prompt_position": normal(prompts, tokens, channels),
        "image_position": normal(1, channels, *size),
    }
    norm = (normal(channels, scale=0.2) + 1, normal(channels), 1e-6)
    return arrays, w, heads, norm


def close(got, want, tolerance=2e-5):
    assert got.shape == want.shape
    assert np.isfinite(got).all()
    assert np.abs(got - want).max() <= tolerance * max(1.0, np.abs(want).max())


def exact(name, arrays, w, heads, **options):
    """The reference in float64."""
    double = {k: None if x is None else x.astype(np.float64) for k, x in arrays.items()}
    weights = AttentionWeights(*(None if x is None else x.astype(np.float64) for x in w))
    scale = options.pop("scale", (len(w.query_weight) // heads) ** -0.5)
    prompt, image = double.pop("prompt"), double.pop("image")
    options = {"lengths": None, "prompt_position": None, "image_position": None} | double | options
    pair = (prompt, image) if name == "prompt_to_image" else (image, prompt)
    return getattr(reference, f"{name}_call")(*pair, weights, heads=heads, scale=scale, **options)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_prompt_to_image(rng, isa, shape, form):
    for bias in (True, False):
        arrays, w, heads, _ = make(rng, shape, bias)
        got = fp.prompt_to_image_attention(weights=w, heads=heads, form=form, **arrays)
        close(got, exact("prompt_to_image", arrays, w, heads, bias=None))
        del arrays["prompt_position"], arrays["image_position"]
        got = fp.prompt_to_image_attention(weights=w, heads=heads, form=form, scale=0.7, **arrays)
        close(got, exact("prompt_to_image", arrays, w, heads, bias=None, scale=0.7))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_image_to_prompt(rng, isa, shape, form):
    for bias, normed, residual in itertools.product((True, False), (True, False), (True, False)):
        arrays, w, heads, norm = make(rng, shape, bias)
        options = {"norm": norm if normed else None, "residual": residual}
        got = fp.image_to_prompt_attention(weights=w, heads=heads, form=form, **options, **arrays)
        close(got, exact("image_to_prompt", arrays, w, heads, **options))


@pytest.mark.parametrize("form", FORMS)
def test_hidden_tokens(rng, isa, form):
    arrays, w, heads, norm = make(rng, (1, 3, 6, 64, (9, 9), 2, 32))
    lengths = np.array([6, 1, 4])
    bias = rng.standard_normal((3, 6, 9, 9)).astype(np.float32)
    bias[rng.random(bias.shape) < 0.3] = -np.inf
    bias[1, 0] = bias[2, 3] = -np.inf  # a token that sees nothing
    got = fp.prompt_to_image_attention(weights=w, heads=heads, form=form, bias=bias, lengths=lengths, **arrays)
    close(got, exact("prompt_to_image", arrays, w, heads, bias=bias, lengths=lengths))
    assert (got[1, 1:] == 0).all()
    got = fp.image_to_prompt_attention(weights=w, heads=heads, form=form, lengths=lengths, norm=norm, **arrays)
    close(got, exact("image_to_prompt", arrays, w, heads, lengths=lengths, norm=norm, residual=True))
    alone = {k: x[1:2, :1] if k.startswith("prompt") else x for k, x in arrays.items()}
    close(got[1:2], fp.image_to_prompt_attention(weights=w, heads=heads, form=form, norm=norm, **alone), 1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_large_logits(rng, isa, form):
    """The softmax is taken over the peak, which grows from tile to tile here."""
    arrays, w, heads, norm = make(rng, (1, 1, 5, 64, (20, 40), 2, 32))
    arrays["image"] *= np.linspace(1, 200, 800, dtype=np.float32).reshape(20, 40)
    for name, function in (
        ("prompt_to_image", fp.prompt_to_image_attention),
        ("image_to_prompt", fp.image_to_prompt_attention),
    ):
        options = {"bias": None} if name == "prompt_to_image" else {"norm": norm, "residual": True}
        close(
            function(weights=w, heads=heads, form=form, **options, **arrays),
            exact(name, arrays, w, heads, **options),
            2e-4,
        )


def test_threads_and_views(rng):
    arrays, w, heads, norm = make(rng, SHAPES["ragged pixels"])
    expected = fp.image_to_prompt_attention(weights=w, heads=heads, norm=norm, **arrays)
    turned = {k: np.asfortranarray(x) for k, x in arrays.items()}
    try:
        for threads in (1, 2, 5):
            fp.set_num_threads(threads)
            got = fp.image_to_prompt_attention(weights=w, heads=heads, norm=norm, **turned)
            np.testing.assert_array_equal(got, expected)
            close(
                fp.prompt_to_image_attention(weights=w, heads=heads, **turned),
                exact("prompt_to_image", arrays, w, heads, bias=None),
            )
    finally:
        fp.set_num_threads(None)


def test_one_prompt_without_batch_axis(rng):
    arrays, w, heads, _ = make(rng, SHAPES["one pixel"])
    single = {k: x[0] for k, x in arrays.items()}
    got = fp.prompt_to_image_attention(weights=w, heads=heads, **single)
    np.testing.assert_array_equal(got, fp.prompt_to_image_attention(weights=w, heads=heads, **arrays)[0])


# ---------------------------------------------------------------- torch

torch = pytest.importorskip("torch")


def tensors(arrays, w, norm, dtype=torch.float32):
    t = lambda x: None if x is None else torch.from_numpy(x).to(dtype)  # noqa: E731
    return {k: t(x) for k, x in arrays.items()}, AttentionWeights(*map(t, w)), (t(norm[0]), t(norm[1]), norm[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_torch_equals_numpy(rng, dtype):
    arrays, w, heads, norm = make(rng, SHAPES["several images"])
    t, tw, tn = tensors(arrays, w, norm, dtype)
    plain = {k: x.float().numpy() for k, x in t.items()}
    pw = AttentionWeights(*(x.float().numpy() for x in tw))
    pn = (tn[0].float().numpy(), tn[1].float().numpy(), norm[2])
    got = fp.image_to_prompt_attention(weights=tw, heads=heads, norm=tn, **t)
    assert got.dtype == dtype
    want = fp.image_to_prompt_attention(weights=pw, heads=heads, norm=pn, **plain)
    torch.testing.assert_close(got, torch.from_numpy(want).to(dtype))
    got = fp.prompt_to_image_attention(weights=tw, heads=heads, **t)
    assert got.dtype == dtype
    torch.testing.assert_close(
        got, torch.from_numpy(fp.prompt_to_image_attention(weights=pw, heads=heads, **plain)).to(dtype)
    )


@pytest.mark.parametrize("form", ["absorbed", "projected"])
def test_equals_transformers(form):
    modeling = pytest.importorskip("transformers.models.sam.modeling_sam")
    from transformers import SamMaskDecoderConfig

    torch.manual_seed(0)
    host = modeling.SamAttention(SamMaskDecoderConfig(attn_implementation="eager"), downsample_rate=2).eval()
    prompt, image = torch.randn(1, 2, 7, 256), torch.randn(1, 256, 8, 8)
    x = image.flatten(2).transpose(1, 2)[:, None].expand(1, 2, -1, -1)
    w = AttentionWeights.of(host)
    with torch.no_grad():
        want = host(query=prompt, key=x, value=x)[0][0]
        torch.testing.assert_close(fp.prompt_to_image_attention(prompt[0], image, w, heads=8, form=form), want)
        want = host(query=x, key=prompt, value=prompt)[0][0].transpose(1, 2).reshape(2, 256, 8, 8)
        got = fp.image_to_prompt_attention(image, prompt[0], w, heads=8, form=form, residual=False)
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("form", ["absorbed", "projected"])
@pytest.mark.parametrize("to_image", [True, False])
def test_gradient(rng, to_image, form):
    """The gradient differentiates the formula, in float32: compared with that of the plain formula in float64."""
    arrays, w, heads, norm = make(rng, (1, 2, 3, 16, (3, 5), 2, 32))
    t, tw, tn = tensors(arrays, w, norm)
    leaves = [x.requires_grad_() for x in (*t.values(), *tw, *tn[:2])]
    if to_image:
        out = fp.prompt_to_image_attention(weights=tw, heads=heads, form=form, **t)
        leaves = leaves[:-2]
    else:
        out = fp.image_to_prompt_attention(weights=tw, heads=heads, form=form, norm=tn, **t)
    weight = torch.from_numpy(rng.standard_normal(out.shape).astype(np.float32))
    found = torch.autograd.grad((out * weight).sum(), leaves, allow_unused=True)
    double = [x.detach().double().requires_grad_() for x in leaves]
    wanted = torch.autograd.grad((formula(double, heads, to_image) * weight).sum(), double, allow_unused=True)
    for leaf, got, want in zip(leaves, found, wanted, strict=True):
        got, want = (torch.zeros_like(leaf) if g is None else g.float() for g in (got, want))
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


def formula(leaves, heads, to_image):
    """The formula once more, independent of the library, in torch."""
    prompt, image, prompt_position, image_position, *weights = leaves
    wq, bq, wk, bk, wv, bv, wo, bo = weights[:8]
    x = image.flatten(2).transpose(1, 2).expand(len(prompt), -1, -1)
    placed, asked = x + image_position.flatten(2).transpose(1, 2), prompt + prompt_position
    query, key, value = (asked, placed, x) if to_image else (placed, asked, prompt)
    split = lambda y: y.unflatten(-1, (heads, -1)).transpose(1, 2)  # noqa: E731
    q, k, v = split(query @ wq.T + bq), split(key @ wk.T + bk), split(value @ wv.T + bv)
    out = torch.softmax(q @ k.transpose(2, 3) / q.shape[-1] ** 0.5, -1) @ v
    out = out.transpose(1, 2).flatten(2) @ wo.T + bo
    if to_image:
        return out
    normed = torch.nn.functional.layer_norm(x + out, x.shape[-1:], weights[8], weights[9], 1e-6)
    return normed.transpose(1, 2).reshape(len(prompt), *image.shape[1:])


class Module(torch.nn.Module):
    def __init__(self, w, heads, norm):
        super().__init__()
        self.w, self.heads, self.norm = w, heads, norm

    def forward(self, prompt, image):
        prompt = prompt + fp.prompt_to_image_attention(prompt, image, self.w, heads=self.heads)
        return fp.image_to_prompt_attention(image, prompt, self.w, heads=self.heads, norm=self.norm)


def test_compile_and_export(rng):
    arrays, w, heads, norm = make(rng, (1, 2, 3, 32, (4, 6), 2, 32))
    t, tw, tn = tensors(arrays, w, norm)
    module = Module(tw, heads, tn)
    expected = module(t["prompt"], t["image"])
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(t["prompt"], t["image"]), expected)
    program = torch.export.export(module, (t["prompt"], t["image"]))
    assert "fastprompt.image_to_prompt" in str(program.graph)
    torch.testing.assert_close(program.module()(t["prompt"], t["image"]), expected)


def test_opcheck(rng):
    arrays = make(rng, (1, 2, 3, 32, (4, 6), 2, 32))[0]
    fp.prompt_to_image_attention(
        *(torch.zeros(s) for s in ((1, 16), (16, 1, 1))),
        weights=AttentionWeights(*(torch.zeros(16, 16), None) * 4),
        heads=1,
    )
    image, position = torch.from_numpy(arrays["image"]), torch.from_numpy(arrays["image_position"])
    rows = torch.randn(2, 2, 3, 32, requires_grad=True)
    bias, lengths = torch.randn(2, 3, 4, 6), torch.tensor([3, 2])
    torch.library.opcheck(
        torch.ops.fastprompt.prompt_to_image.default,
        (image.requires_grad_(), position, rows, None, None, bias, lengths),
    )
    shift = torch.randn(2, 2, 3)
    normed = torch.ones(32), torch.zeros(32)
    torch.library.opcheck(
        torch.ops.fastprompt.image_to_prompt.default,
        (image, position, rows, shift, rows, None, None, torch.zeros(32), *normed, lengths, True, 1e-6),
    )


# ---------------------------------------------------------------- errors

X = {"prompt": np.zeros((2, 3, 16)), "image": np.zeros((1, 16, 4, 5))}
W = AttentionWeights(*(np.zeros((16, 16)), np.zeros(16)) * 4)
WRONG = {
    "prompt_axes": ({"prompt": np.zeros(16)}, ValueError, "prompt must be"),
    "image_axes": ({"image": np.zeros((16, 4))}, ValueError, "image .*C, H, W"),
    "channels": ({"image": np.zeros((1, 8, 4, 5))}, ValueError, "image must have the prompt's 16 channels, got 8"),
    "no_tokens": ({"prompt": np.zeros((2, 0, 16))}, ValueError, "prompt must hold tokens"),
    "batch": ({"image": np.zeros((3, 16, 4, 5))}, ValueError, "multiple of the 3 images"),
    "weights": ({"weights": np.zeros((16, 16))}, TypeError, "weights must be AttentionWeights"),
    "weight_shape": ({"weights": W._replace(key_weight=np.zeros((8, 16)))}, ValueError, "weights.key_weight must have"),
    "out_shape": ({"weights": W._replace(out_weight=np.zeros((16, 8)))}, ValueError, "weights.out_weight must have"),
    "heads": ({"heads": 3}, ValueError, "heads must be a positive divisor of the inner width 16, got 3"),
    "heads_type": ({"heads": 2.0}, ValueError, "heads must be"),
    "form": ({"form": "fast"}, ValueError, "form must be"),
    "position": ({"image_position": np.zeros((1, 16, 4, 4))}, ValueError, "image_position must have shape"),
    "prompt_position": ({"prompt_position": np.zeros((3, 16))}, ValueError, "prompt_position must have shape"),
    "lengths": ({"lengths": np.array([1])}, ValueError, "lengths must be 2 integers"),
    "lengths_range": ({"lengths": np.array([1, 4])}, ValueError, "lengths must be between 1 and 3"),
    "lengths_type": ({"lengths": np.array([1.0, 2.0])}, ValueError, "lengths must be 2 integers"),
    "complex": ({"image": np.zeros((1, 16, 4, 5), complex)}, TypeError, "image must hold real numbers"),
    "mixed": ({"image": torch.zeros(1, 16, 4, 5)}, TypeError, "both be NumPy arrays or both torch tensors"),
    "device": (
        {k: torch.zeros(x.shape, device="meta") if k == "image" else torch.zeros(x.shape) for k, x in X.items()},
        ValueError,
        "device of prompt",
    ),
}


@pytest.mark.parametrize("change", WRONG)
def test_wrong_calls(change):
    changes, error, match = WRONG[change]
    call = X | {"weights": W, "heads": 2} | changes
    for function in (fp.prompt_to_image_attention, fp.image_to_prompt_attention):
        with pytest.raises(error, match=match):
            function(**call)


def test_wrong_bias_and_norm():
    with pytest.raises(ValueError, match="bias must have shape"):
        fp.prompt_to_image_attention(weights=W, heads=2, bias=np.zeros((2, 3, 4, 4)), **X)
    with pytest.raises(ValueError, match=r"norm\[0\] must have shape"):
        fp.image_to_prompt_attention(weights=W, heads=2, norm=(np.zeros(8), np.zeros(16), 1e-5), **X)
