"""The operators of encoder layers: shapes, kernels, gradient."""

import math
from typing import Any

from fastprompt._later import Later
from fastprompt.ops._arrays import dtype_name
from fastprompt.ops._axes import floating
from fastprompt.ops._operator import Gradient, Operator
from fastprompt.ops.encoder import call
from fastprompt.ops.encoder.call import LANES

formulas, reference = Later("fastprompt.ops.encoder.formulas"), Later("fastprompt.reference.encoder")


def of_linear(x: Any, weight: Any) -> int:
    """Floating-point operations for all rows of x."""
    return int(2 * math.prod(x.shape[:-1]) * math.prod(weight.shape))


# linear(LN(x)) of tokens (…, C): norm = weight, bias, or nothing: linear(x); linear = weight (O, C), bias. No gradient.
normalised_linear = Operator(
    "normalised_linear(Tensor x, Tensor[] norm, float eps, Tensor[] linear) -> Tensor",
    axes=lambda x, norm, *rest: (
        "x: ... channels, linear: rows channels / rows" + (", norm: channels / channels" if len(norm) else "")
    ),
    out=lambda x, norm, eps, linear: ((*x.shape[:-1], linear[0].shape[0]), x.dtype),
    call=call.normalised_linear,
    reference=reference.normalised_linear,
    flops=lambda x, norm, eps, linear: of_linear(x, linear[0]),
)
# y + mlp(LN(y)) with y = x + project(attended): project = weight, bias; mlp = weight, bias, weight, bias; activation =
# "gelu", the exact one, or "relu". No gradient.
residual_mlp = Operator(
    "residual_mlp(Tensor x, Tensor attended, Tensor[] project, Tensor[] norm, float eps, Tensor[] mlp, "
    "str activation) -> Tensor",
    axes="x: ... channels, attended: ... width, project: channels width / channels, norm: channels / channels, "
    "mlp: hidden channels / hidden / channels hidden / channels",
    out=lambda x, *rest: (x.shape, x.dtype),
    call=call.residual_mlp,
    reference=reference.residual_mlp,
    flops=lambda x, attended, project, norm, eps, mlp, activation: sum(
        of_linear(x, w) for w in (project[0], mlp[0], mlp[2])
    ),
)


# ---------------------------------------------------------------- relative position


def takes(q: Any, k: Any, v: Any, *rest: Any) -> bool:
    """float32, and whole vectors."""
    return q.shape[3] % LANES == 0 and all(dtype_name(x) == "float32" for x in (q, k, v))


def of_grid(q: Any, coordinates: Any, size: Any, window: Any = (0, 0)) -> str:
    """What the attention and its gradient have in common."""
    if len(size) != 2 or len(window) != 2 or not all(n > 0 for n in size):
        raise ValueError(f"size and window must be two numbers, those of size positive, got {size} and {window}")
    if any(window) and not all(n > 0 for n in window):
        raise ValueError(f"window must be two positive numbers, or two zeros: none, got {window}")
    steps = [
        2 * (whole if window == [0, 0] or not any(window) else part) - 1
        for whole, part in zip(size, window, strict=True)
    ]
    kind = floating(q)
    whole = "" if coordinates is not None else f", q {kind}: images {math.prod(size)} heads width"
    return (
        f"q {kind}: images tokens heads width, k {kind}: images tokens heads width, "
        f"v {kind}: images tokens heads width, "
        f"rel_h {kind}: {steps[0]} width, rel_w {kind}: {steps[1]} width, coordinates whole: 1|images tokens 2{whole}"
    )


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
    axes=lambda grad, q, k, v, rel_h, rel_w, coordinates, out, log_weight, size, scale: (
        of_grid(q, coordinates, size) + f", grad {floating(q)}: images tokens heads width, "
        f"out {floating(q)}: images tokens heads width, log_weight: images heads tokens"
    ),
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
    axes=lambda q, k, v, rel_h, rel_w, coordinates, pad_key, pad_value, size, window, scale: (
        of_grid(q, coordinates, size, window)
        + f", pad_key {floating(q)}: heads width, pad_value {floating(q)}: heads width"
    ),
    out=of_attention,
    call=call.relative_attention,
    check=lambda *args: check_places(args[5], args[8]),
    takes=takes,
    reference=reference.relative_attention,
    formula=formulas.attention,
    gpu=formulas.attention_gpu,
    gradient=Gradient(backward, setup),
)


# ---------------------------------------------------------------- windows without position, pooled queries


def of_pooled(q: Any, k: Any, v: Any, pad_key: Any, pad_value: Any, size: Any, window: Any, pool: int) -> str:
    if len(size) != 2 or len(window) != 2 or not all(n > 0 for n in size) or not (all(window) or not any(window)):
        raise ValueError(f"size must be two positive numbers, window two or (0, 0), got {size} and {window}")
    if pool < 1 or any(n % pool for n in (*size, *window)) or any(n < 0 for n in window):
        raise ValueError(f"pool must be positive and divide size {size} and window {window}, got {pool}")
    whole = not window[0] or not any(n % m for n, m in zip(size, window, strict=True))
    if not whole and (pad_key is None or pad_value is None):
        raise ValueError("pad_key and pad_value must be given: windows do not divide the grid")
    kind, tokens = floating(q), math.prod(size)
    rows = ", ".join(f"{name} {kind}: images {tokens} heads width" for name in "qkv")
    return f"{rows}, pad_key {kind}: heads width, pad_value {kind}: heads width"


# softmax(scale q k^T) v among the tokens of a grid (B, h w, heads, width), or in windows of it; positions of the last
# windows outside the grid have the same key and value. With `pool`, queries are the largest of pool x pool.
grid_attention = Operator(
    "grid_attention(Tensor q, Tensor k, Tensor v, Tensor? pad_key, Tensor? pad_value, int[] size, int[] window, "
    "int pool, float scale) -> Tensor",
    axes=lambda *args: of_pooled(*args[:8]),
    out=lambda q, k, v, pad_key, pad_value, size, window, pool, scale: (
        (q.shape[0], math.prod(n // max(pool, 1) for n in size), *q.shape[2:]),
        q.dtype,
    ),
    call=call.grid_attention,
    takes=lambda *args: all(dtype_name(x) == "float32" for x in args[:3]),
    reference=reference.grid_attention,
    formula=formulas.grid_attention,
    gpu=formulas.grid_attention_gpu,
    gradient="formula",
)


# ---------------------------------------------------------------- whole layers


def of_layer(x: Any, norm1: Any, qkv: Any, residual: Any, project: Any, *rest: Any) -> str:
    heads, window, pool = rest[2:5]
    if len(project) != 2 or project[0].ndim != 2:
        raise ValueError(f"project must hold a weight and a bias, got shapes {[tuple(w.shape) for w in project]}")
    if pool < 1 or window < 0 or any(n % pool for n in (*x.shape[1:3], window)):
        raise ValueError(f"pool must divide rows and columns of x {tuple(x.shape)} and window {window}, got {pool}")
    if heads < 1 or project[0].shape[-1] % heads:
        raise ValueError(f"heads must divide the {project[0].shape[-1]} columns of project, got {heads}")
    if not len(residual) and (pool > 1 or project[0].shape[0] != x.shape[-1]):
        raise ValueError("residual must be given where queries are pooled, or channels change")
    return (
        "x: images height columns channels, norm1: channels / channels, project: outputs width / outputs, "
        "qkv: 3*width channels / 3*width, norm2: outputs / outputs, "
        "mlp: hidden outputs / hidden / outputs hidden / outputs, eps: 2"
        + (", residual: outputs channels / outputs" if len(residual) else "")
    )


def layer_flops(x: Any, norm1: Any, qkv: Any, residual: Any, project: Any, norm2: Any, mlp: Any, *rest: Any) -> int:
    window, pool = rest[1:3]
    height, width = x.shape[1:3]
    keys, pooled = (window or height) * (window or width), x[:, : height // pool, : width // pool]
    linear = of_linear(x, qkv[0]) + (of_linear(x, residual[0]) if len(residual) else 0)
    finish = sum(of_linear(pooled, w) for w in (project[0], mlp[0], mlp[2]))
    return linear + finish + 4 * math.prod(pooled.shape[:3]) * keys * int(project[0].shape[1])


# y + mlp(LN(y)) with y = r + project(attention(qkv(LN(x)))), for tokens (B, h, w, C) of a grid; r = x, or, where the
# queries are pooled, the largest of pool x pool places of residual(LN(x)). eps = of both norms. No gradient.
grid_layer = Operator(
    "grid_layer(Tensor x, Tensor[] norm1, Tensor[] qkv, Tensor[] residual, Tensor[] project, Tensor[] norm2, "
    "Tensor[] mlp, int heads, int window, int pool, float[] eps, str activation) -> Tensor",
    axes=of_layer,
    out=lambda x, norm1, qkv, residual, project, norm2, mlp, heads, window, pool, *rest: (
        (x.shape[0], *(n // max(pool, 1) for n in x.shape[1:3]), project[0].shape[0]),
        x.dtype,
    ),
    call=call.grid_layer,
    reference=reference.grid_layer,
    flops=lambda *args: layer_flops(*args[:10]),
)
