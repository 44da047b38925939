"""The MLPs behind the output tokens of SAM's decoders, whatever library they come from."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from fastprompt.ops.decoder.operators import token_mlps as operator


def token_mlps(tokens: Tensor, rows: list[int], mlps: Iterable[Any]) -> list[Tensor]:
    """``mlp(tokens[:, row])`` of each; MLPs that are not just linear layers with ReLU between run as they are."""
    mlps = list(mlps)
    layers = [linear_layers(mlp) for mlp in mlps]
    if all(layers) and len({len(x) for x in layers}) > 1:
        return [token_mlps(tokens, [row], [mlp])[0] for row, mlp in zip(rows, mlps, strict=True)]
    if not mlps or not all(layers):
        return [mlp(tokens[:, row]) for row, mlp in zip(rows, mlps, strict=True)]
    weights = [w for stack in layers for layer in stack for w in (layer.weight, layer.bias)]
    found: list[Tensor] = operator(tokens, rows, weights, len(layers[0]))
    return [x.sigmoid() if mlp.sigmoid_output else x for x, mlp in zip(found, mlps, strict=True)]


def same_layers(mlps: Iterable[Any]) -> tuple[list[Tensor], int] | None:
    """Weights and biases of MLPs without sigmoid and with equally many layers, and how many; None: they are others."""
    mlps = list(mlps)
    layers = [linear_layers(mlp) for mlp in mlps]
    if not mlps or not all(layers) or len({len(x) for x in layers}) > 1 or any(m.sigmoid_output for m in mlps):
        return None
    return [w for stack in layers for layer in stack for w in (layer.weight, layer.bias)], len(layers[0])


def linear_layers(mlp: Any) -> list[nn.Linear]:
    """Of a FeedForward of transformers or an MLP of segment-anything; none for anything else."""
    if not hasattr(mlp, "sigmoid_output"):
        return []
    if not isinstance(getattr(mlp, "activation", getattr(mlp, "act", nn.ReLU())), nn.ReLU):
        return []
    layers = [mlp.proj_in, *mlp.layers, mlp.proj_out] if hasattr(mlp, "proj_in") else list(mlp.layers)
    plain = all(type(x) is nn.Linear and x.bias is not None and x.in_features % 16 == 0 for x in layers)
    return layers if plain else []
