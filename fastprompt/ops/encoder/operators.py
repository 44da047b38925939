"""The operators of encoder layers: shapes, kernels, gradient."""

from math import prod
from typing import Any

from fastprompt._later import Later
from fastprompt.ops._arrays import dtype_name
from fastprompt.ops._operator import Gradient, Operator
from fastprompt.ops.encoder import call
from fastprompt.ops.encoder.call import LANES

formulas, reference = Later("fastprompt.ops.encoder.formulas"), Later("fastprompt.reference.encoder")


def of_linear(x: Any, weight: Any) -> int:
    """Floating-point operations for all rows of x."""
    return int(2 * prod(x.shape[:-1]) * prod(weight.shape))


# linear(LN(x)) of tokens (…, C): norm = weight, bias, or nothing: linear(x); linear = weight (O, C), bias. No gradient.
normalised_linear = Operator(
    "normalised_linear(Tensor x, Tensor[] norm, float eps, Tensor[] linear) -> Tensor",
    out=lambda x, norm, eps, linear: ((*x.shape[:-1], linear[0].shape[0]), x.dtype),
    call=call.normalised_linear,
    reference=reference.normalised_linear,
    flops=lambda x, norm, eps, linear: of_linear(x, linear[0]),
)
# y + mlp(LN(y)) with y = x + project(attended): project = weight, bias; mlp = weight, bias, weight, bias. No gradient.
residual_mlp = Operator(
    "residual_mlp(Tensor x, Tensor attended, Tensor[] project, Tensor[] norm, float eps, Tensor[] mlp) -> Tensor",
    out=lambda x, *rest: (x.shape, x.dtype),
    call=call.residual_mlp,
    reference=reference.residual_mlp,
    flops=lambda x, attended, project, norm, eps, mlp: sum(of_linear(x, w) for w in (project[0], mlp[0], mlp[2])),
)


# ---------------------------------------------------------------- relative position


def takes(q: Any, k: Any, v: Any, *rest: Any) -> bool:
    """float32, and whole vectors."""
    return q.shape[3] % LANES == 0 and all(dtype_name(x) == "float32" for x in (q, k, v))


def check_places(coordinates: Any, size: Any) -> None:
    if coordinates is None or 0 in coordinates.shape:
        return
    for axis, extent in enumerate(size):
        at = coordinates[..., axis]
        if not 0 <= int(at.min()) <= int(at.max()) < extent:
            raise ValueError(f"coordinates must be (row, column) inside the grid {tuple(size)}, axis {axis} is not")


def of_attention(q: Any, *rest: Any) -> Any:
    batch, tokens, heads, _ = q.shape
    return [(q.shape, q.dtype), ((batch, heads, tokens), "float32")]


def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    q, k, v, rel_h, rel_w, coordinates, _, _, size, window, scale = inputs
    ctx.save_for_backward(q, k, v, rel_h, rel_w, coordinates, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.settings = size, scale
    if window[0] and any(x is not None and x.requires_grad for x in inputs[:8]):
        raise NotImplementedError("relative_attention has a gradient without windows: see by_windows")


def backward(ctx: Any, grad: Any, _: Any) -> tuple[Any, ...]:
    found = relative_attention_backward(grad.contiguous(), *ctx.saved_tensors, *ctx.settings)
    return (*found, *[None] * 6)


relative_attention_backward = Operator(
    "relative_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor rel_h, Tensor rel_w, "
    "Tensor? coordinates, Tensor out, Tensor log_weight, int[] size, float scale) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    out=lambda grad, *args: [(x.shape, x.dtype) for x in args[:5]],
    call=call.relative_attention_backward,
    check=lambda *args: check_places(args[6], args[9]),
    takes=lambda grad, *args: takes(*args[:3]) and all(dtype_name(x) == "float32" for x in (grad, *args[3:5])),
    reference=reference.relative_attention_backward,
    formula=formulas.gradient,
    gpu=formulas.gradient_gpu,
    gradient="formula",
)
# out, and the log of the sums of the weights (B, heads, N), which the gradient reads.
relative_attention = Operator(
    "relative_attention(Tensor q, Tensor k, Tensor v, Tensor rel_h, Tensor rel_w, Tensor? coordinates, "
    "Tensor? pad_key, Tensor? pad_value, int[] size, int[] window, float scale) -> (Tensor, Tensor)",
    out=of_attention,
    call=call.relative_attention,
    check=lambda *args: check_places(args[5], args[8]),
    takes=takes,
    reference=reference.relative_attention,
    formula=formulas.attention,
    gpu=formulas.attention_gpu,
    gradient=Gradient(backward, setup),
)
