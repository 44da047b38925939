"""Our nodes on NumPy arrays, for runtimes that call Python: the kernels, without torch."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastprompt import _C
from fastprompt._runtime import get_num_threads
from fastprompt.ops import _prompt_call, _rows, euclidean, geodesic, masks, relative_position
from fastprompt.ops._arrays import address, addresses
from fastprompt.ops._grid import Options

Arrays = list[Any]
TILE = 64  # image tokens of the largest tile of any instruction set


def run(name: str, inputs: Arrays, attributes: dict[str, Any], memory: dict[str, Any]) -> Arrays:
    """The outputs of node ``name``; ``memory`` is what it keeps from call to call."""
    # OpenVINO computes int64 as int32.
    wanted = {"float16": np.float32, "float64": np.float32, "int32": np.int64}
    plain = [x.astype(wanted.get(x.dtype.name, x.dtype), copy=False) for x in inputs]
    arrays = [np.ascontiguousarray(x) for x in plain]
    return two_way(arrays, attributes, memory) if name == "TwoWayTransformer" else KERNELS[name](arrays, attributes)


def given(x: Any) -> Any:
    """One number that changes nothing stands for what is not given."""
    return None if x.size == 1 else x


def aligned(count: int) -> Any:
    """float32; the kernels read whole cache lines of it."""
    room = np.empty(4 * count + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + 4 * count].view(np.float32)


def prepared(made_of: Arrays, size: tuple[int, ...], memory: dict[str, Any]) -> Any:
    """What all prompts share of an image. A tool asks about one image again and again: comparing it costs little."""
    kept = memory.get("kept")  # read once: another thread may be here too
    if kept is not None and all(map(np.array_equal, kept[0], made_of)):
        return kept[1]
    images, channels, pixels, inner = size
    tokens = (pixels + TILE - 1) // TILE * TILE
    rows = aligned(images * tokens * (2 * channels + 3 * inner))
    image, position, *weights = made_of
    place = (address(image), address(position), addresses(weights), address(rows))
    _C.two_way_prepare(size, *place, get_num_threads())
    memory["kept"] = [x.copy() for x in made_of], rows
    return rows


def two_way(inputs: Arrays, a: dict[str, Any], memory: dict[str, Any]) -> Arrays:
    image, position, prompt, *weights = inputs
    images, channels, height, width = image.shape
    pixels, inner = height * width, a["heads"] * a["width"]
    of_first_layer = [*weights[12:16], *weights[26:28]]  # as _torch_two_way.of_layer orders them
    rows = prepared([image, position, *of_first_layer], (images, channels, pixels, inner), memory)
    out, attended = np.empty_like(prompt), np.empty((len(prompt), channels, height, width), np.float32)
    size = (
        images,
        len(prompt),
        channels,
        pixels,
        prompt.shape[1],
        a["heads"],
        a["width"],
        len(weights[20]),
        a["depth"],
    )
    made = (addresses(weights), (a["eps"], a["final_eps"]), addresses((out, attended)))
    if len(prompt):
        _C.two_way(size, address(prompt), address(rows), *made, get_num_threads())
    return [out, attended]


def mask_head(inputs: Arrays, a: dict[str, Any]) -> Arrays:
    *rest, detail1, detail2 = inputs
    out = np.empty(masks.shape(*inputs), np.float32)
    masks.launch(*rest, given(detail1), given(detail2), a["eps"], out)
    return [out]


def resize(inputs: Arrays, a: dict[str, Any]) -> Arrays:
    output = "float32" if "packed" not in a else "packed" if a["packed"] else "uint8"
    pairs = (a["size"], a.get("frame", []), a.get("crop", []))
    return list(masks.resized(inputs[0], *pairs, a["threshold"], output, a["offset"]))


def relative(inputs: Arrays, a: dict[str, Any]) -> Arrays:
    *tokens, pad_key, pad_value = inputs
    window = (0, 0) if a["window"] == a["size"] else tuple(a["window"])
    out = np.empty(inputs[0].shape, np.float32)
    call = (*tokens, None, given(pad_key), given(pad_value), tuple(a["size"]), window, a["scale"])
    relative_position.launch(call, out, None)
    return [out]


def existing(lengths: Any, rows: Any) -> Any:
    return None if lengths.size == 1 and lengths.flat[0] >= rows.shape[2] else lengths


def prompt_to_image(inputs: Arrays, a: dict[str, Any]) -> Arrays:
    image, position, query, *weights, bias, lengths = inputs
    out = np.empty(query.shape, np.float32)
    pair: Any = weights or (None, None)
    last: Any = (given(bias), existing(lengths, query), out)
    _prompt_call.launch_prompt_to_image(image, given(position), query, *pair, *last)
    return [out]


def image_to_prompt(inputs: Arrays, a: dict[str, Any]) -> Arrays:
    image, position, key, bias, value, *weights, out_bias, lengths = inputs
    out = np.empty((len(key), *image.shape[1:]), np.float32)
    pair: Any = weights or (None, None)
    rest: Any = (out_bias, None, None, existing(lengths, key), False, 0.0, out)
    _prompt_call.launch_image_to_prompt(image, given(position), key, bias, value, *pair, *rest)
    return [out]


def transform(inputs: Arrays, a: dict[str, Any]) -> Arrays:
    z, y, x = a["spacing"]
    return [euclidean.run(euclidean.as_mask(inputs[0]), (z, y, x))]


def distance(inputs: Arrays, a: dict[str, Any]) -> Arrays:
    image, start, walls = inputs
    names = ("metric", "method", "iterations", "lam", "step_weight")
    settings: Any = (*(a[n] for n in names), tuple(a["spacing"]), a["v"], a["limit"])
    options = Options(*settings)
    return [geodesic.run(image, start, given(walls), a["kind"], options)]


def cosine(inputs: Arrays, a: dict[str, Any]) -> Arrays:
    out = np.empty(inputs[0].shape[:2], np.float32)
    tokens, prompts = inputs
    _rows.cosine(tokens, prompts, out)
    return [out]


def prune(inputs: Arrays, a: dict[str, Any]) -> Arrays:
    tokens, scores, always = inputs
    index = np.empty((len(tokens), a["count"]), np.int64)
    out = np.empty((*index.shape, tokens.shape[2]), tokens.dtype)
    always = always if always.shape == scores.shape else None
    if _rows.prune(tokens, scores, always, None, 0.0, index, out) >= 0:
        raise ValueError("always marks more tokens than are kept")
    return [out, index]


def gather(inputs: Arrays, a: dict[str, Any]) -> Arrays:
    rows, index = inputs
    out = np.empty((*index.shape, rows.shape[2]), rows.dtype)
    _rows.gather(rows, index, out)
    return [out]


def scatter(inputs: Arrays, a: dict[str, Any]) -> Arrays:
    base, rows, index = inputs
    out = np.empty((len(rows), a["count"], rows.shape[2]), rows.dtype)
    _rows.scatter(base if base.shape == out.shape else None, rows, index, out)
    return [out]


def match(inputs: Arrays, a: dict[str, Any]) -> Arrays:
    batch, count = inputs[0].shape[:2]
    kept, target = np.empty((batch, count - a["merged"]), np.int64), np.empty((batch, count), np.int64)
    _rows.match(inputs[0], a["merged"], a["spared"], kept, target)
    return [kept, target]


def merge(inputs: Arrays, a: dict[str, Any]) -> Arrays:
    tokens, size, kept, target = inputs
    out = np.empty((*kept.shape, tokens.shape[2]), np.float32)
    _rows.merge(tokens, size, kept, target, out)
    return [out]


KERNELS: dict[str, Callable[[Arrays, dict[str, Any]], Arrays]] = {
    "MaskHead": mask_head,
    "ResizeMasks": resize,
    "ResizeLogits": resize,
    "RelativePositionAttention": relative,
    "PromptToImageAttention": prompt_to_image,
    "PromptToImageProjected": prompt_to_image,
    "ImageToPromptAttention": image_to_prompt,
    "ImageToPromptProjected": image_to_prompt,
    "EuclideanDistanceTransform": transform,
    "GeodesicDistance": distance,
    "CosineScores": cosine,
    "PruneTokens": prune,
    "GatherTokens": gather,
    "ScatterTokens": scatter,
    "MatchTokens": match,
    "MergeTokens": merge,
}
