"""The calls into csrc/decoder. Weights are a list, in the order of ``TwoWayWeights.all`` or of ``MaskHeadWeights``."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastprompt import _C
from fastprompt._runtime import is_tensor, matmul_precision
from fastprompt.ops._arrays import contiguous
from fastprompt.ops._operator import Asked, launch
from fastprompt.ops.decoder.layouts import MLP, TO_IMAGE_KEY_VALUE, TO_PROMPT_QUERY, whole_tiles

Arrays = Sequence[Any]


def empty(like: Any, *shape: int) -> Any:
    return like.new_empty(shape) if is_tensor(like) else np.empty(shape, like.dtype)


def mask_head(image: Any, vectors: Any, *rest: Any) -> Asked:
    *weights, detail1, detail2, eps, out = rest
    return _C.mask_head, dict(
        image=contiguous(image), vectors=contiguous(vectors), weights=weights,
        detail1=contiguous(detail1), detail2=contiguous(detail2), eps=eps, out=out,
    )  # fmt: skip


def token_mlps(tokens: Any, rows: list[int], weights: Arrays, layers: int, *outs: Any) -> Asked:
    return _C.token_mlps, dict(tokens=contiguous(tokens), rows=rows, weights=weights, layers=layers, outs=outs)


# ---------------------------------------------------------------- the two-way transformer


def two_way_prepare(image: Any, position: Any, weights: Arrays, out: Any) -> Asked:
    """``weights``: the first layer's projections of the image: key, value, query."""
    image, position = contiguous(image), contiguous(position)
    return _C.two_way_prepare, dict(image=image, position=position, weights=weights, prepared=out)


def two_way(
    prompt: Any, prepared: Any, weights: Arrays, images: int, pixels: int, heads: int, width: int, mlp: int,
    depth: int, eps: list[float], out: Any, image_out: Any,
) -> Asked:  # fmt: skip
    return _C.two_way, dict(
        prompt=contiguous(prompt), prepared=prepared, weights=weights, images=images, pixels=pixels,
        heads=heads, head_width=width, mlp=mlp, layers=depth, eps=eps, out=out, image_out=image_out,
    )  # fmt: skip


def two_way_transformer(
    image: Any, position: Any, prompt: Any, weights: Arrays, heads: int, width: int, depth: int, eps: list[float],
    out: Any, image_out: Any,
) -> Asked:  # fmt: skip
    """Both in one."""
    images, channels, height, columns = image.shape
    first = [*weights[TO_IMAGE_KEY_VALUE], *weights[TO_PROMPT_QUERY]]
    if len(first) < 6:
        raise ValueError(f"weights must be 36 of every layer and 10 behind them, got {len(weights)}")
    pixels, mlp = height * columns, weights[MLP].shape[0]
    prepared = empty(image, images * whole_tiles(pixels) * (2 * channels + 3 * first[0].shape[0]))
    launch(two_way_prepare(image, position, first, prepared))
    flat = image_out.reshape(*image_out.shape[:2], pixels)
    return two_way(prompt, prepared, weights, images, pixels, heads, width, mlp, depth, eps, out, flat)


# ---------------------------------------------------------------- its low-rank form


def layout(sizes: list[int]) -> dict[str, Any]:
    heads, width, depth, _, half = sizes
    return {"heads": heads, "head_width": width, "layers": depth, "half": bool(half)}


def low_rank_prepare(
    image: Any, position: Any, weights: Arrays, up: Any, sizes: list[int], eps: list[float], out: Any
) -> Asked:
    return _C.low_rank_prepare, dict(
        image=contiguous(image), position=contiguous(position), weights=weights, up=contiguous(up),
        **layout(sizes), eps=eps, prepared=out,
    )  # fmt: skip


def low_rank(
    prompt: Any, prepared: Any, weights: Arrays, up: Any, images: int, pixels: int, mlp: int, sizes: list[int],
    eps: list[float], out: Any, tokens: Any,
) -> Asked:  # fmt: skip
    return _C.low_rank, dict(
        prompt=contiguous(prompt), prepared=prepared, weights=weights, up=contiguous(up), images=images,
        pixels=pixels, mlp=mlp, **layout(sizes), eps=eps, out=out, image_out=tokens, precision=matmul_precision(),
    )  # fmt: skip


def low_rank_masks(
    low_rank: Any, prepared: Any, vectors: Any, weights: Arrays, detail1: Any, detail2: Any, shape: list[int],
    sizes: list[int], eps: float, out: Any,
) -> Asked:  # fmt: skip
    images, tokens, height, width = shape
    up = 4 * weights[0].shape[1] if len(weights) else 0
    if sizes[3] != up:  # the kernel has it of the weights
        raise ValueError(f"sizes must have {up}, of the weights, at place 3, got {sizes[3]}")
    return _C.low_rank_masks, dict(
        low_rank=low_rank, prepared=prepared, vectors=contiguous(vectors), weights=weights,
        detail1=contiguous(detail1), detail2=contiguous(detail2), images=images, tokens=tokens, height=height,
        width=width, **layout(sizes), eps=eps, out=out, precision=matmul_precision(),
    )  # fmt: skip


# ---------------------------------------------------------------- all of it, as an exported file has it


def mask_decoder(
    image: Any, dense: Any, position: Any, prompt: Any, weights: Arrays, head: Arrays, detail1: Any, detail2: Any,
    mlps: Arrays, heads: int, width: int, depth: int, first: int, layers: int, eps: list[float], out: Any, masks: Any,
) -> Asked:  # fmt: skip
    """One after the other what runs in a process with torch as operators of their own."""
    repeated = lambda x, n: x.repeat_interleave(n, 0) if is_tensor(x) else np.repeat(x, n, 0)  # noqa: E731
    images, count = max(len(image), len(dense)), len(mlps) // (2 * layers)
    if not len(image) or not len(dense) or images % len(image) or images % len(dense):
        raise ValueError(f"dense must be of all images, of each or of each prompt, got {len(dense)} for {len(image)}")
    image = image if images == len(image) else repeated(image, images // len(image))
    summed = image + repeated(dense, images // len(dense))
    attended = empty(prompt, len(prompt), *image.shape[1:])
    launch(two_way_transformer(summed, position, prompt, weights, heads, width, depth, eps[:2], out, attended))
    vectors = empty(prompt, count, len(prompt), mlps[-1].shape[0] if len(mlps) else 0)
    launch(token_mlps(out, list(range(first, first + count)), mlps, layers, *vectors))
    return mask_head(attended, vectors.swapaxes(0, 1), *head, detail1, detail2, eps[2], masks)
