"""Right calls of public functions: ``(function, arguments, options)`` of a draw."""

import numpy as np

import fastprompt as fp
from fastprompt import metrics

CALLS = {}


def of(module, name):
    """A call whose function has the name of the case."""

    def keep(make):
        def made(d):
            args, options = make(d)
            return getattr(module, name), args, options

        CALLS[name] = made
        return make

    return keep


def sizes(d, most=9):
    return d.randint(1, 2), d.randint(1, most), d.choice((1, 3, 7, 8, 9, 17, 33))


@of(fp, "masked_average_pool")
def _(d):
    b, h, w = sizes(d)
    masks = d.bits(b, 2, 2 * h, 2 * w) if d.random() < 0.5 else np.abs(d.normal(b, 2, 2 * h, 2 * w))
    return [d.normal(b, d.randint(1, 20), h, w), masks], {"resize": d.choice(("features", "mask", "average"))}


@of(fp, "cosine_prototype_map")
def _(d):
    b, h, w = sizes(d)
    c = d.randint(1, 20)
    return [d.normal(b, c, h, w), d.normal(d.randint(1, 5), c)], {}


@of(fp, "text_similarity_map")
def _(d):
    b, h, w = sizes(d)
    c = d.randint(1, 20)
    return [d.normal(b, c, h, w), d.normal(4, c)], {"reduce": d.choice(("none", "softmax")), "temperature": 9.0}


@of(fp, "prior_mask")
def _(d):
    b, h, w = sizes(d)
    c = d.randint(1, 20)
    features = np.abs(d.normal(b, c, h, w)), np.abs(d.normal(b, c, h, w))
    return [*features, d.bits(b, 2 * h, 2 * w)], {"size": (d.randint(1, 9), d.randint(1, 9))}


@of(fp, "film")
def _(d):
    b, h, w = sizes(d)
    c = d.randint(1, 20)
    return [d.normal(b, c, h, w), d.normal(b, c), d.normal(b, c)], {}


@of(fp, "token_scores")
def _(d):
    b, h, w = sizes(d)
    c = d.randint(1, 20)
    place = {"points": np.abs(d.normal(b, 2, 2, scale=9)), "grid": (h, w), "prompts": d.normal(1, 2, c)}
    return [d.normal(b, h * w, c)], place


@of(fp, "prune_tokens")
def _(d):
    b, n, c = sizes(d, 30)
    return [d.normal(b, n, c), d.normal(b, n)], {"keep": d.choice((0.5, 1.0, 1)), "stride_mix": d.choice((0.0, 0.2))}


@of(fp, "merge_tokens")
def _(d):
    b, n, c = sizes(d, 30)
    return [d.normal(b, n, c)], {"r": d.randint(0, n // 2)}


def picture(d):
    _, h, w = sizes(d)
    return d.normal(d.choice((1, 3)), h, w), d.bits(2, h, w)


@of(fp, "geodesic_distance")
def _(d):
    options = {"lam": d.choice((0.0, 0.5, 1.0)), "metric": d.choice(("fastgeodis", "geodistk", "geodistk_fm"))}
    options |= {"method": d.choice(("raster", "exact"))}
    return picture(d), options


@of(fp, "signed_geodesic_distance")
def _(d):
    image, seeds = picture(d)
    return [image, seeds[0]], {"lam": 0.5}


@of(fp, "geodesic_symmetric_filter")
def _(d):
    image, seeds = picture(d)
    return [image, seeds[0]], {"theta": 1.5, "lam": 0.5}


@of(fp, "exponentiated_geodesic")
def _(d):
    image, seeds = picture(d)
    return [image, seeds[0]], {}


@of(fp, "euclidean_distance_transform")
def _(d):
    return [d.bits(*sizes(d, 40))[0]], {"spacing": d.choice((1.0, (2.0, 1.0)))}


def clicks(d):
    b, h, w = sizes(d, 40)
    n = d.randint(0, 5)
    return [d.normal(b, n, 2, scale=9) + 9, d.whole(-1, 2, b, n)], {"size": (h, w)}


@of(fp, "click_map")
def _(d):
    args, options = clicks(d)
    encodings = {"disk": {"radius": 3}, "tanh": {}, "euclidean": {"clip": 9}, "gaussian": {"sigma": [2, 4]}}
    encoding = d.choice(list(encodings))
    return args, {**options, "encoding": encoding, **encodings[encoding]}


for name in ("box_map", "box_distance_map"):

    @of(fp, name)
    def _(d):
        b, h, w = sizes(d, 40)
        return [d.normal(b, d.randint(0, 3), 4, scale=9) + 9], {"size": (h, w)}


@of(fp, "scribble_map")
def _(d):
    strokes = [d.normal(n, 2, scale=9) + 9 for n in (1, 4, 2)]
    return [strokes, [1, 0, 1]], {"size": (d.randint(1, 30), d.randint(1, 30)), "thickness": d.randint(1, 4)}


@of(fp, "polygon_mask")
def _(d):
    options = {"size": (d.randint(1, 30), d.randint(1, 30)), "boundary": d.random() < 0.5}
    return [d.normal(d.randint(3, 9), 2, scale=9) + 9], {**options, "rule": d.choice(("even_odd", "non_zero"))}


@of(fp, "superpixel_map")
def _(d):
    _, h, w = sizes(d)
    return [d.whole(0, h * w, h, w), d.whole(0, min(h, w), 3, 2)], {}


@of(fp, "proposal_vote_map")
def _(d):
    _, h, w = sizes(d)
    return [d.bits(4, h, w), d.whole(0, min(h, w), 3, 2)], {}


@of(fp, "prompt_unified_encoding")
def _(d):
    return clicks(d)


@of(fp, "compose_guidance")
def _(d):
    (points, labels), options = clicks(d)
    return [], {**options, "points": points, "labels": labels, "boxes": d.normal(len(points), 1, 4, scale=9) + 9}


@of(fp, "next_click")
def _(d):
    b, h, w = sizes(d, 20)
    return [d.bits(b, h, w), d.normal(b, h, w)], {"threshold": 0.2}


def attention_weights(d, c, width, of_words=None):
    depth = of_words or c
    shapes = [(width, c), (width,), (width, depth), (width,), (width, depth), (width,), (c, width), (c,)]
    return fp.AttentionWeights(*(d.normal(*shape, scale=0.2) for shape in shapes))


@of(fp, "prompt_to_image_attention")
def _(d):
    c, (b, h, w) = d.choice((32, 20)), sizes(d)
    given = d.normal(b, d.randint(1, 5), c), d.normal(1, c, h, w), attention_weights(d, c, 32)
    return list(given), {"heads": 2, "form": d.choice(("absorbed", "projected"))}


@of(fp, "image_to_prompt_attention")
def _(d):
    c, (b, h, w) = d.choice((32, 20)), sizes(d)
    given = d.normal(1, c, h, w), d.normal(b, d.randint(1, 5), c), attention_weights(d, c, 32)
    return list(given), {"heads": 2, "form": d.choice(("absorbed", "projected"))}


@of(fp, "pixel_word_attention")
def _(d):
    b, h, w = sizes(d)
    mask = d.whole(0, 2, b, 5)
    mask[:, 0] = 1
    return [d.normal(b, 32, h, w), d.normal(b, 5, 48), attention_weights(d, 32, 32, 48)], {"heads": 2, "mask": mask}


@of(fp, "relative_position_attention")
def _(d):
    h, w, width = d.randint(1, 5), d.randint(1, 9), 16
    tokens = [d.normal(1, h * w, 2, width) for _ in range(3)]
    return [*tokens, d.normal(2 * h - 1, width), d.normal(2 * w - 1, width)], {"size": (h, w)}


@of(fp, "mask_head")
def _(d):
    shapes = ((16, 8, 2, 2), (8,), (8,), (8,), (8, 4, 2, 2), (4,))
    weights = fp.MaskHeadWeights(*(d.normal(*s, scale=0.2) for s in shapes))
    return [d.normal(2, 16, 3, d.randint(1, 9)), d.normal(2, 3, 4), weights], {}


@of(fp, "resize_masks")
def _(d):
    b, h, w = sizes(d, 20)
    return [d.normal(b, h, w), (d.randint(1, 30), d.randint(1, 30))], {"output": d.choice(("float32", "bool", "uint8"))}


@of(fp, "mask_to_rle")
def _(d):
    return [d.bits(*sizes(d))], {}


for name in ("overlap", "pairwise_iou", "iou"):

    @of(metrics, name)
    def _(d):
        b, h, w = sizes(d, 20)
        return [d.bits(b, h, w), d.whole(0, 3, b, h, w).astype(np.uint8)], {}


@of(metrics, "mean_iou_per_class")
def _(d):
    b, h, w = sizes(d, 20)
    return [d.whole(0, 5, b, h, w), d.whole(0, 5, b, h, w)], {"classes": 5}
