"""SAM's mask decoder: the transformer, the MLPs of the masks' tokens, the mask head, and all in one node."""

import functools
from collections.abc import Iterator
from typing import Any

from fastprompt.export._nodes._body import Graph, Value
from fastprompt.export._nodes._pieces import PIXELS, gelu, layer_norm, linear, mlp, repeated
from fastprompt.export._nodes._record import Arguments, Record, translates

# ---------------------------------------------------------------- the transformer


def attend(g: Graph, q: Value, k: Value, v: Value, width: int, weights: Iterator[Value]) -> Value:
    """Heads of ``width`` channels of (B, T, C)."""
    heads = g.a["heads"]
    by_head = lambda x: linear(x, next(weights), next(weights)).reshape([0, 0, heads, width])  # noqa: E731
    query, key, value = by_head(q).turned(0, 2, 1, 3), by_head(k).turned(0, 2, 3, 1), by_head(v).turned(0, 2, 1, 3)
    made = g.Softmax(query * width**-0.5 @ key, axis=-1) @ value
    joined = made.turned(0, 2, 1, 3).reshape([0, 0, heads * width])  # no -1: there may be no prompt
    return linear(joined, next(weights), next(weights))


def two_way(
    g: Graph, image: Value, position: Value, prompt: Value, *weights: Value, dense: Value | None = None
) -> list[Value]:
    """SAM's two-way transformer on (B, T, C) and (B', C, H, W); ``dense`` is added to the image."""
    left = iter(weights)
    own = functools.partial(attend, g, width=g.a["channels"] // g.a["heads"], weights=left)
    cross = functools.partial(attend, g, width=g.a["width"], weights=left)
    norm = lambda x, eps="@eps": layer_norm(g, x, next(left), next(left), eps)  # noqa: E731
    x = repeated(g, image.reshape(PIXELS), prompt)
    x = x if dense is None else x + repeated(g, dense.reshape(PIXELS), prompt)
    tokens, keys, place = prompt, x.turned(0, 2, 1), position.reshape(PIXELS).turned(0, 2, 1)
    for n in range(g.a["depth"]):
        asked = tokens + prompt if n else tokens
        seen = own(asked, asked, tokens)
        tokens = norm(tokens + seen if n else seen)
        tokens = norm(tokens + cross(tokens + prompt, keys + place, keys))
        tokens = norm(tokens + linear(g.Relu(linear(tokens, next(left), next(left))), next(left), next(left)))
        keys = norm(keys + cross(keys + place, tokens + prompt, tokens))
    tokens = norm(tokens + cross(tokens + prompt, keys + place, keys), "@final_eps")
    shape = g.Concat(prompt.size(0), image.size(1), image.shape(2, 4), axis=0)
    return [tokens, keys.turned(0, 2, 1).reshape(shape, allowzero=1)]


def weight_names(depth: int) -> list[str]:
    """In the order of csrc/decoder/two_way.h."""
    attention = [f"{p}_{k}" for p in ("query", "key", "value", "out") for k in ("weight", "bias")]
    layer = [f"self_{x}" for x in attention] + ["norm1_weight", "norm1_bias"]
    layer += [f"to_image_{x}" for x in attention] + ["norm2_weight", "norm2_bias"]
    layer += ["mlp1_weight", "mlp1_bias", "mlp2_weight", "mlp2_bias", "norm3_weight", "norm3_bias"]
    layer += [f"to_prompt_{x}" for x in attention] + ["norm4_weight", "norm4_bias"]
    names = [f"layer{n}_{x}" for n in range(depth) for x in layer]
    return [*names, *(f"final_{x}" for x in attention), "final_norm_weight", "final_norm_bias"]


SIZES = "heads:i width:i depth:i channels:i eps:f final_eps:f"


def sizes(a: Arguments) -> Arguments:
    """Of torch's arguments."""
    return a | {"channels": int(a["prompt"].of.shape[2]), "eps": a["eps"][0], "final_eps": a["eps"][1]}


Record(
    "TwoWayTransformer",
    "image:T position:T prompt:T weights:T+",
    "tokens:T attended:T",
    SIZES,
    body=two_way,
    weights=lambda a: weight_names(a["depth"]),
    torch="two_way_transformer",
    adapt=sizes,
)

# ---------------------------------------------------------------- the mask head


def head(
    g: Graph, image: Value, vectors: Value, conv1: Value, bias1: Value, norm_weight: Value, norm_bias: Value,
    conv2: Value, bias2: Value, detail1: Value, detail2: Value, *, eps: str = "@eps",
) -> Value:  # fmt: skip
    """A detail of image b' is added to B / B' prompts in order."""

    def up(x: Value, conv: Value, bias: Value, detail: Value) -> Value:
        y = g.ConvTranspose(x, conv, bias, strides=[2, 2])
        images = detail.size(0)
        apart = y.reshape(g.Concat(images, y.size(0) / images, y.shape(1), axis=0), allowzero=1)
        return (apart + detail.unsqueezed(1)).reshape(y.shape(), allowzero=1)

    x = up(image, conv1, bias1, detail1).turned(0, 2, 3, 1)
    x = gelu(g, layer_norm(g, x, norm_weight, norm_bias, eps).turned(0, 3, 1, 2))
    x = gelu(g, up(x, conv2, bias2, detail2))
    sides = x.shape(2, 4)
    pixels = x.reshape(g.Concat(x.shape(0, 2), g.ReduceProd(sides, keepdims=1), axis=0), allowzero=1)
    return (vectors @ pixels).reshape(g.Concat(vectors.shape(0, 2), sides, axis=0), allowzero=1)


HEAD = ["conv1", "bias1", "norm_weight", "norm_bias", "conv2", "bias2", "detail1", "detail2"]

Record(
    "MaskHead",
    "image:T vectors:T conv1:T bias1:T norm_weight:T norm_bias:T conv2:T bias2:T detail1:T?4 detail2:T?4",
    "masks:T",
    "eps:f",
    body=head,
    torch="mask_head",
)

# ---------------------------------------------------------------- the whole decoder


def decoder(g: Graph, image: Value, dense: Value, position: Value, prompt: Value, *weights: Value) -> list[Value]:
    """``dense`` is of all prompts, of each image or of each prompt; one vector or one for each pixel."""
    of_transformer, layers = len(weight_names(g.a["depth"])), 2 * g.a["layers"]
    mlps = weights[of_transformer + len(HEAD) :]
    tokens, attended = two_way(g, image, position, prompt, *weights[:of_transformer], dense=dense)
    vectors = [
        mlp(g, g.Gather(tokens, g.a["first"] + m, axis=1), mlps[layers * m : layers * (m + 1)]).unsqueezed(1)
        for m in range(g.a["masks"])
    ]
    of_head = weights[of_transformer : of_transformer + len(HEAD)]
    return [tokens, head(g, attended, g.Concat(*vectors, axis=1), *of_head, eps="@head_eps")]


def decoder_names(a: Arguments) -> list[str]:
    """Of the inputs behind the prompt."""
    mlps = [f"mask{m}_{x}{n}" for m in range(a["masks"]) for n in range(a["layers"]) for x in ("weight", "bias")]
    return [*weight_names(a["depth"]), *HEAD, *mlps]


DECODER = Record(
    "MaskDecoder",
    "image:T dense:T position:T prompt:T weights:T+",
    "tokens:T masks:T",
    f"{SIZES} head_eps:f first:i masks:i layers:i",
    body=decoder,
    weights=decoder_names,
)


@translates("mask_decoder")
def of_mask_decoder(g: Any, a: Arguments) -> Any:
    details = (g.absent("T?4") if a[k] is None else a[k] for k in ("detail1", "detail2"))
    weights = [*a["weights"], *a["head"], *details, *a["mlps"]]
    masks = len(a["mlps"]) // (2 * a["layers"])
    return g.ours(DECODER, **(sizes(a) | {"weights": weights, "masks": masks, "head_eps": a["eps"][2]}))


@translates("token_mlps")
def of_token_mlps(g: Any, a: Arguments) -> Any:
    count = 2 * a["layers"]
    rows = [g.Gather(a["tokens"], row, axis=1) for row in a["rows"]]
    return [mlp(g, x, a["weights"][count * k : count * (k + 1)]) for k, x in enumerate(rows)]
