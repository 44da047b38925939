"""The calls into csrc/pruning, for NumPy arrays and torch tensors alike."""

import math
from typing import Any

import numpy as np

from fastprompt import _C
from fastprompt._runtime import get_num_threads, is_tensor
from fastprompt.ops._arrays import address

Rows = tuple[int, int, int, int]  # address, rows of an image, bytes from image to image, from row to row

NONE: Rows = (0, 0, 0, 0)


def item_bytes(x: Any) -> int:
    return x.element_size() if is_tensor(x) else x.itemsize


def whole_rows(x: Any) -> Any:
    """``x`` (B, N, C) with the channels of a row side by side; a view like ``x[:, 1:]`` stays one."""
    if is_tensor(x):
        return x if x.stride(2) == 1 or x.shape[2] == 1 else x.contiguous()
    return x if x.strides[2] == x.itemsize or x.shape[2] == 1 else np.ascontiguousarray(x)


def rows(x: Any) -> Rows:
    size = x.element_size() if is_tensor(x) else 1
    strides = x.stride() if is_tensor(x) else x.strides
    return address(x), x.shape[1], strides[0] * size, strides[1] * size


def gather(x: Any, index: Any, out: Any) -> None:
    if math.prod(out.shape):
        x = whole_rows(x)
        bytes_of_row = x.shape[2] * item_bytes(x)
        _C.gather_rows(len(x), bytes_of_row, rows(x), address(index), rows(out), get_num_threads())


def scatter(base: Any, y: Any, index: Any, out: Any) -> None:
    """``base`` is None for zeros, ``out`` itself to leave the other rows alone."""
    if math.prod(out.shape):
        y = whole_rows(y)
        base = base if base is None else whole_rows(base)
        below = NONE if base is None else rows(base)
        bytes_of_row = y.shape[2] * item_bytes(y)
        _C.scatter_rows(len(y), bytes_of_row, below, rows(y), address(index), rows(out), get_num_threads())


def prune(tokens: Any, scores: Any, always: Any, counts: Any, background: float, index: Any, out: Any) -> int:
    """Contiguous float32 scores, bool or uint8 marks, int64 counts. The image with too many marks, or -1."""
    if math.prod(index.shape) == 0:
        return -1
    tokens = whole_rows(tokens)
    batch, count = index.shape
    arrays = (address(scores), address(always), address(counts), batch, address(index), address(out))
    bytes_of_row = tokens.shape[2] * item_bytes(tokens)
    return int(_C.prune_tokens(count, background, bytes_of_row, rows(tokens), *arrays, get_num_threads()))


def cosine(tokens: Any, prompts: Any, out: Any) -> None:
    """float32; prompts are contiguous."""
    if math.prod(out.shape) == 0:
        return
    tokens = whole_rows(tokens)
    strides = tokens.stride() if is_tensor(tokens) else [s // tokens.itemsize for s in tokens.strides]
    sizes = (*tokens.shape, prompts.shape[1], strides[0], strides[1], len(prompts))
    _C.cosine_scores(sizes, address(tokens), address(prompts), address(out), get_num_threads())


def match(metric: Any, merged: int, spared: int, kept: Any, target: Any) -> None:
    if not 0 <= merged <= (metric.shape[1] - spared) // 2:
        raise ValueError(f"r must be at most (N - protected) // 2 = {(metric.shape[1] - spared) // 2}, got {merged}")
    if math.prod(target.shape):
        sizes = (*metric.shape, merged, spared)
        _C.match_tokens(sizes, address(metric), address(kept), address(target), get_num_threads())


def merge(tokens: Any, size: Any, kept: Any, target: Any, out: Any) -> None:
    if math.prod(out.shape):
        batch, count, channels = tokens.shape
        sizes = (batch, count, count - kept.shape[1], channels)
        arrays = (tokens, size, kept, target, out)
        _C.merge_rows(sizes, *(address(x) for x in arrays), get_num_threads())
