"""Prompts as vectors: VPUFormer's Gaussians along the axes, and SAM's random Fourier features."""

import math
import sys
from typing import Any

import numpy as np

from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array, dtype_name
from fastprompt.ops._checks import check_devices
from fastprompt.ops.guidance import operators
from fastprompt.ops.guidance.click_sets import check_clicks, check_labels, check_positive, check_size, single, whole

__all__ = ["fourier_position_encoding", "prompt_unified_encoding"]

BACKGROUND, FOREGROUND, TOP_LEFT, BOTTOM_RIGHT = 0, 1, 2, 3  # labels with an embedding
NOT_A_POINT, IGNORED = -1, -10


def prompt_unified_encoding(
    points: Any,  # ([B,] N, 2)
    labels: Any,  # ([B,] N)
    *,
    size: tuple[int, int],
    extents: Any = None,  # ([B,] N, 2)
    sigma: float = 3.0,
    heighten_peak: bool = True,
    scale: float = 1.0,
    compat: bool = False,
) -> Any:
    r"""VPUFormer's vector of a prompt: a Gaussian along x, one along y, and three label bits.

    .. math:: v_i = e^{-(i - x)^2 / 2\sigma^2}\ (|i - x| \le r),\quad x = \mathrm{trunc}(\mathrm{scale}\, p_x)

    For a click r = trunc(3 σ), and the peak is 2 with ``heighten_peak``. For a box of width w, r = ⌊w / 2⌋ - 1 and
    σ = ⌊r / 3⌋ instead, and no peak; where one of the two σ is 0, the vectors are zero.

    Args:
        points: clicks (x, y), or centres of boxes. One that is not finite, or has both coordinates negative, is an
            empty slot. labels: 1 positive, 0 negative, anything else an empty slot.
        size: (height, width) of the image.
        extents: (width, height) of the boxes; NaN for a click. Not scaled, as in VPUFormer.
        sigma: of clicks. scale: of coordinates, and of the vectors' lengths.
        compat: True gives the zero vectors that VPUFormer has where two opposite corners of the square around the
            prompt are outside: of clicks near the top right and bottom left corners of the image, for instance.

    Returns:
        ``([B,] N, width + height + 3)`` float32; torch in, torch out. The bits are positive, negative, empty. Not
        differentiable. Scribbles are not covered: VPUFormer draws them at random.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import fastprompt as fp
        >>> fp.prompt_unified_encoding([[1, 0]], [1], size=(2, 3)).round(2)
        array([[0.95, 2.  , 0.95, 2.  , 0.95, 1.  , 0.  , 0.  ]], dtype=float32)

    Source: VPUFormer (Zhang et al., 2023), formulas only. Note that its clicks come as (row, column), of a square
    image, and that it calls the first one x.
    """
    size = check_size(size)
    sigma = check_positive("sigma", sigma)[0]
    scale = check_positive("scale", scale)[0]
    if labels is None:
        raise ValueError("labels must be given: they are part of the vectors")
    clicks = check_clicks(points, labels)
    if extents is not None:
        extents = as_array("extents", extents)
        check_devices(points=clicks.points, extents=extents)
        extents = single(extents)
        extents = extents if clicks.batched or extents.ndim != 2 else extents[None]
        if tuple(extents.shape) != tuple(clicks.points.shape):
            raise ValueError(f"extents must have the shape of points, got {tuple(extents.shape)}")
    options = size, sigma, bool(heighten_peak), scale, bool(compat)
    out = operators.prompt_unified_encoding(clicks.points, clicks.labels, extents, *options)
    return out if clicks.batched else out[0]


def fourier_position_encoding(
    matrix: Any,  # (2, C / 2)
    *,
    size: tuple[int, int],
    points: Any = None,  # (..., N, 2)
    labels: Any = None,  # (..., N)
    boxes: Any = None,  # (..., M, 4)
    embeddings: Any = None,  # (4, C)
    not_a_point: Any = None,  # (C)
    pad: bool | None = None,
) -> Any:
    r"""SAM's random Fourier features of points and boxes: the sparse prompt tokens, or the bare encoding.

    .. math:: \mathrm{pe}(p) = [\sin 2\pi a, \cos 2\pi a],\quad a = (2 p' - 1)\, G,\quad
        p' = \bigl(\tfrac{x + 1/2}{W}, \tfrac{y + 1/2}{H}\bigr)

    Args:
        matrix: the Gaussian matrix G of a model.
        size: (height, width) of the image that coordinates refer to, in pixels.
        points: (x, y). labels: 1 foreground, 0 background, 2 and 3 corners of a box: ``embeddings[label]`` is added;
            -1 no point: ``not_a_point`` instead of the encoding; -10: zeros. Without labels: the bare encoding.
        boxes: (x0, y0, x1, y1), as two tokens with the labels 2 and 3 each, behind those of the points.
        embeddings: rows of background, foreground, top left, bottom right. None adds nothing.
        pad: append a token ``not_a_point`` to the points. Default, as SAM: where there are labels and no boxes.

    Returns:
        ``(..., N [+ 1] + 2 M, C)`` in the dtype of ``matrix``; torch in, torch out. Differentiable.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> fp.fourier_position_encoding(np.eye(2), size=(2, 4), points=[[1.5, 0.5]]).round(3)
        array([[0., 0., 1., 1.]])

    Source: segment-anything's ``PromptEncoder`` (Kirillov et al., 2023); labels 2 and 3 as in SAM 2. transformers
    leaves the encoding of points with these two labels bare, and segment-anything's own class knows 0 and 1 only.
    """
    height, width = check_size(size)
    if height == 0 or width == 0:
        raise ValueError(f"size must be two positive integers (height, width), got {size!r}")
    given = {"matrix": matrix, "points": points, "labels": labels, "boxes": boxes}
    given |= {"embeddings": embeddings, "not_a_point": not_a_point}
    given = {name: as_array(name, x) for name, x in given.items() if x is not None}
    check_devices(**given)
    matrix, points, labels, boxes = (given.get(name) for name in ("matrix", "points", "labels", "boxes"))
    check_fourier(given, pad)
    tokens = []
    if points is not None:
        code = encode(points, matrix, (width, height))
        pad = (labels is not None and boxes is None) if pad is None else pad
        tokens.append(code if labels is None else labelled(code, whole(check_labels(points, labels)), given))
        if pad:
            tokens.append(library(code).broadcast_to(given["not_a_point"], (*code.shape[:-2], 1, code.shape[-1])))
    if boxes is not None:
        corners = boxes.reshape(*boxes.shape[:-1], 2, 2)
        code = encode(corners, matrix, (width, height))
        if "embeddings" in given:
            code = code + given["embeddings"][TOP_LEFT : BOTTOM_RIGHT + 1]
        tokens.append(code.reshape(*boxes.shape[:-2], -1, code.shape[-1]))
    return tokens[0] if len(tokens) == 1 else join(tokens)


def check_fourier(given: dict[str, Any], pad: bool | None) -> None:
    matrix, points, boxes = given["matrix"], given.get("points"), given.get("boxes")
    if matrix.ndim != 2 or matrix.shape[0] != 2 or "float" not in dtype_name(matrix):
        raise ValueError(f"matrix must be (2, C / 2) of floats, got shape {tuple(matrix.shape)} of {matrix.dtype}")
    if points is None and boxes is None:
        raise ValueError("fourier_position_encoding needs points or boxes")
    for name, x, last in (("points", points, 2), ("boxes", boxes, 4)):
        if x is not None and (x.ndim < 2 or x.shape[-1] != last):
            raise ValueError(f"{name} must be (..., {'N' if last == 2 else 'M'}, {last}), got shape {tuple(x.shape)}")
    if points is not None and boxes is not None and points.shape[:-2] != boxes.shape[:-2]:
        lead = tuple(points.shape[:-2])
        raise ValueError(f"boxes must have the leading axes of points, {lead}, got {tuple(boxes.shape[:-2])}")
    if points is None and "labels" in given:
        raise ValueError("labels needs points")
    if "not_a_point" not in given and ("labels" in given or pad):
        raise ValueError("labels and pad need not_a_point, the embedding of label -1 and of the pad")
    channels = 2 * matrix.shape[1]
    for name, shape in (("embeddings", (4, channels)), ("not_a_point", (channels,))):
        if name in given and tuple(given[name].shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(given[name].shape)}")


def library(x: Any) -> Any:
    return sys.modules["torch"] if is_tensor(x) else np


def encode(points: Any, matrix: Any, sizes: tuple[int, int]) -> Any:
    """(..., 2) to (..., C)."""
    lib = library(matrix)
    if is_tensor(points):
        inside = (points.to(matrix.dtype) + 0.5) / points.new_tensor(sizes, dtype=matrix.dtype)
    else:
        inside = ((points.astype(matrix.dtype) + 0.5) / np.array(sizes, matrix.dtype)).astype(matrix.dtype)
    angle = 2 * math.pi * ((2 * inside - 1) @ matrix)
    parts = [lib.sin(angle), lib.cos(angle)]
    return lib.cat(parts, -1) if is_tensor(matrix) else np.concatenate(parts, -1).astype(matrix.dtype)


def labelled(code: Any, labels: Any, given: dict[str, Any]) -> Any:
    """The encoding and the embedding of its label, in place of it where there is no point."""
    lib = library(code)
    if "embeddings" in given:
        inside = (labels >= BACKGROUND) & (labels <= BOTTOM_RIGHT)
        rows = given["embeddings"][lib.where(inside, labels, 0)]
        code = code + lib.where(inside[..., None], rows, 0)
    code = lib.where((labels == NOT_A_POINT)[..., None], given["not_a_point"], code)
    return lib.where((labels == IGNORED)[..., None], 0, code)


def join(tokens: list[Any]) -> Any:
    return library(tokens[0]).cat(tokens, -2) if is_tensor(tokens[0]) else np.concatenate(tokens, -2)
