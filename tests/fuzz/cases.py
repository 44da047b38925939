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
