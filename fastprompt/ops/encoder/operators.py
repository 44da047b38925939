"""The linear layers of a transformer layer, with LayerNorm, GELU and residuals in one pass. No gradient."""

from torch import Tensor

from fastprompt import _C
from fastprompt._runtime import get_num_threads, matmul_precision
from fastprompt.ops._arrays import address
from fastprompt.ops._library import define

Matrix = tuple[int, int, int, int]


def _linear_fake(x: Tensor, norm: list[Tensor], eps: float, linear: list[Tensor]) -> Tensor:
    return x.new_empty(*x.shape[:-1], linear[0].shape[0])


def _linear_cpu(x: Tensor, norm: list[Tensor], eps: float, linear: list[Tensor]) -> Tensor:
    x, norm, linear = x.contiguous(), plain(norm), plain(linear)
    out = _linear_fake(x, norm, eps, linear)
    rows = (tokens(x), address(x), (*map(address, norm or (None, None)), eps))
    _C.normalised_linear(*rows, matrix(linear), address(out), matmul_precision(), get_num_threads())
    return out


def _mlp_fake(
    x: Tensor, attended: Tensor, project: list[Tensor], norm: list[Tensor], eps: float, mlp: list[Tensor]
) -> Tensor:
    return x.new_empty(x.shape)


def _mlp_cpu(
    x: Tensor, attended: Tensor, project: list[Tensor], norm: list[Tensor], eps: float, mlp: list[Tensor]
) -> Tensor:
    x, attended, project, norm, mlp = x.contiguous(), attended.contiguous(), plain(project), plain(norm), plain(mlp)
    out = x.new_empty(x.shape)
    rows = (tokens(x), address(x), address(attended), matrix(project), (*map(address, norm), eps))
    inner = matrix(mlp[:2]), matrix(mlp[2:])
    _C.residual_mlp(*rows, *inner, address(out), matmul_precision(), get_num_threads())
    return out


def plain(weights: list[Tensor]) -> list[Tensor]:
    return [w.contiguous() for w in weights]


def tokens(x: Tensor) -> int:
    return x.numel() // x.shape[-1]


def matrix(layer: list[Tensor]) -> Matrix:
    weight, bias = layer
    return address(weight), address(bias), weight.shape[0], weight.shape[1]


# linear(LN(x)) of tokens (…, C): norm = weight, bias, or nothing: linear(x); linear = weight (O, C), bias.
normalised_linear = define(
    "normalised_linear(Tensor x, Tensor[] norm, float eps, Tensor[] linear) -> Tensor",
    cpu=_linear_cpu,
    fake=_linear_fake,
)
# y + mlp(LN(y)) with y = x + project(attended): project = weight, bias; mlp = weight, bias, weight, bias.
residual_mlp = define(
    "residual_mlp(Tensor x, Tensor attended, Tensor[] project, Tensor[] norm, float eps, Tensor[] mlp) -> Tensor",
    cpu=_mlp_cpu,
    fake=_mlp_fake,
)
