"""pixel_word_attention: the mask semantics of the models that use it, each against its formula in torch."""

import math

import numpy as np
import pytest

import fastprompt as fp
from fastprompt import AttentionWeights

torch = pytest.importorskip("torch")

# batch, words, channels, word channels, out channels, (height, width), heads, inner width
SHAPES = {
    "lavt": (2, 7, 64, 48, 64, (9, 13), 1, 64),
    "heads": (3, 5, 48, 20, 48, (5, 7), 4, 32),
    "other width out": (1, 9, 32, 16, 24, (6, 6), 2, 32),
    "odd": (2, 3, 10, 6, 10, (3, 4), 2, 6),
}


def make(shape):
    batch, tokens, channels, width, out, size, heads, inner = shape
    g = torch.Generator().manual_seed(0)
    draw = lambda *s: torch.randn(*s, generator=g)  # noqa: E731
    w = AttentionWeights(
        *(draw(inner, channels) * channels**-0.5, draw(inner)),
        *(draw(inner, width) * width**-0.5, draw(inner)),
        *(draw(inner, width) * width**-0.5, draw(inner)),
        *(draw(out, inner) * inner**-0.5, draw(out)),
    )
    mask = (torch.rand(batch, tokens, generator=g) < 0.6).float()
    mask[:, 0] = 1
    return draw(batch, channels, *size), draw(batch, tokens, width), w, heads, mask


def formula(image, words, w, heads, *, scale=None, added=None, factor=None, norm=None):
    """Every projection written out, in float64."""
    image, words, *w = (x.double() for x in (image, words, *w))
    x = image.flatten(2).transpose(1, 2)
    q, k, v = x @ w[0].T + w[1], words @ w[2].T + w[3], words @ w[4].T + w[5]
    if norm is not None:
        q = torch.nn.functional.instance_norm(q.transpose(1, 2), eps=norm).transpose(1, 2)
    if factor is not None:
        k, v = k * factor[..., None], v * factor[..., None]
    q, k, v = (y.unflatten(2, (heads, -1)).transpose(1, 2) for y in (q, k, v))
    logits = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scale is None else scale)
    weight = (logits if added is None else logits + added[:, None, None]).softmax(-1)
    out = (weight @ v).transpose(1, 2).flatten(2) @ w[6].T + w[7]
    to_map = lambda y: y.transpose(1, 2).reshape(len(image), -1, *image.shape[2:])  # noqa: E731
    return to_map(out).float(), to_map(logits.mean(1)).float()


def close(got, want):
    torch.testing.assert_close(torch.as_tensor(got), want, rtol=1e-5, atol=2e-5)


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def case(request):
    return make(request.param)


@pytest.fixture(params=["torch", "numpy", "reference"])
def call(request, isa):
    """Tensors, arrays, and the reference; all give tensors."""

    def run(image, words, w, **options):
        if request.param == "torch":
            return fp.pixel_word_attention(image, words, w, **options)
        options = {k: v.numpy() if torch.is_tensor(v) else v for k, v in options.items()}
        with fp.backend("reference" if request.param == "reference" else "auto"):
            return fp.pixel_word_attention(
                image.numpy(), words.numpy(), AttentionWeights(*(x.numpy() for x in w)), **options
            )

    return run


def test_plain_and_zegclip_logits(case, call):
    image, words, w, heads, _ = case
    want, logits = formula(image, words, w, heads)
    got, mean = call(image, words, w, heads=heads, return_logits=True)
    close(got, want)
    close(mean, logits)


def test_lavt(case, call):
    """Multiplied keys and values, a finite bias, the scale of the whole width, normalised queries."""
    image, words, w, heads, m = case
    scale = len(w.query_weight) ** -0.5
    want, _ = formula(image, words, w, heads, scale=scale, added=1e4 * m - 1e4, factor=m, norm=1e-5)
    options = {"mask": m, "mask_kind": "multiplicative", "bias": 1e4 * m - 1e4, "scale": scale, "query_norm": 1e-5}
    close(call(image, words, w, heads=heads, **options), want)


def test_refsegformer(case, call):
    image, words, w, heads, m = case
    close(
        call(image, words, w, heads=heads, mask=m, mask_kind="multiplicative"),
        formula(image, words, w, heads, factor=m)[0],
    )


def test_boolean_and_additive(case, call):
    image, words, w, heads, m = case
    hidden = torch.where(m > 0, 0.0, -math.inf)
    want, _ = formula(image, words, w, heads, added=hidden)
    close(call(image, words, w, heads=heads, mask=m), want)
    close(call(image, words, w, heads=heads, mask=m > 0), want)
    close(call(image, words, w, heads=heads, mask=hidden, mask_kind="additive"), want)
    both = hidden + m
    close(call(image, words, w, heads=heads, mask=m, bias=m), formula(image, words, w, heads, added=both)[0])


def test_a_sentence_without_words(case, call):
    image, words, w, heads, m = case
    m = m.clone()
    m[0] = 0
    zero, unmask = (call(image, words, w, heads=heads, mask=m, on_full_mask=x) for x in ("zero", "unmask"))
    close(torch.as_tensor(zero)[0], w.out_bias[:, None, None].expand(-1, *image.shape[2:]))
    close(torch.as_tensor(unmask)[0], formula(image, words, w, heads)[0][0])


def test_cris():
    """``nn.MultiheadAttention`` with a key padding mask."""
    image, words, w, heads, m = make((2, 6, 32, 32, 32, (4, 5), 2, 32))
    host = torch.nn.MultiheadAttention(32, heads, batch_first=True).eval()
    with torch.no_grad():
        host.in_proj_weight.copy_(torch.cat([w[0], w[2], w[4]]))
        host.in_proj_bias.copy_(torch.cat([w[1], w[3], w[5]]))
        host.out_proj.weight.copy_(w[6])
        host.out_proj.bias.copy_(w[7])
        x = image.flatten(2).transpose(1, 2)
        want = host(x, words, words, key_padding_mask=m == 0)[0].transpose(1, 2).reshape(image.shape)
    close(fp.pixel_word_attention(image, words, w, heads=heads, mask=m), want)


@pytest.mark.parametrize("norm", [None, 1e-5])
def test_gradient(norm):
    image, words, w, heads, m = make((2, 4, 16, 12, 16, (3, 4), 2, 32))
    leaves = [x.requires_grad_() for x in (image, words, *w)]
    out = fp.pixel_word_attention(image, words, w, heads=heads, mask=m, query_norm=norm)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((out * weight).sum(), leaves, allow_unused=True)
    hidden = torch.where(m > 0, 0.0, -math.inf)
    want, _ = formula(image, words, w, heads, added=hidden, norm=norm)
    wanted = torch.autograd.grad((want * weight).sum(), leaves, allow_unused=True)
    for leaf, a, b in zip(leaves, found, wanted, strict=True):
        a, b = (torch.zeros_like(leaf) if g is None else g for g in (a, b))
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


X = {"image": np.zeros((2, 16, 3, 4)), "words": np.zeros((2, 5, 8)), "heads": 2}
X["weights"] = AttentionWeights(*(np.zeros(s) for s in ((8, 16), 8, (8, 8), 8, (8, 8), 8, (16, 8), 16)))
WRONG = {
    "image_axes": ({"image": np.zeros((16, 3, 4))}, ValueError, r"image must be \(B, C, H, W\)"),
    "batch": ({"words": np.zeros((1, 5, 8))}, ValueError, r"got \(2, 16, 3, 4\), \(1, 5, 8\)"),
    "no_words": ({"words": np.zeros((2, 0, 8))}, ValueError, "words"),
    "weights": ({"weights": 3}, TypeError, "weights must be AttentionWeights, got int"),
    "key": (
        {"weights": X["weights"]._replace(key_weight=np.zeros((8, 16)))},
        ValueError,
        r"weights.key_weight must have shape \(8, 8\)",
    ),
    "heads": ({"heads": 3}, ValueError, "heads must be a positive divisor of the inner width 8, got 3"),
    "kind": (
        {"mask_kind": "soft"},
        ValueError,
        "mask_kind must be one of additive, boolean, multiplicative, got 'soft'",
    ),
    "full": ({"on_full_mask": "nan"}, ValueError, "on_full_mask must be one of zero, unmask, got 'nan'"),
    "mask": ({"mask": np.zeros((2, 4))}, ValueError, r"mask must have shape \(2, 5\), got \(2, 4\)"),
    "bias": ({"bias": np.zeros(5)}, ValueError, r"bias must have shape \(2, 5\), got \(5,\)"),
    "query_norm": ({"query_norm": -1e-5}, ValueError, "query_norm must be between 0 and inf, got -1e-05"),
    "query_norm_nan": ({"query_norm": math.nan}, ValueError, "query_norm must be between 0 and inf, got nan"),
    "query_norm_text": ({"query_norm": "batch"}, TypeError, "query_norm must be a number, got 'batch'"),
    "scale": ({"scale": math.nan}, ValueError, "scale must be between"),
    "no_pixels": ({"image": np.zeros((2, 16, 0, 4))}, ValueError, r"image must be .* none empty, got \(2, 16, 0, 4\)"),
    "mixed": ({"words": torch.zeros(2, 5, 8)}, TypeError, "both be NumPy arrays or both torch tensors"),
}


@pytest.mark.parametrize("change", WRONG)
def test_wrong_calls(change):
    changes, error, match = WRONG[change]
    with pytest.raises(error, match=match):
        fp.pixel_word_attention(**(X | changes))
