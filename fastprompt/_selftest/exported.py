"""Self-test of exported nodes: the library that runtimes load, against the reference, and a session that loads it."""

import functools
import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np

import fastprompt as fp
from fastprompt._runtime import backend
from fastprompt._selftest.check import Check, difference, picture

ENDLESS = float("inf")


def checks() -> Iterator[Check]:
    rng = np.random.default_rng(0)
    tokens, prompts = rng.random((2, 35, 32), np.float32), rng.random((2, 3, 32), np.float32)
    yield node("CosineScores", [tokens, prompts], {}, lambda: fp.token_scores(tokens, prompts=prompts))
    image, seeds = picture(3, 61, 97)
    grid = {"kind": "nonzero", "metric": "fastgeodis", "method": "exact", "iterations": 2, "lam": 0.7}
    grid |= {"step_weight": 1 - 0.7, "spacing": [1.0, 1.0], "v": ENDLESS, "limit": ENDLESS}
    inputs = [image[None, :, None], seeds[None, :, None].astype(np.uint8), np.zeros((1, 1, 1, 1, 1), np.uint8)]
    yield node("GeodesicDistance", inputs, grid, lambda: fp.geodesic_distance(image, seeds, lam=0.7)[None, :, None])
    features, mask = rng.random((2, 32, 15, 13), np.float32), (rng.random((2, 2, 30, 26)) > 0.6).astype(np.uint8)
    how = {"resize": 2, "align_corners": 0, "background": 0, "hard": 0, "threshold": 0.0, "eps": 0.0, "empty": 0.0}
    yield node("MaskedPool", [features, mask], how, lambda: fp.masked_average_pool(features, mask, resize="average"))
    points, labels = np.array([[[3.0, 4.0], [20.0, 9.0]]], np.float32), np.array([[1, 0]])
    disks = {"size": [31, 45], "channels": [1, 0], "code": 0, "scales": [25.0], "clip": ENDLESS, "divisor": 1.0}
    disks |= {"stretch": 0, "missing": ENDLESS}
    want = lambda: fp.click_map(points, labels, size=(31, 45), encoding="disk", radius=5)  # noqa: E731
    yield node("ClickMap", [points, labels], disks, want)
    if all(importlib.util.find_spec(package) for package in ("onnx", "onnxruntime")):
        yield Check("export", "in ONNX Runtime", functools.partial(in_onnxruntime, tokens, prompts))


def node(name: str, inputs: list[Any], attributes: dict[str, Any], reference: Any) -> Check:
    @functools.cache
    def wanted() -> Any:
        with backend("reference"):
            return reference()

    def error() -> float:
        from fastprompt.export._library import Node

        return difference(Node(name, attributes).run(inputs)[0], wanted())

    return Check("export", name, error)


def in_onnxruntime(tokens: Any, prompts: Any) -> float:
    import onnxruntime

    options = fp.export.onnxruntime.register(onnxruntime.SessionOptions())
    session = onnxruntime.InferenceSession(one_node(), options, providers=["CPUExecutionProvider"])
    with backend("reference"):
        wanted = fp.token_scores(tokens, prompts=prompts)
    return difference(session.run(None, {"tokens": tokens, "prompts": prompts})[0], wanted)


@functools.cache
def one_node() -> bytes:
    """A file of flavor "plugin": only the library can run it."""
    from onnx import TensorProto, helper

    made = [helper.make_node("CosineScores", ["tokens", "prompts"], ["scores"], domain="fastprompt")]
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("tokens", "prompts", "scores")]
    graph = helper.make_graph(made, "doctor", tensors[:2], tensors[2:])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("fastprompt", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
