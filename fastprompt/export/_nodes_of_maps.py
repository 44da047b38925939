# mypy: ignore-errors
"""From torch's operators of guidance, pooling and similarity to our nodes: a part of the table in _nodes.py."""

from collections.abc import Sequence
from typing import Any

from onnxscript import opset20 as op

from fastprompt.export._node import node
from fastprompt.ops.clicks import operators as _torch_clicks
from fastprompt.ops.guidance import operators as _torch_guidance
from fastprompt.ops.memory import operators as _torch_memory
from fastprompt.ops.pooling import operators as _torch_pooling
from fastprompt.ops.pooling.prior import LEVEL_EPS


def click_map(
    points, labels, channels: Sequence[int], size: Sequence[int], code: int, scales: Sequence[float], clip: float,
    divisor: float, stretch: bool, missing: float,
):  # fmt: skip
    o = {"size": list(size), "channels": list(channels), "code": code, "scales": list(scales), "clip": clip}
    return node("ClickMap", points, labels, **o, divisor=divisor, stretch=int(stretch), missing=missing)


def box_map(corners, size: Sequence[int], distance: bool, offset: float, low: float, high: float):
    return node("BoxMap", corners, size=list(size), distance=int(distance), offset=offset, low=low, high=high)


def masked_pool(
    features, mask, resize: int, align_corners: bool, background: bool, threshold: float | None, eps: float,
    empty: float,
):  # fmt: skip
    o = {"resize": resize, "align_corners": int(align_corners), "background": int(background)}
    o |= {"hard": int(threshold is not None), "threshold": threshold or 0.0}
    return node("MaskedPool", features, mask, **o, eps=eps, empty=empty)


def similarity_map(
    features, rows, scale: float, eps: float, temperature: float, kind: int, sharpest: float
):  # fmt: skip
    o = {"scale": scale, "eps": eps, "temperature": temperature, "sharpest": sharpest}
    return node("SimilarityMap", features, rows, **o, softmax=int(kind == 1))


def similarity_argmax(features, rows, scale: float, eps: float, temperature: float, sharpest: float):
    o = {"scale": scale, "eps": eps, "temperature": temperature, "sharpest": sharpest}
    return node("SimilarityArgmax", features, rows, **o)


def prior_similarity(query, support, mask, eps: float):
    """The node gives the largest cosines; the operator brings them from 0 to 1."""
    most = op.Cast(node("PriorSimilarity", query, support, mask, eps=eps), to=1)
    axis = op.Constant(value_ints=[1])
    low, high = op.ReduceMin(most, axis), op.ReduceMax(most, axis)
    return op.Div(op.Sub(most, low), op.Add(op.Sub(high, low), op.Constant(value_float=LEVEL_EPS)))


def memory_read(q, k, v, scale: float):
    return node("MemoryRead", q, k, v, scale=scale)


def film(x, gamma, beta, last: bool):
    """Two passes of the runtime, which fuses them: a node of ours would be in its way."""
    axis = op.Constant(value_ints=[1 if last else 2])
    return op.Add(op.Mul(op.Unsqueeze(gamma, axis), x), op.Unsqueeze(beta, axis))


def without_node(name: str, why: str):
    def refuse(*args: Any, **kwargs: Any):
        raise ValueError(f"{name} has no node: {why}")

    return refuse


OF_HOST = "it is made of lists of a host, before the model: call it there, and give its result to the model"
TABLE: dict[Any, Any] = {
    _torch_clicks.next_click: without_node("next_click", OF_HOST),
    _torch_guidance._click_map: click_map,
    _torch_guidance.box_map: box_map,
    _torch_guidance.polygons: without_node("polygon_mask", OF_HOST),
    _torch_guidance._scribble_map: without_node("scribble_map", OF_HOST),
    _torch_guidance._superpixel_map: without_node("superpixel_map", OF_HOST),
    _torch_guidance._proposal_vote_map: without_node("proposal_vote_map", OF_HOST),
    _torch_guidance.vectors: without_node("prompt_unified_encoding", OF_HOST),
    _torch_pooling.masked_pool: masked_pool,
    _torch_pooling.similarity_map: similarity_map,
    _torch_pooling.similarity_argmax: similarity_argmax,
    _torch_pooling.prior: prior_similarity,
    _torch_pooling.film: film,
    _torch_memory.memory_read: memory_read,
}
