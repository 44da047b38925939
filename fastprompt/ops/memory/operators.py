"""The operators of the memory read: shapes, kernel, gradient."""

from typing import Any

from fastprompt._later import Later
from fastprompt.ops._arrays import dtype_name
from fastprompt.ops._axes import floating
from fastprompt.ops._operator import Gradient, Operator
from fastprompt.ops.encoder.operators import of_linear
from fastprompt.ops.memory import call

formulas, reference = Later("fastprompt.ops.memory.formulas"), Later("fastprompt.reference.memory")


def of_rows(q: Any, of_results: str = "") -> str:
    kind = floating(q)
    rows = f"q {kind}: images queries heads width, k {kind}: images keys heads width, v {kind}: images keys heads depth"
    return rows + of_results.replace("=", kind)


def of_read(q: Any, k: Any, v: Any, scale: float) -> Any:
    batch, queries, heads, _ = q.shape
    return [((batch, queries, heads, v.shape[3]), q.dtype), ((batch, heads, queries), q.dtype)]


def takes(*args: Any) -> bool:
    return all(dtype_name(x) == "float32" for x in args if hasattr(x, "dtype"))


def of_turned(q: Any, key_cos: Any, keys: int, unturned: int) -> str:
    """Of the tables by which queries and keys are turned."""
    if not 0 <= unturned <= keys:
        raise ValueError(f"unturned must be between 0 and the number of keys {keys}, got {unturned}")
    if keys != unturned and (key_cos.shape[0] == 0 or (keys - unturned) % key_cos.shape[0]):
        raise ValueError(f"unturned must leave a multiple of the rows of key_cos, got {unturned} of {keys} keys")
    if q.shape[-1] % 2:
        raise ValueError(f"q must have an even width, got {q.shape[-1]}")
    kind = floating(q)
    names = "cos {0}: queries width, sin {0}: queries width, key_cos {0}: positions width, key_sin {0}: positions width"
    return ", " + names.format(kind)


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
    gpu=formulas.read_gpu,
    gradient=Gradient(backward, setup),
)
# out, of queries and keys that are turned; the last ``unturned`` keys are not. See reference/memory.py.
turned_memory_read = Operator(
    "turned_memory_read(Tensor q, Tensor k, Tensor v, Tensor cos, Tensor sin, Tensor key_cos, Tensor key_sin, "
    "SymInt unturned, float scale) -> Tensor",
    axes=lambda q, k, v, cos, sin, key_cos, key_sin, unturned, scale: (
        of_rows(q) + of_turned(q, key_cos, k.shape[1], unturned)
    ),
    out=lambda q, k, v, *rest: ((*q.shape[:3], v.shape[3]), q.dtype),
    call=call.turned_memory_read,
    takes=takes,
    reference=reference.turned_memory_read,
    formula=formulas.turned_read,
    gpu=formulas.turned_read_gpu,
    gradient="formula",
)
# The same of one head whose keys are linear(source) = weight (D, C), bias; ``size``: rows and columns of the positions
# of a frame. No gradient.
projected_memory_read = Operator(
    "projected_memory_read(Tensor q, Tensor source, Tensor value, Tensor[] linear, Tensor cos, Tensor sin, "
    "Tensor key_cos, Tensor key_sin, int[] size, SymInt unturned, float scale) -> Tensor",
    axes=lambda q, source, value, linear, cos, sin, key_cos, key_sin, size, unturned, scale: (
        "q: images queries width, source: images keys depth, value: images keys depth, linear: width depth / width, "
        "size: 2" + of_turned(q, key_cos, source.shape[1], unturned)
    ),
    out=lambda q, source, *rest: ((*q.shape[:2], source.shape[2]), q.dtype),
    call=call.projected_memory_read,
    reference=reference.projected_memory_read,
    gpu=formulas.projected_read_gpu,
    flops=lambda q, source, value, linear, *rest: (
        of_linear(source, linear[0]) + 2 * q.shape[0] * q.shape[1] * source.shape[1] * sum(linear[0].shape)
    ),
)
