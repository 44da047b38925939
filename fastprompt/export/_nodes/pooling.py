"""Pooling, similarity and the prior mask."""

from typing import Any

from fastprompt.export._nodes._body import FLOAT, Graph, Value
from fastprompt.export._nodes._pieces import PIXELS, levels, not_nan, repeated
from fastprompt.export._nodes._record import Arguments, Record, translates
from fastprompt.ops.pooling.call import LEVEL_EPS


def masked_pool(g: Graph, features: Value, mask: Value) -> Value:
    """As it is published: features enlarged to the mask, or the mask made as small as they."""
    weight, values = g.CastLike(mask, features), features
    if g.a["background"]:
        weight = g.Concat(weight, 1.0 - weight, axis=1)
    mode = "align_corners" if g.a["align_corners"] else "half_pixel"
    resized = lambda x, like: g.Resize(  # noqa: E731
        x, None, None, like.shape(2), mode="linear", coordinate_transformation_mode=mode, axes=[2, 3]
    )
    if g.a["resize"] == 0:
        if g.a["hard"]:
            raise ValueError(
                "MaskedPool with resize='features' and a threshold has no form in standard ONNX: use flavor='plugin'"
            )
        values = resized(features, mask)
    elif g.a["resize"] == 1:
        weight = resized(weight, features)
    else:
        sides = [(features.size(k), mask.size(k) / features.size(k)) for k in (2, 3)]
        cells = weight.reshape(g.Concat(weight.shape(0, 2), *sides[0], *sides[1], axis=0))
        weight = g.ReduceMean(cells, [3, 5], keepdims=0)
    if g.a["hard"]:
        weight = g.CastLike(weight > "@threshold", features)
    weight = weight.reshape(PIXELS)
    area = g.ReduceSum(weight, [-1], keepdims=1)
    nothing = g.Equal(area, 0.0)
    mean = weight @ values.reshape(PIXELS).turned(0, 2, 1) / g.Where(nothing, 1.0, area + "@eps")
    return g.Where(nothing, "@empty", mean)


def of_masked_pool(a: Arguments) -> Arguments:
    return a | {"hard": a["threshold"] is not None, "threshold": a["threshold"] or 0.0}


Record(
    "MaskedPool",
    "features:T mask:a",
    "pooled:T",
    "resize:i align_corners:i background:i hard:i threshold:f eps:f empty:f",
    body=masked_pool,
    torch="masked_pool",
    adapt=of_masked_pool,
)

# ---------------------------------------------------------------- similarity

NUMBERS = "scale:f eps:f temperature:f sharpest:f"


def cosines(g: Graph, features: Value, rows: Value) -> Value:
    """(B, K, N); rows that are nowhere the sharpest of the softmax get -100."""
    unit = rows / g.Max(g.ReduceL2(rows, [2], keepdims=1), "@eps")
    cosine: Value = unit @ features / g.Max(g.ReduceL2(features, [1], keepdims=1), "@eps")
    if g.a["sharpest"] <= 0:
        return cosine
    share = not_nan(g, g.Softmax(cosine * "@temperature", axis=1), 0.0)
    dull = g.ReduceMax(share, [2], keepdims=1) < "@sharpest"
    return g.Where(dull, -100.0, cosine)


def similarity_map(g: Graph, features: Value, rows: Value) -> Value:
    cosine = cosines(g, features, rows)
    return g.Softmax(cosine * "@temperature", axis=1) if g.a["softmax"] else cosine * "@scale"


def similarity_argmax(g: Graph, features: Value, rows: Value) -> Value:
    g.like = features
    return g.ArgMax(not_nan(g, cosines(g, features, rows), float("-inf")), axis=1, keepdims=0)


Record(
    "SimilarityMap",
    "features:T rows:T",
    "maps:T",
    f"{NUMBERS} softmax:i",
    body=similarity_map,
    torch="similarity_map",
    adapt=lambda a: a | {"softmax": a["kind"] == 1},
)
Record("SimilarityArgmax", "features:a rows:a", "index:i", NUMBERS, body=similarity_argmax, torch="similarity_argmax")

# ---------------------------------------------------------------- the prior mask


def prior(g: Graph, query: Value, support: Value, mask: Value) -> Value:
    """A support pixel without mask has similarity 0, whatever stands in it."""
    own, weight = repeated(g, query, support), mask.unsqueezed(1)
    masked = g.Where(g.Equal(weight, 0.0), 0.0, support * weight)
    lengths = g.ReduceL2(masked, [1], keepdims=0).unsqueezed(2) * g.ReduceL2(own, [1], keepdims=1)
    most = g.ReduceMax(masked.turned(0, 2, 1) @ own / (lengths + "@eps"), [1], keepdims=0)
    above, range_ = levels(g, most, [1])
    return above / (range_ + LEVEL_EPS)


PRIOR = Record("PriorSimilarity", "query:T support:T mask:T", "level:T", "eps:f", body=prior)


@translates("prior_similarity")
def of_prior_similarity(g: Any, a: Arguments) -> Any:
    return g.ours(PRIOR, **a).cast(FLOAT)


@translates("film")
def of_film(g: Any, a: Arguments) -> Any:
    """Two passes of the runtime, which fuses them: a node of ours would be in its way."""
    axis = 1 if a["last"] else 2
    return a["gamma"].unsqueezed(axis) * a["x"] + a["beta"].unsqueezed(axis)
