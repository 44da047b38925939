# mypy: ignore-errors
# (to torch's exporter a parameter without annotation is a tensor, one with it a number)
"""From torch's operators to our nodes: the table of torch.onnx.export. Imported only where onnxscript is."""

from collections.abc import Sequence
from typing import Any

import onnx
import torch
from onnxscript import opset20 as op

from fastprompt.export import _nodes_of_maps
from fastprompt.export._node import endless, node, nothing
from fastprompt.ops.attention import operators as _torch_attention
from fastprompt.ops.decoder import head_operator
from fastprompt.ops.decoder import mlps as _torch_mlp
from fastprompt.ops.decoder import two_way as _torch_two_way
from fastprompt.ops.decoder import whole as _torch_decoder
from fastprompt.ops.encoder import operators as _torch_encoder
from fastprompt.ops.encoder import relative_operator as _torch_relative
from fastprompt.ops.geodesic import euclidean_operator as _torch_euclidean
from fastprompt.ops.geodesic import operators as _torch_geodesic
from fastprompt.ops.masks import operators as _torch_masks
from fastprompt.ops.pruning import operators as _torch_pruning


def two_way(
    image, position, prompt, weights, heads: int, width: int, depth: int, eps: Sequence[float]
):  # fmt: skip
    sizes = {"heads": heads, "width": width, "depth": depth, "channels": int(prompt.shape[2])}
    return node("TwoWayTransformer", image, position, prompt, *weights, **sizes, eps=eps[0], final_eps=eps[1])


def mask_decoder(
    image, dense, position, prompt, weights, head, detail1=None, detail2=None, mlps=(), heads: int = 0, width: int = 0,
    depth: int = 0, first: int = 0, layers: int = 0, eps: Sequence[float] = (),
):  # fmt: skip
    details = (nothing(4) if x is None else x for x in (detail1, detail2))
    sizes = {"heads": heads, "width": width, "depth": depth, "channels": int(prompt.shape[2])}
    sizes |= {"first": first, "layers": layers, "masks": len(mlps) // (2 * layers)}
    given = (image, dense, position, prompt, *weights, *head, *details, *mlps)
    return node("MaskDecoder", *given, **sizes, eps=eps[0], final_eps=eps[1], head_eps=eps[2])


def token_mlps(tokens, rows: Sequence[int], weights, layers: int):
    found = []
    for k, row in enumerate(rows):
        x = op.Gather(tokens, op.Constant(value_int=row), axis=1)
        own = weights[2 * layers * k : 2 * layers * (k + 1)]
        for n in range(layers):
            x = op.Relu(x) if n else x
            x = op.Gemm(x, own[2 * n], own[2 * n + 1], transB=1)
        found.append(x)
    return found


def linear(x, weight, bias):
    return op.Add(op.MatMul(x, op.Transpose(weight, perm=[1, 0])), bias)


def layer_norm(x, weight, bias, eps):
    y, *_ = op.LayerNormalization(x, weight, bias, axis=-1, epsilon=eps)
    return y


def normalised_linear(x, norm, eps: float, linear_):
    return linear(layer_norm(x, *norm, eps), *linear_)


def residual_mlp(x, attended, project, norm, eps: float, mlp):
    y = op.Add(x, linear(attended, *project))
    inner = linear(layer_norm(y, *norm, eps), *mlp[:2])
    constant = lambda x: op.CastLike(op.Constant(value_float=x), inner)  # noqa: E731
    erf = op.Erf(op.Div(inner, constant(2**0.5)))  # onnx's evaluator has no Gelu; ONNX Runtime makes one of it
    hidden = op.Mul(op.Mul(inner, op.Add(erf, constant(1.0))), constant(0.5))
    return op.Add(y, linear(hidden, *mlp[2:]))


def mask_head(
    image, vectors, conv1, bias1, norm_weight, norm_bias, conv2, bias2, detail1=None, detail2=None, eps: float = 1e-6
):
    details = (nothing(4) if x is None else x for x in (detail1, detail2))
    weights = (conv1, bias1, norm_weight, norm_bias, conv2, bias2)
    return node("MaskHead", image, vectors, *weights, *details, eps=eps)


def resize_masks(
    logits, size: Sequence[int], frame: Sequence[int], crop: Sequence[int], threshold: float, output: str, offset: float
):
    numbers: dict[str, Any] = {"size": list(size), "frame": list(frame), "crop": list(crop)}
    numbers |= {"threshold": threshold, "offset": offset}
    if output == "float32":
        return node("ResizeLogits", logits, **numbers)
    masks, *rest = node("ResizeMasks", logits, packed=int(output == "packed"), **numbers)
    return (op.Cast(masks, to=9) if output == "bool" else masks), *rest


def relative_attention(
    q, k, v, rel_h, rel_w, coordinates=None, pad_key=None, pad_value=None, size: Sequence[int] = (),
    window: Sequence[int] = (), scale: float = 1.0,
):  # fmt: skip
    if coordinates is not None:
        raise ValueError("relative_position_attention with coordinates has no node: export it without")
    padding = (nothing(2) if x is None else x for x in (pad_key, pad_value))
    cell = list(window) if window[0] else list(size)
    out = node("RelativePositionAttention", q, k, v, rel_h, rel_w, *padding, size=list(size), window=cell, scale=scale)
    largest = op.ReduceMax(q, op.Constant(value_ints=[3]), keepdims=0)
    return out, op.Transpose(largest, perm=[0, 2, 1])  # for the gradient, which no file has: left out of it


def prompt_to_image(image, position=None, query=None, key_weight=None, value_weight=None, bias=None, lengths=None):
    first = (image, nothing(4) if position is None else position, query)
    last = (nothing(4) if bias is None else bias, endless() if lengths is None else lengths)
    if key_weight is None:
        return node("PromptToImageAttention", *first, *last)
    return node("PromptToImageProjected", *first, key_weight, value_weight, *last)


def image_to_prompt(
    image, position=None, key=None, bias=None, value=None, query_weight=None, out_weight=None, out_bias=None,
    norm_weight=None, norm_bias=None, lengths=None, residual: bool = False, eps: float = 0.0,
):  # fmt: skip
    inputs = (image, nothing(4) if position is None else position, key, bias, value)
    last = (out_bias, endless() if lengths is None else lengths)
    if query_weight is None:
        out = node("ImageToPromptAttention", *inputs, *last)
    else:
        out = node("ImageToPromptProjected", *inputs, query_weight, out_weight, *last)
    if residual:
        out = op.Add(out, per_prompt(image, key))
    if norm_weight is not None:
        rows = layer_norm(op.Transpose(out, perm=[0, 2, 3, 1]), norm_weight, norm_bias, eps)
        out = op.Transpose(rows, perm=[0, 3, 1, 2])
    return out


def per_prompt(image, rows):
    """Image b' for B / B' prompts in order."""
    images, prompts = op.Shape(image, start=0, end=1), op.Shape(rows, start=0, end=1)
    rest = op.Shape(image, start=1)
    apart = op.Unsqueeze(image, op.Constant(value_ints=[1]))
    many = op.Expand(apart, op.Concat(images, op.Div(prompts, images), rest, axis=0))
    return op.Reshape(many, op.Concat(prompts, rest, axis=0))


def euclidean(mask, spacing: Sequence[float]):
    return node("EuclideanDistanceTransform", mask, spacing=list(spacing))


def geodesic(
    image, start, walls=None, kind: str = "", metric: str = "", method: str = "", iterations: int = 0, lam: float = 0.0,
    step_weight: float = 0.0, spacing: Sequence[float] = (), v: float = 0.0, limit: float = 0.0,
):  # fmt: skip
    walls = op.Cast(nothing(5), to=9) if walls is None else walls
    o = {"kind": kind, "metric": metric, "method": method, "iterations": iterations, "lam": lam}
    o |= {"step_weight": step_weight, "spacing": list(spacing), "v": v, "limit": limit}
    return node("GeodesicDistance", image, start, walls, **o)


def cosine_scores(tokens, prompts):
    return node("CosineScores", tokens, prompts)


def prune_rows(tokens, scores, always=None, counts=None, count: int = 0, background: float = 0.0):
    if counts is not None or background >= 1e-9:
        raise ValueError("prune_tokens is exported with keep or count only, without threshold and stride_mix")
    always = op.Cast(nothing(2), to=9) if always is None else always
    return node("PruneTokens", tokens, scores, always, count=count)


def gather_rows(rows, index):
    return node("GatherTokens", rows, index)


def scatter_rows(base=None, rows=None, index=None, count: int = 0):
    return node("ScatterTokens", op.CastLike(nothing(3), rows) if base is None else base, rows, index, count=count)


def match_tokens(metric, merged: int, spared: int):
    return node("MatchTokens", metric, merged=merged, spared=spared)


def merge_rows(tokens, size, kept, target):
    return node("MergeTokens", tokens, size, kept, target)


TABLE: dict[Any, Any] = {
    _torch_two_way.transformer: two_way,
    _torch_decoder.decoder: mask_decoder,
    _torch_mlp.token_mlps: token_mlps,
    _torch_encoder.normalised_linear: normalised_linear,
    _torch_encoder.residual_mlp: residual_mlp,
    head_operator.mask_head: mask_head,
    _torch_masks._resize: resize_masks,
    _torch_relative._attention: relative_attention,
    _torch_attention.prompt_to_image: prompt_to_image,
    _torch_attention.image_to_prompt: image_to_prompt,
    _torch_euclidean._transform: euclidean,
    _torch_geodesic._distance: geodesic,
    _torch_pruning.cosine_scores: cosine_scores,
    _torch_pruning.prune_rows: prune_rows,
    _torch_pruning.gather_rows: gather_rows,
    _torch_pruning.scatter_rows: scatter_rows,
    _torch_pruning.match_tokens: match_tokens,
    _torch_pruning.merge_rows: merge_rows,
    **_nodes_of_maps.TABLE,
}


def export(module: torch.nn.Module, args: tuple[Any, ...], **options: Any) -> onnx.ModelProto:
    program = torch.onnx.export(module, args, dynamo=True, custom_translation_table=TABLE, verbose=False, **options)
    assert program is not None
    return program.model_proto
