"""The operators of the memory read: shapes, kernel, gradient."""

from typing import Any

from fastprompt._later import Later
from fastprompt.ops._arrays import dtype_name
from fastprompt.ops._axes import floating
from fastprompt.ops._operator import Gradient, Operator
from fastprompt.ops.encoder.call import LANES
from fastprompt.ops.memory import call

formulas, reference = Later("fastprompt.ops.memory.formulas"), Later("fastprompt.reference.memory")


def of_rows(q: Any, of_results: str = "") -> str:
    kind = floating(q)
    rows = f"q {kind}: images queries heads width, k {kind}: images keys heads width, v {kind}: images keys heads depth"
    return rows + of_results.replace("=", kind)


def of_read(q: Any, k: Any, v: Any, scale: float) -> Any:
    batch, queries, heads, _ = q.shape
    return [((batch, queries, heads, v.shape[3]), q.dtype), ((batch, heads, queries), q.dtype)]


def takes(q: Any, k: Any, v: Any, scale: float) -> bool:
    """float32, and whole vectors."""
    return q.shape[3] % LANES == v.shape[3] % LANES == 0 and all(dtype_name(x) == "float32" for x in (q, k, v))


def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:3], *output)
    ctx.mark_non_differentiable(output[1])
    ctx.scale = inputs[3]


def backward(ctx: Any, grad: Any, _: Any) -> tuple[Any, ...]:
    return (*memory_read_backward(grad.contiguous(), *ctx.saved_tensors, ctx.scale), None)


memory_read_backward = Operator(
    "memory_read_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor log_weight, float scale) "
    "-> (Tensor, Tensor, Tensor)",
    axes=lambda grad, q, *rest: of_rows(
        q, ", grad =: images queries heads depth, out =: images queries heads depth, log_weight =: images heads queries"
    ),
    out=lambda grad, q, k, v, *rest: [(x.shape, x.dtype) for x in (q, k, v)],
    reference=reference.memory_read_backward,
    formula=formulas.gradient,
    gradient="formula",
)
# out, and the log of the sums of the weights (B, H, N), which the gradient reads.
memory_read = Operator(
    "memory_read(Tensor q, Tensor k, Tensor v, float scale) -> (Tensor, Tensor)",
    axes=lambda q, *rest: of_rows(q),
    out=of_read,
    call=call.memory_read,
    takes=takes,
    reference=reference.memory_read,
    formula=formulas.read,
    gradient=Gradient(backward, setup),
)
