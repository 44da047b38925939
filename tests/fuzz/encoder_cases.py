"""Right arguments of the operators of attention and encoders; importing this adds them to the cases."""

import torch
from fuzz.cases import case, sizes


def prompt_side(d, projected):
    images, h, w = sizes(d)
    prompts, heads, tokens = images * d.randint(1, 2), d.randint(1, 2), d.randint(1, 5)
    c = d.choice((16, 32, 20))
    width = d.choice((16, 32)) if projected else c
    lengths = torch.from_numpy(d.whole(1, tokens + 1, prompts)) if d.random() < 0.5 else None
    position = d.t(1, c, h, w) if d.random() < 0.5 else None
    return d.t(images, c, h, w), position, d.t(prompts, heads, tokens, width), heads * width, lengths


@case
def prompt_to_image(d):
    projected = d.random() < 0.5
    image, position, rows, inner, lengths = prompt_side(d, projected)
    c, (prompts, _, tokens, _) = image.shape[1], rows.shape
    weights = [d.t(inner, c, scale=0.2), d.t(inner, c, scale=0.2)] if projected else [None, None]
    bias = d.t(prompts, tokens, *image.shape[2:]) if d.random() < 0.5 else None
    return image, position, rows, *weights, bias, lengths


@case
def image_to_prompt(d):
    projected = d.random() < 0.5
    image, position, key, inner, lengths = prompt_side(d, projected)
    c = image.shape[1]
    weights = [d.t(inner, c, scale=0.2), d.t(c, inner, scale=0.2)] if projected else [None, None]
    norm = [d.t(c), d.t(c)] if d.random() < 0.5 else [None, None]
    given = image, position, key, d.t(*key.shape[:3]), d.t(*key.shape), *weights, d.t(c), *norm, lengths
    return *given, d.random() < 0.5, 1e-6


@case
def normalised_linear(d):
    b, n, _ = sizes(d)
    c = d.choice((16, 48))
    norm = [d.t(c), d.t(c)] if d.random() < 0.5 else []
    return d.t(b, n, c), norm, 1e-6, [d.t(32, c, scale=0.2), d.t(32)]


@case
def residual_mlp(d):
    b, n, _ = sizes(d)
    c, width, hidden = 16, 32, 48
    linear = lambda rows, depth: [d.t(rows, depth, scale=0.2), d.t(rows)]  # noqa: E731
    mlp = [*linear(hidden, c), *linear(c, hidden)]
    return d.t(b, n, c), d.t(b, n, width), linear(c, width), [d.t(c), d.t(c)], 1e-6, mlp, d.choice(("gelu", "relu"))


@case
def relative_attention(d):
    b, h, w = d.randint(1, 2), d.randint(1, 5), d.randint(1, 9)
    heads, width, tokens = d.randint(1, 2), d.choice((16, 16, 5)), h * w
    window = [d.randint(1, 4), d.randint(1, 4)] if d.random() < 0.4 else [0, 0]
    places = None
    if window[0] == 0 and d.random() < 0.4:
        tokens = d.randint(1, tokens)
        grid = torch.cartesian_prod(torch.arange(h), torch.arange(w))
        places = torch.stack([grid[sorted(d.sample(range(h * w), tokens))] for _ in range(d.choice((1, b)))])
    table = lambda size, part: d.t(2 * (part or size) - 1, width, scale=0.3)  # noqa: E731
    pads = [d.t(heads, width), d.t(heads, width)] if window[0] else [None, None]
    q, k, v = (d.t(b, tokens, heads, width) for _ in range(3))
    return q, k, v, table(h, window[0]), table(w, window[1]), places, *pads, [h, w], window, 0.25


@case
def grid_attention(d):
    pool, (b, heads, width) = d.choice((1, 1, 2)), (d.randint(1, 2), d.randint(1, 2), d.choice((16, 12, 3)))
    h, w = (pool * d.randint(1, 5) for _ in range(2))
    window = [pool * d.randint(1, 4), pool * d.randint(1, 4)] if d.random() < 0.6 else [0, 0]
    q, k, v = (d.t(b, h * w, heads, width) for _ in range(3))
    return q, k, v, d.t(heads, width), d.t(heads, width), [h, w], window, pool, 0.25


@case
def grid_layer(d):
    pool, heads, b = d.choice((1, 1, 2)), d.choice((1, 2)), d.randint(1, 2)
    h, w, window = pool * d.randint(1, 5), pool * d.randint(1, 5), pool * d.randint(0, 3)
    c, width, out = 16, 32, 16 * pool
    linear = lambda rows, depth: [d.t(rows, depth, scale=0.2), d.t(rows)]  # noqa: E731
    norm = lambda n: [d.t(n), d.t(n)]  # noqa: E731
    weights = norm(c), linear(3 * width, c), linear(out, c) if pool > 1 else [], linear(out, width), norm(out)
    mlp = [*linear(48, out), *linear(out, 48)]
    return d.t(b, h, w, c), *weights, mlp, heads, window, pool, [1e-6, 1e-6], d.choice(("gelu", "relu"))


@case
def relative_attention_backward(d):
    q, k, v, rel_h, rel_w, places, _, _, size, window, scale = relative_attention(d)
    while window != [0, 0]:
        q, k, v, rel_h, rel_w, places, _, _, size, window, scale = relative_attention(d)
    out, log_weight = torch.ops.fastprompt.relative_attention(
        q, k, v, rel_h, rel_w, places, None, None, size, window, scale
    )
    return d.t(*q.shape), q, k, v, rel_h, rel_w, places, out, log_weight, size, scale
