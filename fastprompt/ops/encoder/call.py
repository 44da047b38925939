"""The calls into csrc/encoder."""

from typing import Any

import numpy as np

from fastprompt import _C
from fastprompt._runtime import is_tensor, matmul_precision
from fastprompt.ops._arrays import contiguous, plain_floats
from fastprompt.ops._operator import Asked

LANES: int = _C.channel_unit  # the kernels take channels, and the width of a head, in multiples of it


def normalised_linear(x: Any, norm: Any, eps: float, linear: Any, out: Any) -> Asked:
    """``norm``: weight, bias, or nothing. All leading axes of ``x`` are tokens."""
    norm_weight, norm_bias = map(contiguous, norm) if norm else (None, None)
    weight, bias = map(contiguous, linear)
    return _C.normalised_linear, dict(
        x=by_token(contiguous(x)), norm_weight=norm_weight, norm_bias=norm_bias, eps=eps, weight=weight, bias=bias,
        out=by_token(out), precision=matmul_precision(),
    )  # fmt: skip


def residual_mlp(
    x: Any, attended: Any, project: Any, norm: Any, eps: float, mlp: Any, activation: str, out: Any
) -> Asked:
    if attended.shape[:-1] != x.shape[:-1]:
        raise ValueError(f"attended must have the tokens of x, {tuple(x.shape[:-1])}, got {tuple(attended.shape)}")
    project_weight, project_bias = map(contiguous, project)
    norm_weight, norm_bias = map(contiguous, norm)
    mlp1_weight, mlp1_bias, mlp2_weight, mlp2_bias = map(contiguous, mlp)
    return _C.residual_mlp, dict(
        x=by_token(contiguous(x)), attended=by_token(contiguous(attended)), project_weight=project_weight,
        project_bias=project_bias, norm_weight=norm_weight, norm_bias=norm_bias, eps=eps, mlp1_weight=mlp1_weight,
        mlp1_bias=mlp1_bias, mlp2_weight=mlp2_weight, mlp2_bias=mlp2_bias, activation=activation, out=by_token(out),
        precision=matmul_precision(),
    )  # fmt: skip


def grid_layer(
    x: Any, norm1: Any, qkv: Any, residual: Any, project: Any, norm2: Any, mlp: Any, heads: int, window: int, pool: int,
    eps: Any, activation: str, out: Any,
) -> Asked:  # fmt: skip
    pairs = {"norm1": norm1, "qkv": qkv, "project": project, "norm2": norm2, "mlp1": mlp[:2], "mlp2": mlp[2:]}
    weights: dict[str, Any] = {}
    for name, (weight, bias) in (pairs | ({"residual": residual} if len(residual) else {})).items():
        weights |= {f"{name}_weight": contiguous(weight), f"{name}_bias": contiguous(bias)}
    return _C.grid_layer, dict(
        x=contiguous(x), **weights, eps1=eps[0], eps2=eps[1], heads=heads, window=window, pool=pool,
        activation=activation, out=out, precision=matmul_precision(),
    )  # fmt: skip


def by_token(x: Any) -> Any:
    """(tokens, C)."""
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


def relative_attention(
    q: Any, k: Any, v: Any, rel_h: Any, rel_w: Any, coordinates: Any, pad_key: Any, pad_value: Any, size: Any,
    window: Any, scale: float, out: Any, log_weight: Any,
) -> Asked:  # fmt: skip
    return _C.relative_attention, dict(
        query=floats(q), key=floats(k), value=floats(v), rel_h=plain_floats(rel_h), rel_w=plain_floats(rel_w),
        coordinates=places(coordinates), pad_key=plain_floats(pad_key), pad_value=plain_floats(pad_value), size=size,
        window=window, scale=scale, out=out, log_weight=log_weight, precision=matmul_precision(),
    )  # fmt: skip


def grid_attention(
    q: Any, k: Any, v: Any, pad_key: Any, pad_value: Any, size: Any, window: Any, pool: int, scale: float, out: Any
) -> Asked:
    return _C.grid_attention, dict(
        query=floats(q), key=floats(k), value=floats(v), pad_key=plain_floats(pad_key),
        pad_value=plain_floats(pad_value), size=size, window=window, pool=pool, scale=scale, out=out,
        precision=matmul_precision(),
    )  # fmt: skip


def relative_attention_backward(
    grad: Any, q: Any, k: Any, v: Any, rel_h: Any, rel_w: Any, coordinates: Any, out: Any, log_weight: Any, size: Any,
    scale: float, query_grad: Any, key_grad: Any, value_grad: Any, rel_h_grad: Any, rel_w_grad: Any,
) -> Asked:  # fmt: skip
    return _C.relative_attention_backward, dict(
        grad=contiguous(grad), query=floats(q), key=floats(k), value=floats(v), rel_h=contiguous(rel_h),
        rel_w=contiguous(rel_w), coordinates=places(coordinates), out=contiguous(out),
        log_weight=contiguous(log_weight), size=size, scale=scale, query_grad=query_grad, key_grad=key_grad,
        value_grad=value_grad, rel_h_grad=rel_h_grad, rel_w_grad=rel_w_grad,
    )  # fmt: skip


def floats(x: Any) -> Any:
    """float32, contiguous in the last axis."""
    if is_tensor(x):
        x = x.float()
        return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
    whole = x.dtype == np.float32 and x.dtype.isnative and not any(s % 4 for s in x.strides)
    return x if whole and (x.strides[-1] == 4 or x.shape[-1] == 1) else np.ascontiguousarray(x, np.float32)


def places(coordinates: Any) -> Any:
    """int32, contiguous; they lie inside a grid, so that nothing is cut off."""
    if coordinates is None:
        return None
    return coordinates.int().contiguous() if is_tensor(coordinates) else np.ascontiguousarray(coordinates, np.int32)
