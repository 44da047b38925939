"""Many queries read a memory of many keys and values."""

import math
import numbers
from typing import Any

import numpy as np

from fastprompt.ops._arrays import as_array, in_dtype_of, plain_floats
from fastprompt.ops._checks import check_devices
from fastprompt.ops.memory.operators import memory_read, turned_memory_read

__all__ = ["memory_attention"]

INTS = (int, np.integer)


def memory_attention(
    q: Any,  # ([B,] N, H, D)
    k: Any,  # ([B,] M, H, D)
    v: Any,  # ([B,] M, H, D')
    *,
    scale: float | None = None,
    rotation: tuple[Any, Any] | None = None,  # cos, sin: (N, D)
    unrotated: int = 0,
) -> Any:
    r"""A read from a memory: softmax(s q k^T) v, without the N x M weights (CMN's read; SAM 2's memory attention).

    .. math:: o_i = \sum_j \operatorname{softmax}_j(s \, \tilde q_i \cdot \tilde k_j) \, v_j

    With ``rotation`` queries and keys are turned before (rotary positions): the pairs (2 i, 2 i + 1) of query n by the
    angles whose cosines and sines are row n, in float32. The memory holds whole frames, so its keys take the rows again
    and again, frame by frame; the last ``unrotated`` keys, SAM 2's object pointers, are not turned. Values never are.

    Args:
        q, k, v: H heads of width D (values D'). float32; float16 and bfloat16 are converted.
        scale: s, default 1 / sqrt(D); CMN's read has 1.
        rotation: cosines and sines, each number twice, as transformers' models make them; D is even.
        unrotated: number of keys at the end. The others are a multiple of N, or none.

    Returns:
        ([B,] N, H D') in the dtype of ``q``, the heads side by side; torch in, torch out. Differentiable by q, k, v and
        rotation, with blocks of the weights in memory, never all.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> x = lambda *shape: np.random.default_rng(0).standard_normal(shape, np.float32)
        >>> fp.memory_attention(x(64, 1, 32), x(128, 1, 32), x(128, 1, 32), scale=1.0).shape
        (64, 32)

    Source: Ravi et al., SAM 2, 2024; Xie et al., cyclic memory network (CMN), 2021: its read, without its recurrent
    update.
    """
    q, k, v = (as_array(name, x) for name, x in (("q", q), ("k", k), ("v", v)))
    like = q
    check_devices(q=q, k=k, v=v)
    check_shapes(q, k, v)
    number = int(q.shape[-1]) ** -0.5 if scale is None else scale
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise TypeError(f"scale must be a number, got {scale!r}")
    if not math.isfinite(number):
        raise ValueError(f"scale must be finite, got {scale!r}")
    single = q.ndim == 3
    q, k, v = (plain_floats(x[None] if single else x) for x in (q, k, v))
    if rotation is not None:
        cos, sin = turns(q, k, rotation, unrotated)
        out = turned_memory_read(q, k, v, cos, sin, cos, sin, int(unrotated), float(number))
    elif unrotated:
        raise ValueError("unrotated needs rotation")
    else:
        out = memory_read(q, k, v, float(number))[0]
    out = out.reshape(*out.shape[:2], out.shape[2] * out.shape[3])
    return in_dtype_of(out[0] if single else out, like)


def check_shapes(q: Any, k: Any, v: Any) -> None:
    if q.ndim not in (3, 4) or 0 in tuple(q.shape[-2:]):
        raise ValueError(f"q must be ([B,] N, heads, width), got {tuple(q.shape)}")
    axes = ", ".join([*map(str, q.shape[:-3]), "M", *map(str, q.shape[-2:])])
    if k.ndim != q.ndim or tuple(k.shape[:-3]) != tuple(q.shape[:-3]) or tuple(k.shape[-2:]) != tuple(q.shape[-2:]):
        raise ValueError(f"k must be ({axes}), got {tuple(k.shape)}")
    if k.shape[-3] == 0:
        raise ValueError(f"k must have at least one key, got {tuple(k.shape)}")
    if v.ndim != q.ndim or tuple(v.shape[:-1]) != tuple(k.shape[:-1]) or v.shape[-1] == 0:
        raise ValueError(f"v must be ({', '.join(map(str, k.shape[:-1]))}, width), got {tuple(v.shape)}")


def turns(q: Any, k: Any, rotation: Any, unrotated: Any) -> tuple[Any, Any]:
    """Cosines and sines in float32."""
    if not isinstance(rotation, (tuple, list)) or len(rotation) != 2:
        raise TypeError(f"rotation must be a pair of cosines and sines, got {type(rotation).__name__}")
    count, keys, width = int(q.shape[1]), int(k.shape[1]), int(q.shape[-1])
    if isinstance(unrotated, bool) or not isinstance(unrotated, INTS) or not 0 <= unrotated <= keys:
        raise ValueError(f"unrotated must be an integer from 0 to the number of keys {keys}, got {unrotated!r}")
    both = tuple(as_array("rotation", x) for x in rotation)
    for x in both:
        check_devices(q=q, rotation=x)
        if tuple(x.shape) != (count, width) or width % 2:
            raise ValueError(
                f"rotation must hold two arrays of shape {(count, width)}, an even width, got {tuple(x.shape)}"
            )
    turned = keys - int(unrotated)
    if turned and (count == 0 or turned % count):
        raise ValueError(f"k must have a multiple of the {count} queries and {unrotated} unrotated keys, got {keys}")
    cos, sin = map(plain_floats, both)
    return cos, sin
