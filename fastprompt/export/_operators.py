"""The nodes of domain ``fastprompt``: what they take, and what they mean in standard ONNX operators."""

from collections.abc import Callable
from typing import Any, NamedTuple

from fastprompt.export import _attention, _decoder, _distance, _guidance, _masks, _pooling, _tokens

DOMAIN = "fastprompt"
VERSION = 1
OPSET = 20  # of ONNX, that the bodies are written in
PLUGIN = {"plugin_namespace": "fastprompt", "plugin_version": "1"}  # how TensorRT finds a plugin; on every node


class Operator(NamedTuple):
    """One name for the node, the function and the plugin.

    An input that a call does not give is a tensor of one element that changes nothing (0 added, say), so that one body
    serves every call; kernels read such a tensor as "absent".
    """

    inputs: str  # names; "…" behind the last: weights, as many as the model has, named by ``weights``
    outputs: str
    attributes: dict[str, str]  # kind of each: int, float, ints, floats or string
    body: Callable[[dict[str, Any]], str]  # of the attributes of a node
    weights: Callable[[dict[str, Any]], list[str]] | None = None


TRANSFORMER = {"depth": "int", "heads": "int", "width": "int", "channels": "int", "eps": "float", "final_eps": "float"}
SIMILARITY = {"scale": "float", "eps": "float", "temperature": "float", "sharpest": "float"}
RESIZING = {"size": "ints", "frame": "ints", "crop": "ints", "threshold": "float", "offset": "float"}

OPERATORS: dict[str, Operator] = {
    "TwoWayTransformer": Operator(
        "image position prompt …",
        "tokens attended",
        TRANSFORMER,
        _attention.two_way,
        lambda a: _attention.weight_names(a["depth"]),
    ),
    "MaskDecoder": Operator(
        "image dense position prompt …",
        "tokens masks",
        {**TRANSFORMER, "head_eps": "float", "first": "int", "masks": "int", "layers": "int"},
        _decoder.decoder,
        _decoder.decoder_names,
    ),
    "MaskHead": Operator(
        "image vectors conv1 bias1 norm_weight norm_bias conv2 bias2 detail1 detail2",
        "masks",
        {"eps": "float"},
        _masks.head,
    ),
    "ResizeMasks": Operator(  # uint8: 0 and 1, or 8 pixels in a byte
        "logits", "masks area box stability", {**RESIZING, "packed": "int"}, _masks.resize
    ),
    "ResizeLogits": Operator("logits", "masks area box stability", RESIZING, _masks.resize),
    "RelativePositionAttention": Operator(
        "q k v rel_h rel_w pad_key pad_value",
        "out",
        {"size": "ints", "window": "ints", "scale": "float"},
        _attention.relative_position,
    ),
    "PromptToImageAttention": Operator(
        "image position query bias lengths", "out", {}, lambda a: _attention.prompt_to_image(False)
    ),
    "PromptToImageProjected": Operator(
        "image position query key_weight value_weight bias lengths",
        "out",
        {},
        lambda a: _attention.prompt_to_image(True),
    ),
    "ImageToPromptAttention": Operator(
        "image position key bias value out_bias lengths", "out", {}, lambda a: _attention.image_to_prompt(False)
    ),
    "ImageToPromptProjected": Operator(
        "image position key bias value query_weight out_weight out_bias lengths",
        "out",
        {},
        lambda a: _attention.image_to_prompt(True),
    ),
    "EuclideanDistanceTransform": Operator("mask", "distance", {"spacing": "floats"}, _distance.euclidean),
    "GeodesicDistance": Operator(
        "image start walls",
        "distance",
        {
            "kind": "string",
            "metric": "string",
            "method": "string",
            "iterations": "int",
            "lam": "float",
            "step_weight": "float",
            "spacing": "floats",
            "v": "float",
            "limit": "float",
        },
        _distance.geodesic,
    ),
    "ClickMap": Operator(
        "points labels",
        "maps",
        {
            "size": "ints",
            "channels": "ints",
            "code": "int",
            "scales": "floats",
            "clip": "float",
            "divisor": "float",
            "stretch": "int",
            "missing": "float",
        },
        _guidance.click_map,
    ),
    "BoxMap": Operator(
        "corners",
        "maps",
        {"size": "ints", "distance": "int", "offset": "float", "low": "float", "high": "float"},
        _guidance.box_map,
    ),
    "MaskedPool": Operator(
        "features mask",
        "pooled",
        {
            "resize": "int",
            "align_corners": "int",
            "background": "int",
            "hard": "int",
            "threshold": "float",
            "eps": "float",
            "empty": "float",
        },
        _pooling.masked_pool,
    ),
    "SimilarityMap": Operator("features rows", "maps", {**SIMILARITY, "softmax": "int"}, _pooling.similarity_map),
    "SimilarityArgmax": Operator("features rows", "index", SIMILARITY, _pooling.similarity_argmax),
    "PriorSimilarity": Operator("query support mask", "level", {"eps": "float"}, lambda a: _pooling.PRIOR),
    "MemoryRead": Operator("q k v", "out log_weight", {"scale": "float"}, lambda a: _pooling.MEMORY),
    "CosineScores": Operator("tokens prompts", "scores", {}, lambda a: _tokens.COSINE),
    "PruneTokens": Operator("tokens scores always", "kept indices", {"count": "int"}, _tokens.prune),
    "GatherTokens": Operator("rows index", "out", {}, lambda a: _tokens.GATHER),
    "ScatterTokens": Operator("base rows index", "out", {"count": "int"}, lambda a: _tokens.SCATTER),
    "MatchTokens": Operator("metric", "kept target", {"merged": "int", "spared": "int"}, _tokens.match),
    "MergeTokens": Operator("tokens size kept target", "merged", {}, lambda a: _tokens.MERGE),
}


def attribute_names(name: str) -> list[str]:
    return [*OPERATORS[name].attributes, *PLUGIN]
