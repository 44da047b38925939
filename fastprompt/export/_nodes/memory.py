"""Memory reads."""

from typing import Any

from fastprompt.export._nodes._body import Graph, Value
from fastprompt.export._nodes._pieces import linear
from fastprompt.export._nodes._record import Arguments, Record, translates


def read(g: Graph, q: Value, k: Value, v: Value) -> list[Value]:
    logits = q.turned(0, 2, 1, 3) * "@scale" @ k.turned(0, 2, 3, 1)
    out = g.Softmax(logits, axis=-1) @ v.turned(0, 2, 1, 3)
    return [out.turned(0, 2, 1, 3), g.ReduceLogSumExp(logits, [-1], keepdims=0)]


READ = Record("MemoryRead", "q:T k:T v:T", "out:T log_weight:T", "scale:f", body=read, torch="memory_read")


@translates("turned_memory_read")
def of_turned_memory_read(g: Any, a: Arguments) -> Value:
    """Queries and keys are turned in standard operators; the node reads."""
    key, count = a["k"], a["k"].size(1) - a["unturned"]
    frames, others = g.Slice(key, [0], count, [1]), g.Slice(key, count, key.size(1), [1])
    times = g.Concat(count / a["key_cos"].size(0), [1], axis=0)
    turned = turn(g, frames, *(g.Tile(a[name], times) for name in ("key_cos", "key_sin")))
    query = turn(g, a["q"], a["cos"], a["sin"])
    out: Value = g.ours(READ, q=query, k=g.Concat(turned, others, axis=1), v=a["v"], scale=a["scale"])[0]
    return out


def turn(g: Any, x: Value, cos: Value, sin: Value) -> Value:
    """Pairs (2 i, 2 i + 1) of (B, N, H, D) by the angles of (N, D)."""
    pairs = x.reshape(g.Concat(x.shape(0, 3), x.size(3) / 2, [2], axis=0), allowzero=1)
    left, right = g.several(2, "Split", pairs, axis=-1, num_outputs=2)
    swapped = g.Concat(-right, left, axis=-1).reshape(x.shape(), allowzero=1)
    return x * cos.unsqueezed(1) + swapped * sin.unsqueezed(1)


@translates("projected_memory_read")
def of_projected_memory_read(g: Any, a: Arguments) -> Value:
    key = linear(a["source"], *a["linear"])
    heads = {"q": a["q"].unsqueezed(2), "k": key.unsqueezed(2), "v": a["value"].unsqueezed(2)}
    return g.Squeeze(of_turned_memory_read(g, a | heads), [2])
