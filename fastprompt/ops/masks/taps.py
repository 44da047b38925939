"""Which inputs an output of a bilinear resizing looks at."""

import functools
from typing import Any

import numpy as np

Pairs = tuple[Any, Any]  # indices, weights: (outputs, taps)


def bilinear(inputs: int, outputs: int, single: bool) -> Pairs:
    """As ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``. ``single``: with the places that it
    rounds to float32, once after a fused multiplication and addition; they are off by up to 1e-5 of a pixel."""
    middle = np.arange(outputs) + 0.5
    at: Any
    if single:
        at = (middle * np.float64(np.float32(inputs) / np.float32(outputs)) - 0.5).astype(np.float32)
    else:
        at = middle * inputs / outputs - 0.5
    at = np.clip(at.astype(np.float64), 0, inputs - 1)
    low = np.floor(at).astype(np.int64)
    return np.stack([low, np.minimum(low + 1, inputs - 1)], 1), np.stack([1 - (at - low), at - low], 1)


def chained(outer: Pairs, inner: Pairs) -> Pairs:
    """One resizing after another."""
    index, weight = inner[0][outer[0]], inner[1][outer[0]] * outer[1][..., None]
    return index.reshape(len(index), -1), weight.reshape(len(index), -1)


@functools.lru_cache(maxsize=64)
def taps(inputs: int, frame: int | None, crop: int | None, outputs: int, single: bool) -> Pairs:
    """``inputs`` to ``frame``, of that the first ``crop``, to ``outputs``: (taps, outputs) of int32 and float32."""
    if frame is None:
        index, weight = bilinear(inputs, outputs, single)
    else:
        last = bilinear(frame if crop is None else crop, outputs, single)
        index, weight = chained(last, bilinear(inputs, frame, single))
    order = np.argsort(index, 1, kind="stable")
    index, weight = (np.take_along_axis(x, order, 1) for x in (index, weight))
    for k in range(index.shape[1] - 1, 0, -1):  # the same input twice: once, with both weights
        again = index[:, k] == index[:, k - 1]
        weight[again, k - 1] += weight[again, k]
        weight[again, k] = 0
    order = np.argsort(weight == 0, 1, kind="stable")
    index, weight = (np.take_along_axis(x, order, 1) for x in (index, weight))
    count = max(1, int((weight != 0).sum(1).max(initial=1)))
    return tuple(np.ascontiguousarray(x[:, :count].T, t) for x, t in ((index, np.int32), (weight, np.float32)))  # type: ignore[return-value]


def of_axes(shape: tuple[int, ...], size: Any, frame: Any, crop: Any, single: bool = False) -> tuple[Pairs, Pairs]:
    """``taps`` of both axes; ``frame`` and ``crop`` are empty where there are none."""
    if len(size) != 2 or len(frame) not in (0, 2) or len(crop) not in (0, 2) or min(*size, *frame, *crop) < 1:
        raise ValueError(f"size, frame and crop must be two positive integers, got {size}, {frame} and {crop}")
    if crop and (not frame or any(c > f for c, f in zip(crop, frame, strict=True))):
        raise ValueError(f"crop must lie in frame {frame}, got {crop}")
    rows, columns = (
        taps(inputs, frame[k] if frame else None, crop[k] if crop else None, size[k], single)
        for k, inputs in enumerate(shape)
    )
    return rows, columns
