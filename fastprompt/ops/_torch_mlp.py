"""The MLPs behind SAM's output tokens, all in one operator. No gradient."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from fastprompt import _C
from fastprompt._runtime import get_num_threads
from fastprompt.ops._arrays import address
from fastprompt.ops._library import define


def _fake(tokens: Tensor, rows: list[int], weights: list[Tensor], layers: int) -> list[Tensor]:
    last = weights[2 * layers - 2 :: 2 * layers]
    return [tokens.new_empty(tokens.shape[0], weight.shape[0]) for weight in last]


def _cpu(tokens: Tensor, rows: list[int], weights: list[Tensor], layers: int) -> list[Tensor]:
    tokens, weights = tokens.contiguous(), [w.contiguous() for w in weights]
    found, jobs = _fake(tokens, rows, weights, layers), []
    prompts, count, channels = tokens.shape
    for k, (row, out) in enumerate(zip(rows, found, strict=True)):
        own = weights[2 * layers * k : 2 * layers * (k + 1)]
        widths = [channels, *(w.shape[0] for w in own[::2])]
        start = address(tokens) + tokens.element_size() * row * channels
        jobs.append((start, count * channels, widths, tuple(address(w) for w in own), address(out)))
    if prompts:
        _C.run_mlps(jobs, prompts, get_num_threads())
    return found


_mlps = define("token_mlps(Tensor tokens, int[] rows, Tensor[] weights, int layers) -> Tensor[]", cpu=_cpu, fake=_fake)


def token_mlps(tokens: Tensor, rows: list[int], mlps: Iterable[Any]) -> list[Tensor]:
    """``mlp(tokens[:, row])`` of each; MLPs that are not just linear layers with ReLU between run as they are."""
    mlps = list(mlps)
    layers = [linear_layers(mlp) for mlp in mlps]
    if not mlps or not all(layers) or len({len(x) for x in layers}) > 1:
        return [mlp(tokens[:, row]) for row, mlp in zip(rows, mlps, strict=True)]
    weights = [w for stack in layers for layer in stack for w in (layer.weight, layer.bias)]
    found: list[Tensor] = _mlps(tokens, rows, weights, len(layers[0]))
    return [x.sigmoid() if mlp.sigmoid_output else x for x, mlp in zip(found, mlps, strict=True)]


def linear_layers(mlp: Any) -> list[nn.Linear]:
    """Of a FeedForward of transformers or an MLP of segment-anything; none for anything else."""
    if not hasattr(mlp, "sigmoid_output") or mlp._forward_hooks or mlp._forward_pre_hooks:
        return []
    if not isinstance(getattr(mlp, "activation", getattr(mlp, "act", nn.ReLU())), nn.ReLU):
        return []
    layers = [mlp.proj_in, *mlp.layers, mlp.proj_out] if hasattr(mlp, "proj_in") else list(mlp.layers)
    plain = all(type(x) is nn.Linear and x.bias is not None and x.in_features % 16 == 0 for x in layers)
    return layers if plain else []
