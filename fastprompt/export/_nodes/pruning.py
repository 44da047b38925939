"""Scores, selection and merging of tokens."""

from typing import Any

from fastprompt.export._kernels import aot
from fastprompt.export._kernels.plans import BYTES, Launch, Plan, Size, Tensor, multiple, need, number, pointers, power
from fastprompt.export._nodes._body import Graph, Value
from fastprompt.export._nodes._pieces import not_nan, rows_at
from fastprompt.export._nodes._record import Arguments, Record, translates

LOW = float("-inf")


def unit(g: Graph, x: Value) -> Value:
    length: Value = g.Sqrt(g.ReduceSum(x * x, [-1], keepdims=1))
    return x / g.Max(length, 1e-12)


# ---------------------------------------------------------------- scores


def cosine(g: Graph, tokens: Value, prompts: Value) -> Value:
    own = unit(g, tokens)
    return g.ReduceMax(own @ unit(g, prompts).turned(0, 2, 1), [-1], keepdims=0)


def cosine_plan(given: list[Tensor], attributes: dict[str, Any], precision: str) -> Plan:
    from fastprompt.kernels import pruning

    tokens, prompts = given
    channels = tokens.known(2)
    need(channels is not None and tokens.type == prompts.type != "i64", "the channels must be fixed")
    batch, count, others = Size.of(0, 0), Size.of(0, 1), Size.of(1, 1)
    prompt_stride = (Size.of(1, 0) - 1).least(1) * others * channels  # 0: one set of prompts for all images
    tile, piece = pruning.scores_tile(BYTES[tokens.type])
    constants = {"C": channels, "row_stride": channels, "BN": tile, "BC": piece}
    constants["PIECES"] = min(8, -(-channels // piece))  # type: ignore[operator]
    strides = f" {multiple(channels)}" * 2
    types = pointers([tokens.type, prompts.type, tokens.type]) + " i32 i32" + strides
    kernel = aot.compiled(pruning.scores_kernel, types, constants, warps=1, stages=1)
    arguments = ["i0", "i1", "o0", *map(number, (count, others, prompt_stride, count * channels))]
    launch = Launch(kernel, (count.up(tile), batch, 1), arguments)
    return Plan([tokens.type, prompts.type], [(tokens.type, [batch, count])], [], [launch])


Record(
    "CosineScores", "tokens:T prompts:T", "scores:T", body=cosine, torch="cosine_scores", plan=cosine_plan, quick=True
)

# ---------------------------------------------------------------- selection


def prune(g: Graph, tokens: Value, scores: Value, always: Value) -> list[Value]:
    """The ``count`` highest, equal ones by the lowest index, in their order; a NaN counts as -inf."""
    g.like = scores
    marked = g.Where(always, -LOW, not_nan(g, scores, LOW))
    _, chosen = g.several(2, "TopK", marked, g.value("@count").reshape([-1]), axis=1, largest=1, sorted=1)
    indices, _ = g.several(2, "TopK", chosen, g.value("@count").reshape([-1]), axis=1, largest=0, sorted=1)
    return [rows_at(g, tokens, indices), indices]


def prune_plan(given: list[Tensor], attributes: dict[str, Any], precision: str) -> Plan:
    from fastprompt.kernels import pruning

    tokens, scores, always = given
    channels, most, kept = tokens.known(2), tokens.largest[1], attributes["count"]
    need(channels is not None and most is not None, "the channels must be fixed, and the tokens have a range")
    need(most <= 16384, f"at most 16384 tokens, got {most}")  # type: ignore[operator]
    need(scores.type == "f32" and always.type == "bool", "scores must be float32 and always bool")
    batch, count = Size.of(0, 0), Size.of(0, 1)
    everyone = max(32, power(most))  # type: ignore[arg-type]
    stride = Size(0) if always.absent else (Size.of(2, 0) - 1).least(1) * count
    constants = {"C": channels, "row_stride": channels, "ALL": everyone, "BN": 32, "BC": 64}
    constants |= {"HAS_ALWAYS": not always.absent, "HAS_LIMITS": False, "MIXED": False, "limits": None, "samples": 0}
    types = pointers([tokens.type, "f32", "bool", tokens.type, "i64"]) + f" i32 i32 i32 {multiple(channels)} i32"
    warps = 4 if everyone <= 2048 else 8 if everyone <= 8192 else 16  # no spills
    kernel = aot.compiled(pruning.prune_kernel, types, constants, warps)
    numbers = (count, kept, kept, count * channels, stride)
    launch = Launch(kernel, (count.up(32), batch, 1), ["i0", "i1", "i2", "o0", "o1", *map(number, numbers)])
    outputs = [(tokens.type, [batch, kept, channels]), ("i64", [batch, kept])]
    return Plan([tokens.type, "f32", "bool"], outputs, [], [launch])


def of_prune_rows(a: Arguments) -> Arguments:
    if a["counts"] is not None or a["background"] >= 1e-9:
        raise ValueError("prune_tokens is exported with keep or count only, without threshold and stride_mix")
    return a


Record(
    "PruneTokens",
    "tokens:T scores:a always:a?2",
    "kept:T indices:i",
    "count:i",
    body=prune,
    torch="prune_rows",
    adapt=of_prune_rows,
    plan=prune_plan,
    quick=True,
    kept="count",
)


def longer(g: Graph, rows: Value) -> Value:
    """With a row of zeros behind the last one."""
    return g.Pad(rows, [0, 0, 0, 0, 1, 0])


def inside(g: Graph, index: Value, count: Value) -> Value:
    """What lies beyond the tensor goes to the row behind the last one."""
    return g.Where((index < [0]) | (index >= count), count, index)


def gather(g: Graph, rows: Value, index: Value) -> Value:
    return rows_at(g, longer(g, rows), inside(g, index, rows.size(1)))


def scatter(g: Graph, base: Value, rows: Value, index: Value) -> Value:
    """``base`` (B, N, C) or one 0; rows (B, K, C) go to index (B, K)."""
    count = g.value("@count").reshape([-1])
    whole = g.Expand(base, g.Concat(rows.size(0), count, rows.size(2), axis=0))
    places = g.Expand(inside(g, index, count).unsqueezed(-1), rows.shape())
    return g.Slice(g.ScatterElements(longer(g, whole), places, rows, axis=1), [0], count, [1])


Record("GatherTokens", "rows:T index:i", "out:T", body=gather, torch="gather_rows")
SCATTER = Record("ScatterTokens", "base:T?3 rows:T index:i", "out:T", "count:i", body=scatter)


@translates("scatter_rows")
def of_scatter_rows(g: Any, a: Arguments) -> Any:
    base = g.CastLike(g.absent("T?3"), a["rows"]) if a["base"] is None else a["base"]
    return g.ours(SCATTER, **(a | {"base": base}))


# ---------------------------------------------------------------- merging


def match(g: Graph, metric: Value) -> list[Value]:
    """Even places a and odd places b behind the first ``spared``: the a with the highest cosine to any b are merged."""
    g.like, spared = metric, g.a["spared"]
    first, second, merged = spared + spared % 2, spared | 1, g.value("@merged").reshape([-1])
    own, end = unit(g, metric), [2**63 - 1]
    a, b = (g.Slice(own, [start], end, [1], [2]) for start in (first, second))
    cosines = not_nan(g, a @ b.turned(0, 2, 1), LOW)
    best, nearest = g.ReduceMax(cosines, [2], keepdims=0), g.ArgMax(cosines, axis=2, keepdims=0)
    _, chosen = g.several(2, "TopK", best, merged, axis=1, largest=1, sorted=1)
    start = chosen * [2] + [first]
    partner = g.GatherElements(nearest, chosen, axis=1) * [2] + [second]
    count, each = metric.size(1), metric.shape(0, 2)
    numbers = g.Expand(g.Range(0, g.Squeeze(count), 1), each)
    stays = g.ScatterElements(g.Expand([1], each), start, g.Expand([0], start.shape()), axis=1)
    _, kept = g.several(2, "TopK", numbers - stays * count, count - merged, axis=1, largest=0, sorted=1)
    goal = g.ScatterElements(numbers, start, partner, axis=1)
    return [kept, g.GatherElements(g.CumSum(stays, 1) - [1], goal, axis=1)]


def merge(g: Graph, tokens: Value, size: Value, kept: Value, target: Value) -> Value:
    """``kept`` (B, M) only gives the size. Sums by scatter, divided by the sums of the sizes."""
    add = {"axis": 1, "reduction": "add"}
    total = g.ScatterElements(g.Expand(0.0, kept.shape()), target, size, **add)
    place = g.Expand(target.unsqueezed(-1), tokens.shape())
    zeros = g.Expand(0.0, g.Concat(kept.shape(), tokens.size(2), axis=0))
    sums: Value = g.ScatterElements(zeros, place, tokens * size.unsqueezed(-1), **add)
    return sums / total.unsqueezed(-1)


def merge_by_product(g: Graph, tokens: Value, size: Value, kept: Value, target: Value) -> Value:
    """TensorRT's scatter does not add: a matrix (B, M, N) of the sizes at their targets, times the tokens."""
    row = g.Range(0, g.Squeeze(kept.size(1)), 1).unsqueezed(-1)
    weights = g.CastLike(g.Equal(target.unsqueezed(1), row), size) * size.unsqueezed(1)
    return weights @ tokens / g.ReduceSum(weights, [-1], keepdims=1)


Record("MatchTokens", "metric:a", "kept:i target:i", "merged:i spared:i", body=match, torch="match_tokens")
Record(
    "MergeTokens",
    "tokens:T size:T kept:i target:i",
    "merged:T",
    body=merge,
    for_tensorrt=merge_by_product,
    torch="merge_rows",
)
