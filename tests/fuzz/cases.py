"""Right arguments of every operator of torch, of sizes that a seed draws: small, ragged, a vector or a tile and a bit."""

import torch

CASES = {}  # by operator: arguments of a draw


def case(function):
    CASES[function.__name__] = function
    return function


def sizes(d, most=9):
    return d.randint(1, 3), d.randint(1, most), d.choice((1, 2, 5, 7, 8, 9, 16, 17, 33))


@case
def masked_pool(d):
    b, h, w = sizes(d)
    resize = d.randrange(3)
    mask = d.t(b, 2, 2 * h, 3 * w).abs()
    mask = mask if d.random() < 0.5 else (mask > 0.5).to(d.choice((torch.bool, torch.uint8)))
    threshold = d.choice((None, 0.5)) if resize else None  # what enlarged features add up to, rounding decides
    return d.t(b, d.randint(1, 35), h, w), mask, resize, d.random() < 0.5, d.random() < 0.5, threshold, 1e-4, 0.25


def similar(d):
    b, c, n = sizes(d, 35)
    return d.t(b, c, n), d.t(d.choice((1, b)), d.randint(1, 19), c), 2.0, 1e-6, 10.0


@case
def similarity_map(d):
    return *similar(d), d.randrange(2), d.choice((0.0, 0.9))


@case
def similarity_argmax(d):
    return *similar(d), 0.0


@case
def prior_similarity(d):
    b, c, n = sizes(d, 35)
    m = d.randint(1, 20)
    return d.t(b, c, n), d.t(2 * b, c, m), d.t(2 * b, m).abs(), 1e-7


@case
def film(d):
    b, c, n = sizes(d, 35)
    last, one = d.random() < 0.5, d.choice((1, b))
    return d.t(one, *((n, c) if last else (c, n))), d.t(b, c), d.t(b, c), last


@case
def cosine_scores(d):
    b, n, c = sizes(d, 20)
    return d.t(b, n, c), d.t(d.choice((1, b)), d.randint(1, 4), c)


def index(d, b, kept, count):
    return torch.from_numpy(d.whole(-1, count + 1, b, kept))


@case
def gather_rows(d):
    b, n, c = sizes(d, 20)
    return d.t(b, n, c).to(d.choice((torch.float32, torch.bfloat16, torch.int64))), index(d, b, d.randint(1, n), n)


def distinct(d, b, kept, count):
    return torch.stack([torch.tensor(d.sample(range(count), kept)) for _ in range(b)])


@case
def scatter_rows(d):
    b, n, c = sizes(d, 20)
    kept = d.randint(1, n)
    return d.t(b, n, c) if d.random() < 0.5 else None, d.t(b, kept, c), distinct(d, b, kept, n), n


@case
def scatter_rows_(d):
    b, n, c = sizes(d, 20)
    kept = d.randint(1, n)
    return d.t(b, n, c), d.t(b, kept, c), distinct(d, b, kept, n)


@case
def prune_rows(d):
    b, n, c = sizes(d, 20)
    count = d.randint(1, n)
    always = torch.zeros(b, n, dtype=torch.bool)
    always[:, 0] = True
    counts = torch.from_numpy(d.whole(1, count + 1, b))
    optional = always if d.random() < 0.5 else None, counts if d.random() < 0.5 else None
    return d.t(b, n, c), d.t(b, n).round(), *optional, count, d.choice((0.0, 0.3))


def match(d):
    b, n, c = sizes(d, 40)
    spared = d.randint(0, min(2, n))
    return d.t(b, n, c), d.randint(0, (n - spared) // 2), spared


@case
def match_tokens(d):
    return match(d)


@case
def merge_rows(d):
    metric, merged, spared = match(d)
    kept, target = torch.ops.fastprompt.match_tokens(metric, merged, spared)
    return d.t(*metric.shape), d.t(*metric.shape[:2]).abs() + 0.5, kept, target


@case
def memory_read(d):
    b, n, keys = sizes(d)
    width, depth, heads = d.choice((16, 32, 5)), d.choice((16, 48)), d.randint(1, 2)
    return d.t(b, n, heads, width), d.t(b, keys, heads, width), d.t(b, keys, heads, depth), 0.25


def turned(d, queries, frames, width):
    """Tables of queries and keys, and how many keys are not turned behind so many frames; of places (2, 3)."""
    others = d.randint(0 if frames else 1, 9)
    return [d.t(queries, width), d.t(queries, width), d.t(6, width), d.t(6, width)], others, 6 * frames + others


@case
def turned_memory_read(d):
    b, h, n = sizes(d)
    width = 2 * d.randint(1, 20)
    tables, others, m = turned(d, n, d.randrange(4), width)
    return d.t(b, n, h, width), d.t(b, m, h, width), d.t(b, m, h, d.randint(1, 35)), *tables, others, 0.25


@case
def projected_memory_read(d):
    b, _, n = sizes(d)
    width, depth = d.choice((32, 64)), d.choice((16, 32))
    tables, others, m = turned(d, n, d.choice((0, 1, 3, 9, 20)), width)
    if d.random() < 0.7:  # axial ones
        for x in tables[2:]:
            x[:, : width // 2] = x[[0, 1, 2, 0, 1, 2], : width // 2]
            x[:, width // 2 :] = x[[0, 0, 0, 3, 3, 3], width // 2 :]
    linear = [d.t(width, depth), d.t(width)]
    return d.t(b, n, width), d.t(b, m, depth), d.t(b, m, depth), linear, *tables, [2, 3], others, 0.25


@case
def memory_read_backward(d):
    q, k, v, scale = memory_read(d)
    out, log_weight = torch.ops.fastprompt.memory_read(q, k, v, scale)
    return d.t(*out.shape), q, k, v, out, log_weight, scale


@case
def geodesic_distance(d):
    b, y, x = sizes(d)
    z = d.choice((1, 3)) if d.random() < 0.3 else None
    shape = (z or 1, y, x)
    start = torch.from_numpy(d.bits(b, 2, *shape))
    walls = torch.from_numpy(d.bits(b, 1, *shape, share=0.2)) if d.random() < 0.3 else None
    kind = d.choice(("nonzero", "seed", "cost", "signed_nonzero", "signed_seed"))
    start = start if "nonzero" in kind else start.float()
    spacing = [1.0, 2.0, 0.5][: 2 if z is None else 3]
    lam, v = d.choice((0.0, 0.5, 0.7, 1.0)), d.choice((float("inf"), 20.0, 1e10))
    v = 20.0 if kind == "cost" else v
    metric, method = d.choice(("fastgeodis", "geodistk", "geodistk_fm")), d.choice(("raster", "toivanen", "exact"))
    how = kind, metric, method, d.randint(1, 3), lam, 1 - lam, spacing, v, d.choice((float("inf"), 9.0))
    return d.t(b, d.choice((1, 3)), *shape), start, walls, *how


@case
def geodesic_distance_backward(d):
    image, start, walls, kind, metric, _, *rest = geodesic_distance(d)
    return d.t(*start.shape), image, start, walls, kind, metric, "exact", *rest


@case
def euclidean_distance_transform(d):
    b, y, x = sizes(d, 40)
    return torch.from_numpy(d.bits(b, 1, d.choice((1, 1, 3)), y, x)), [1.0, 2.0, 0.5]


def clicks(d, images, size):
    n = d.randint(0, 5)
    return d.t(images, n, 2, scale=5) + min(size) / 2, torch.from_numpy(d.whole(-1, 2, images, n))


@case
def click_map(d):
    b, h, w = sizes(d, 40)
    code = d.randrange(4)
    stretch = code in (1, 3) and d.random() < 0.3  # a stretched tanh is what rounding left of it
    options = code, [4.0, 9.0][: d.randint(1, 2)], d.choice((float("inf"), 6.0)), 1.0, stretch
    return *clicks(d, b, (h, w)), [1, 0][: d.randint(1, 2)], [h, w], *options, d.choice((float("inf"), 1e6))


@case
def box_map(d):
    b, h, w = sizes(d, 40)
    return d.t(b, d.randint(0, 3), 4, scale=9), [h, w], d.random() < 0.5, 0.5, -1.0, 4.0


@case
def polygon_mask(d):
    b, h, w = sizes(d, 40)
    return d.t(b, 7, 2, scale=9) + 5, [0, 3, 7], [h, w], d.random() < 0.5, d.random() < 0.5


@case
def scribble_map(d):
    _, h, w = sizes(d, 40)
    labels = torch.from_numpy(d.whole(0, 2, 2))
    return d.t(7, 2, scale=9) + 5, [0, 3, 7], labels, [1, 0], [h, w], d.choice((0.0, 1.5, 4.0))


def inside(d, b, h, w):
    n = d.randint(0, 4)
    points = [[[float(d.randrange(w)), float(d.randrange(h))] for _ in range(n)] for _ in range(b)]
    return torch.tensor(points).reshape(b, n, 2), torch.from_numpy(d.whole(-1, 2, b, n)), [1, 0]


@case
def superpixel_map(d):
    b, h, w = sizes(d)
    return torch.from_numpy(d.whole(0, h * w, b, h, w)), *inside(d, b, h, w), 255.0


@case
def proposal_vote_map(d):
    b, h, w = sizes(d)
    return torch.from_numpy(d.bits(b, 3, h, w)), *inside(d, b, h, w)


@case
def prompt_unified_encoding(d):
    b, h, w = sizes(d, 40)
    points, labels = clicks(d, b, (h, w))
    extents = d.t(*points.shape, scale=9).abs() if d.random() < 0.5 else None
    return points, labels, extents, [h, w], 3.0, True, 1.0, d.random() < 0.5


@case
def next_click(d):
    b, h, w = sizes(d, 20)
    pred = d.t(b, h, w)
    pred = pred if d.random() < 0.5 else (pred > 0).to(torch.uint8)
    clicked = torch.from_numpy(d.whole(0, min(h, w), b, d.randint(0, 2), 2)).int()
    return pred, torch.from_numpy(d.whole(0, 3, b, h, w)).to(torch.uint8), clicked, 0.5, d.choice((-1, 2))


@case
def overlap_counts(d):
    b, h, w = sizes(d, 40)
    pred = d.t(b, h * w)
    target = torch.from_numpy(d.whole(0, 3, b, h * w)).to(torch.uint8)
    return pred if d.random() < 0.5 else pred > 0, target, 0.5, d.choice((-1, 2))


@case
def resize_masks(d):
    b, h, w = sizes(d, 20)
    frame = [16, 24] if d.random() < 0.5 else []
    crop = [12, 20] if frame and d.random() < 0.5 else frame
    output = d.choice(("float32", "bool", "uint8", "packed"))
    return d.t(b, h, w), [d.randint(1, 30), d.randint(1, 30)], frame, crop, 0.1, output, 0.5


@case
def resize_logits(d):
    logits, size, frame, crop, *_ = resize_masks(d)
    return logits, size, frame, crop


# ---------------------------------------------------------------- attention and encoders


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
