"""Windows as images of their own, for the gradient: autograd undoes the partition."""

from typing import Any

from torch import Tensor

from fastprompt.ops.encoder.formulas import partition, united
from fastprompt.ops.encoder.operators import relative_attention


def by_windows(
    q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, pad_key: Any, pad_value: Any,
    size: tuple[int, int], window: tuple[int, int], scale: float,
) -> Tensor:  # fmt: skip
    paddings = None, pad_key, pad_value
    parts = [partition(x, size, window, padding) for x, padding in zip((q, k, v), paddings, strict=True)]
    out = relative_attention(*parts, rel_h, rel_w, None, None, None, list(window), [0, 0], scale)[0]
    return united(out, size, window)
