"""Memory reads."""

from fastprompt.export._nodes._body import Graph, Value
from fastprompt.export._nodes._record import Record


def read(g: Graph, q: Value, k: Value, v: Value) -> list[Value]:
    logits = q.turned(0, 2, 1, 3) * "@scale" @ k.turned(0, 2, 3, 1)
    out = g.Softmax(logits, axis=-1) @ v.turned(0, 2, 1, 3)
    return [out.turned(0, 2, 1, 3), g.ReduceLogSumExp(logits, [-1], keepdims=0)]


Record("MemoryRead", "q:T k:T v:T", "out:T log_weight:T", "scale:f", body=read, torch="memory_read")
