"""Memory reads."""

from typing import Any

from fastprompt.export._nodes._body import Graph, Value
from fastprompt.export._nodes._pieces import linear
from fastprompt.export._nodes._record import Arguments, Record, translates

TABLES = "cos:T sin:T key_cos:T key_sin:T unturned:i"


def logits_of(g: Graph, q: Value, k: Value) -> Value:
    return q.turned(0, 2, 1, 3) * "@scale" @ k.turned(0, 2, 3, 1)


def values_at(g: Graph, logits: Value, v: Value) -> Value:
    return (g.Softmax(logits, axis=-1) @ v.turned(0, 2, 1, 3)).turned(0, 2, 1, 3)


def read(g: Graph, q: Value, k: Value, v: Value) -> list[Value]:
    logits = logits_of(g, q, k)
    return [values_at(g, logits, v), g.ReduceLogSumExp(logits, [-1], keepdims=0)]


READ = Record("MemoryRead", "q:T k:T v:T", "out:T log_weight:T", "scale:f", body=read, torch="memory_read")

# ---------------------------------------------------------------- with rotary positions


def turned_read(
    g: Graph, q: Value, k: Value, v: Value, cos: Value, sin: Value, key_cos: Value, key_sin: Value, unturned: Value
) -> Value:
    """Keys are frames, all turned by the same tables, and then ``unturned`` others."""
    count, positions = k.size(1) - unturned.reshape([1]), key_cos.size(0)  # OpenVINO wants to know that it is one
    frames, others = g.Slice(k, [0], count, [1]), g.Slice(k, count, k.size(1), [1])
    apart = frames.reshape(g.Concat(k.size(0), count / positions, positions, k.shape(2), axis=0), allowzero=1)
    turned = turn(g, apart, key_cos, key_sin).reshape(frames.shape(), allowzero=1)
    return values_at(g, logits_of(g, turn(g, q, cos, sin), g.Concat(turned, others, axis=1)), v)


def turn(g: Graph, x: Value, cos: Value, sin: Value) -> Value:
    """Pairs (2 i, 2 i + 1) of (…, N, H, D) by the angles of (N, D), in real numbers."""
    pairs = x.reshape(g.Concat(x.shape(0, -1), x.shape(-1) / 2, [2], axis=0), allowzero=1)
    left, right = (g.Slice(pairs, [n], [n + 1], [-1]) for n in (0, 1))
    swapped = g.Concat(-right, left, axis=-1).reshape(x.shape(), allowzero=1)
    return x * cos.unsqueezed(1) + swapped * sin.unsqueezed(1)


def projected_read(
    g: Graph, q: Value, source: Value, value: Value, weight: Value, bias: Value, *tables: Value
) -> Value:
    """Of one head, with keys that are a linear layer of the memory."""
    heads = (x.unsqueezed(2) for x in (q, linear(source, weight, bias), value))
    return g.Squeeze(turned_read(g, *heads, *tables), [2])


TURNED = Record("TurnedMemoryRead", f"q:T k:T v:T {TABLES}", "out:T", "scale:f", body=turned_read)
PROJECTED = Record(
    "ProjectedMemoryRead",
    f"q:T source:T value:T weight:T bias:T {TABLES}",
    "out:T",
    "size:I scale:f",
    body=projected_read,
)


@translates("turned_memory_read")
def of_turned_memory_read(g: Any, a: Arguments) -> Any:
    return g.ours(TURNED, **(a | {"unturned": a["unturned"].reshape([1])}))


@translates("projected_memory_read")
def of_projected_memory_read(g: Any, a: Arguments) -> Any:
    weight, bias = a["linear"]
    return g.ours(PROJECTED, **(a | {"weight": weight, "bias": bias, "unturned": a["unturned"].reshape([1])}))
