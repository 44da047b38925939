"""Attention between prompts and images."""

from typing import Any

from fastprompt.export._kernels import aot
from fastprompt.export._kernels.plans import Launch, Plan, Size, Tensor, need, need_registers, number, pointers, power
from fastprompt.export._nodes._body import Graph, Value
from fastprompt.export._nodes._pieces import PIXELS, layer_norm, repeated
from fastprompt.export._nodes._record import Arguments, Record, translates

SPLITS = 32  # of an image's pixels: one prompt alone would fill 1 of 132 multiprocessors

# ---------------------------------------------------------------- bodies


def pixels_of(g: Graph, image: Value, position: Value, rows: Value) -> tuple[Value, Value]:
    """(B, 1, C, N) of every prompt, with and without positions."""
    x = repeated(g, image.reshape(PIXELS), rows)
    return (x + position.reshape(PIXELS)).unsqueezed(1), x.unsqueezed(1)


def by_head(g: Graph, weight: Value, image: Value, rows: Value) -> Value:
    """A weight (H width, C) as (H, width, C)."""
    return weight.reshape(g.Concat(rows.size(1), [-1], image.size(1), axis=0))


def there(g: Graph, rows: Value, lengths: Value) -> Value:
    """Which prompt tokens exist, (B or 1, 1, T, 1)."""
    steps = g.Range(0, g.Squeeze(rows.size(2)), 1)
    return (steps < lengths.unsqueezed(1)).unsqueezed(1, 3)


def prompt_to_image(g: Graph, image: Value, position: Value, query: Value, *rest: Value) -> Value:
    """(B, H, T, C) absorbed, (B, H, T, width) projected."""
    *weights, bias, lengths = rest
    key, value = pixels_of(g, image, position, query)
    if weights:
        key, value = (by_head(g, w, image, query) @ x for w, x in zip(weights, (key, value), strict=True))
    logits = query @ key + bias.reshape(PIXELS).unsqueezed(1)
    peak = g.ReduceMax(logits, [-1], keepdims=1)
    weight = g.Exp(logits - g.Where(g.IsInf(peak), 0.0, peak))
    total = g.Max(g.ReduceSum(weight, [-1], keepdims=1), 1e-38)
    return g.Where(there(g, query, lengths), weight @ value.turned(0, 1, 3, 2) / total, 0.0)


def image_to_prompt(
    g: Graph, image: Value, position: Value, key: Value, bias: Value, value: Value, *rest: Value
) -> Value:
    """(B, C, H, W); residual and LayerNorm are nodes of their own."""
    *weights, out_bias, lengths = rest
    query, _ = pixels_of(g, image, position, key)
    if weights:
        query = by_head(g, weights[0], image, key) @ query
    logits = g.Where(there(g, key, lengths), key @ query + bias.unsqueezed(-1), float("-inf"))
    parts = value.turned(0, 1, 3, 2) @ g.Softmax(logits, axis=2)
    if weights:
        mixed = weights[1] @ parts.reshape(g.Concat(key.size(0), [-1], query.size(3), axis=0))
    else:
        mixed = g.ReduceSum(parts, [1], keepdims=0)
    return (mixed + out_bias.unsqueezed(1)).reshape(g.Concat(key.size(0), image.shape(1), axis=0), allowzero=1)


# ---------------------------------------------------------------- plans


def attention_sizes(image: Tensor, rows: Tensor, position: Tensor) -> tuple[int, int, int]:
    """Channels, heads and the most prompt tokens."""
    channels, heads, tokens = image.known(1), rows.known(1), rows.largest[2]
    need(channels is not None and heads is not None and tokens is not None, "channels and heads must be fixed")
    need(position.absent or position.known(0) == 1, "position must be one for all images")
    need(channels <= 256, f"at most 256 channels, got {channels}")  # type: ignore[operator]
    return channels, heads, tokens  # type: ignore[return-value]


def to_image_plan(given: list[Tensor], attributes: dict[str, Any], precision: str) -> Plan:
    from fastprompt.kernels import attention_nodes as nodes

    image, position, query, bias = given[:4]
    channels, heads, _ = attention_sizes(image, query, position)
    types, wide = [x.type for x in given], power(channels)
    need(len({*types[:4]}) == 1 and types[4] == "i64", "all inputs must be of one type")
    pixels, prompts, tokens = Size.of(0, 2) * Size.of(0, 3), Size.of(2, 0), Size.of(2, 2)
    rows = tokens * heads
    per_split = pixels.up(SPLITS).up(32) * 32
    splits = pixels.up(per_split)
    bias_stride = Size(0) if bias.absent else (Size.of(3, 0) - 1).least(1) * tokens * pixels
    need_registers(types[0], precision, channels)
    block, warps, stages = (32, 8 if wide > 64 else 4, 1) if types[0] == "f32" else (64, 8, 2)
    constants: dict[str, Any] = {"C": channels, "BC": wide, "H": heads, "BJ": block, "BN": 32}
    constants |= {"HAS_POSITION": not position.absent, "HAS_BIAS": not bias.absent, "PRECISION": precision}
    signature = pointers([*types, *["f32"] * 3]) + " i32" * 6
    kernel = aot.compiled(nodes.to_image_kernel, signature, constants, warps, stages)
    sizes = (pixels, tokens, per_split, prompts // Size.of(0, 0), bias_stride, (Size.of(4, 0) - 1).least(1))
    first = Launch(
        kernel, (splits, rows.up(block), prompts),
        ["i0", "i1", "i2", "i3", "i4", "s0", "s1", "s2", *map(number, sizes)],
    )  # fmt: skip
    merge = aot.compiled(
        nodes.merge_kernel, pointers(["f32"] * 3 + [types[0]]) + " i32 i32",
        {"C": channels, "BC": wide, "S": SPLITS}, warps=4,
    )  # fmt: skip
    second = Launch(merge, (rows, prompts, 1), ["s0", "s1", "s2", "o0", number(splits), number(rows)])
    each = prompts * SPLITS * rows * 4
    outputs = [(types[0], [prompts, heads, tokens, channels])]
    return Plan(types, outputs, [each * channels, each, each], [first, second])


def to_prompt_plan(given: list[Tensor], attributes: dict[str, Any], precision: str) -> Plan:
    from fastprompt.kernels import attention_nodes as nodes

    image, position, key = given[:3]
    channels, heads, most = attention_sizes(image, key, position)
    types = [x.type for x in given]
    need(len({*types[:6]}) == 1 and types[6] == "i64", "all inputs must be of one type")
    need(most <= 128, f"at most 128 prompt tokens, got {most}")
    pixels, prompts, tokens = Size.of(0, 2) * Size.of(0, 3), Size.of(2, 0), Size.of(2, 2)
    need_registers(types[0], precision, channels)
    warps = 8 if types[0] == "f32" and channels > 64 else 4
    constants: dict[str, Any] = {"C": channels, "BC": power(channels), "H": heads, "BT": power(most), "BN": 32}
    constants |= {"HAS_POSITION": not position.absent, "PRECISION": precision}
    signature = pointers(types) + " i32" * 4 + " " + pointers([types[0]])
    kernel = aot.compiled(nodes.to_prompt_kernel, signature, constants, warps, stages=1)
    sizes = (pixels, tokens, prompts // Size.of(0, 0), (Size.of(6, 0) - 1).least(1))
    launch = Launch(kernel, (pixels.up(32), prompts, 1), [*(f"i{n}" for n in range(7)), *map(number, sizes), "o0"])
    return Plan(types, [(types[0], [prompts, channels, Size.of(0, 2), Size.of(0, 3)])], [], [launch])


# ---------------------------------------------------------------- records

TO_IMAGE = Record(
    "PromptToImageAttention",
    "image:T position:T?4 query:T bias:T?4 lengths:i?",
    "out:T",
    body=prompt_to_image,
    plan=to_image_plan,
    halves=True,
)
TO_IMAGE_PROJECTED = Record(
    "PromptToImageProjected",
    "image:T position:T?4 query:T key_weight:T value_weight:T bias:T?4 lengths:i?",
    "out:T",
    body=prompt_to_image,
)
TO_PROMPT = Record(
    "ImageToPromptAttention",
    "image:T position:T?4 key:T bias:T value:T out_bias:T lengths:i?",
    "out:T",
    body=image_to_prompt,
    plan=to_prompt_plan,
    halves=True,
    quick=True,
)
TO_PROMPT_PROJECTED = Record(
    "ImageToPromptProjected",
    "image:T position:T?4 key:T bias:T value:T query_weight:T out_weight:T out_bias:T lengths:i?",
    "out:T",
    body=image_to_prompt,
)


@translates("prompt_to_image")
def of_prompt_to_image(g: Any, a: Arguments) -> Any:
    return g.ours(TO_IMAGE if a["key_weight"] is None else TO_IMAGE_PROJECTED, **a)


@translates("image_to_prompt")
def of_image_to_prompt(g: Any, a: Arguments) -> Any:
    out = g.ours(TO_PROMPT if a["query_weight"] is None else TO_PROMPT_PROJECTED, **a)
    if a["residual"]:
        out = out + repeated(g, a["image"], a["key"])
    if a["norm_weight"] is not None:
        out = layer_norm(g, out.turned(0, 2, 3, 1), a["norm_weight"], a["norm_bias"], a["eps"]).turned(0, 3, 1, 2)
    return out
