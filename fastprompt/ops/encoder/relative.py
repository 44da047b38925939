"""Self-attention over a grid of tokens, with the decomposed relative position of SAM's image encoder."""

import numbers
from typing import Any, NamedTuple

import numpy as np

from fastprompt import _gpu
from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array, dtype_name, in_dtype_of, plain_floats
from fastprompt.ops._checks import check_devices
from fastprompt.ops.encoder.call import LANES, floats
from fastprompt.ops.encoder.operators import relative_attention

__all__ = ["relative_position_attention"]

INTS = (int, np.integer)


def relative_position_attention(
    q: Any,  # ([B,] N, H, D)
    k: Any,  # as q
    v: Any,  # as q
    rel_h: Any,  # (2 h - 1, D)
    rel_w: Any,  # (2 w - 1, D)
    *,
    size: tuple[int, int],  # (h, w)
    scale: float | None = None,
    coordinates: Any = None,  # ([B,] N, 2)
    window: int | tuple[int, int] | None = None,
    padding: tuple[Any, Any] | None = None,  # key (H, D), value (H, D)
) -> Any:
    r"""Self-attention with decomposed relative position (the image encoders of SAM, SAM-HQ, SegGPT, Painter).

    .. math:: a_{ij} = s \, q_i \cdot k_j + q_i \cdot R^h_{y_i - y_j + h - 1} + q_i \cdot R^w_{x_i - x_j + w - 1},
        \qquad o_i = \sum_j \operatorname{softmax}_j(a_{ij}) \, v_j

    The query of the two bias terms is not scaled. Neither the bias nor the weights, N x N numbers for every head, are
    ever written to memory: the products of a query with the tables, 2 h + 2 w - 2 numbers, serve all keys.

    Args:
        q, k, v: queries, keys and values of H heads of width D. Any strides are read in place as long as those of the
            last axis are 1: ``qkv(x).unflatten(-1, (3, H, D)).unbind(2)`` costs nothing. float32; float16 and bfloat16
            are converted, on a GPU multiplied as they are.
        rel_h, rel_w: the tables. With windows they are of the window's size.
        size: rows and columns of the grid. Tokens are its positions, row by row, N = h w.
        scale: s, default 1 / sqrt(D).
        coordinates: integers, (row, column) of every token inside the grid, where the tokens are any part of it, in any
            order; one list for all images, or one for each. Exact: the bias needs nothing else. On a GPU, where looking
            would wait for it, those outside count as the nearest ones inside.
        window: the grid is cut into windows of this size, from the upper left, which attend to themselves. N is still
            that of the grid: nothing is partitioned, nothing is padded.
        padding: key and value of the positions of the last windows that lie outside the grid: SAM pads the input of the
            qkv layer with zeros, so these are its bias. They take part in the softmax, all of them at the cost of one.
            Required where windows do not divide the grid.

    Returns:
        ([B,] N, H D) in the dtype of ``q``, the heads side by side, as the next linear layer wants it; torch in, torch
        out. Differentiable by q, k, v, rel_h, rel_w and padding, without the N x N numbers there as well.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> x = lambda *shape: np.random.default_rng(0).standard_normal(shape, np.float32)
        >>> qkv = x(196, 3, 12, 64)
        >>> q, k, v = qkv[:, 0], qkv[:, 1], qkv[:, 2]
        >>> fp.relative_position_attention(q, k, v, x(27, 64), x(27, 64), size=(14, 14)).shape
        (196, 768)

    Source: Li et al., MViTv2, 2022; Kirillov et al., Segment Anything, 2023. The softmax is taken block by block as in
    Dao et al., FlashAttention, 2022.
    """
    q = as_array("q", q)
    single = q.ndim == 3
    a = check(q, k, v, rel_h, rel_w, size, scale, coordinates, window, padding)
    batch, tokens, heads, _ = a.q.shape
    out = attend(a)[..., : a.width].reshape(batch, tokens, heads * a.width)
    out = in_dtype_of(out, q)
    return out[0] if single else out


class Arguments(NamedTuple):
    """Of the operator, checked and batched, and D: in float32, the width of a head padded to a multiple of ``LANES``;
    on a GPU in their own type and width."""

    q: Any
    k: Any
    v: Any
    rel_h: Any
    rel_w: Any
    coordinates: Any  # (B or 1, N, 2), or None; the operator looks at the values, where there are some
    pad_key: Any
    pad_value: Any
    size: tuple[int, int]
    window: tuple[int, int]  # (0, 0): none
    scale: float
    width: int  # D


def check(
    q: Any, k: Any, v: Any, rel_h: Any, rel_w: Any, size: Any, scale: Any, coordinates: Any, window: Any, padding: Any
) -> Arguments:
    given = {"q": q, "k": k, "v": v, "rel_h": rel_h, "rel_w": rel_w}
    given = {name: as_array(name, x) for name, x in given.items()}
    check_devices(**given)
    q, k, v = given["q"], given["k"], given["v"]
    if q.ndim not in (3, 4) or 0 in q.shape[-2:]:
        raise ValueError(f"q must be ([B,] N, heads, width), got {tuple(q.shape)}")
    for name in ("k", "v"):
        if tuple(given[name].shape) != tuple(q.shape):
            raise ValueError(f"{name} must have the shape of q {tuple(q.shape)}, got {tuple(given[name].shape)}")
    size = pair("size", size)
    cell = (0, 0) if window is None else pair("window", window)
    tokens, heads, width = (int(n) for n in q.shape[-3:])
    for name, extent in zip(("rel_h", "rel_w"), cell if window is not None else size, strict=True):
        want = (2 * extent - 1, width)
        if tuple(given[name].shape) != want:
            raise ValueError(f"{name} must have shape {want}, got {tuple(given[name].shape)}")
    if coordinates is None and tokens != size[0] * size[1]:
        raise ValueError(f"q must hold the {size[0]} x {size[1]} tokens of the grid, got {tokens}; or give coordinates")
    places = check_coordinates(coordinates, q, window)
    key, value = check_padding(padding, q, size, cell, heads, width)
    number = width**-0.5 if scale is None else scale
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise TypeError(f"scale must be a number, got {scale!r}")
    q, k, v = (q, k, v) if q.ndim == 4 else (q[None], k[None], v[None])
    tables = (given["rel_h"], given["rel_w"], key, value)
    if _gpu.is_cuda(q):
        q, k, v, rel_h, rel_w, key, value = on_gpu(q, k, v, *tables)
    else:
        q, k, v = (widened(floats(x)) for x in (q, k, v))
        rel_h, rel_w, key, value = (None if x is None else widened(plain_floats(x)) for x in tables)
    return Arguments(q, k, v, rel_h, rel_w, places, key, value, size, cell, float(number), width)


def pair(name: str, value: Any) -> tuple[int, int]:
    both: Any = (value, value) if isinstance(value, INTS) and name == "window" else value
    if not isinstance(both, (tuple, list)) or len(both) != 2 or not all(isinstance(n, INTS) for n in both):
        raise TypeError(f"{name} must be two ints, rows and columns, got {value!r}")
    if min(both) < 1 or max(both) >= 2**15:
        raise ValueError(f"{name} must be between 1 and {2**15 - 1} in each direction, got {value!r}")
    return int(both[0]), int(both[1])


def check_coordinates(x: Any, q: Any, window: Any) -> Any:
    if x is None:
        return None
    if window is not None:
        raise ValueError("coordinates and window exclude each other: give the tokens of each window as an image")
    x = as_array("coordinates", x)
    check_devices(q=q, coordinates=x)
    if "int" not in dtype_name(x):
        raise TypeError(f"coordinates must hold integers, got dtype {x.dtype}")
    tokens, batch = int(q.shape[-3]), int(q.shape[0]) if q.ndim == 4 else 1
    if tuple(x.shape) not in ((tokens, 2), (1, tokens, 2), (batch, tokens, 2)):
        raise ValueError(f"coordinates must have shape {(tokens, 2)} or {(batch, tokens, 2)}, got {tuple(x.shape)}")
    return x if x.ndim == 3 else x[None]


def check_padding(
    padding: Any, q: Any, size: tuple[int, int], window: tuple[int, int], heads: int, width: int
) -> tuple[Any, Any]:
    if padding is None:
        if window[0] and (size[0] % window[0] or size[1] % window[1]):
            raise ValueError(f"padding must give key and value where windows {window} do not divide the grid {size}")
        return None, None
    if not window[0]:
        raise ValueError("padding is for windows: give window as well")
    if not isinstance(padding, (tuple, list)) or len(padding) != 2:
        raise TypeError(f"padding must be a pair of key and value, got {type(padding).__name__}")
    both = tuple(as_array("padding", x) for x in padding)
    for x in both:
        check_devices(q=q, padding=x)
        if tuple(x.shape) != (heads, width):
            raise ValueError(f"padding must hold two arrays of shape {(heads, width)}, got {tuple(x.shape)}")
    return both


def on_gpu(*tensors: Any) -> list[Any]:
    """The numbers as they are if q, k, v, the first three, have one floating type of at most 32 bits; the tables,
    contiguous, may have others."""
    import torch

    kinds = torch.float32, torch.float16, torch.bfloat16
    alike = len({x.dtype for x in tensors[:3]}) == 1
    made = [x if x is None or (x.dtype in kinds and (alike or n > 2)) else x.float() for n, x in enumerate(tensors)]
    return made[:3] + [None if x is None else x.contiguous() for x in made[3:]]


def widened(x: Any) -> Any:
    """Zeros behind the last axis up to the next multiple of ``LANES``: they add nothing to any product."""
    missing = -x.shape[-1] % LANES
    if not missing:
        return x
    if is_tensor(x):
        import torch

        return torch.nn.functional.pad(x, (0, missing))
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])


def attend(a: Arguments) -> Any:
    """(B, N, heads, width)."""
    if a.window[0] and needs_gradient(a):
        from fastprompt.ops.encoder.windows import by_windows

        return by_windows(*a[:5], *a[6:11])
    return relative_attention(*a[:8], list(a.size), list(a.window), a.scale)[0]


def needs_gradient(a: Arguments) -> bool:
    if not any(getattr(x, "requires_grad", False) for x in a[:8]):
        return False
    import torch

    return torch.is_grad_enabled()
