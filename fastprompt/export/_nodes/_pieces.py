"""What several bodies are made of."""

from typing import Any

from fastprompt.export._nodes._body import Graph, Value

PIXELS = [0, 0, -1]  # (B, C, H, W) to (B, C, H W)


def repeated(g: Graph, x: Value, rows: Value) -> Value:
    """Item b' of ``x`` for B / B' of the B ``rows``, in order."""
    items, count, rest = x.size(0), rows.size(0), x.shape(1)
    many = g.Expand(x.unsqueezed(1), g.Concat(items, count / items, rest, axis=0))
    return many.reshape(g.Concat(count, rest, axis=0), allowzero=1)


def linear(x: Value, weight: Value, bias: Value) -> Value:
    return x @ weight.turned(1, 0) + bias


def layer_norm(g: Graph, x: Value, weight: Value, bias: Value, eps: Any) -> Value:
    return g.LayerNormalization(x, weight, bias, axis=-1, epsilon=eps)


def gelu(g: Graph, x: Value) -> Value:
    """Spelled out: onnx's evaluator has no Gelu inside a function. ONNX Runtime makes one node of it again."""
    return x * (g.Erf(x / 2**0.5) + 1.0) * 0.5


def mlp(g: Graph, x: Value, weights: Any) -> Value:
    """Linear layers with ReLU between them; ``weights``: weight, bias, weight …"""
    for n in range(0, len(weights), 2):
        x = g.Gemm(g.Relu(x) if n else x, weights[n], weights[n + 1], transB=1)
    return x


def rows_at(g: Graph, rows: Value, index: Value) -> Value:
    """Rows (B, K) of (B, N, C)."""
    return g.GatherND(rows, index.unsqueezed(-1), batch_dims=1)


def not_nan(g: Graph, x: Value, instead: Any) -> Value:
    return g.Where(g.IsNaN(x), instead, x)


def levels(g: Graph, x: Value, axes: list[int]) -> tuple[Value, Value]:
    """``x`` less its smallest, and the largest less the smallest."""
    low, high = g.ReduceMin(x, axes, keepdims=1), g.ReduceMax(x, axes, keepdims=1)
    return x - low, high - low
