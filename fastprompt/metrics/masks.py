"""Metrics of one mask against another."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fastprompt._choices import choice
from fastprompt._runtime import is_tensor
from fastprompt.metrics import _operators
from fastprompt.metrics._counts import Blank, check_empty, counted, ratio
from fastprompt.ops._arrays import as_array, dtype_name
from fastprompt.ops._binary import contiguous, labelled, prediction
from fastprompt.ops._checks import check_devices, check_number
from fastprompt.ops.geodesic.euclidean import euclidean_distance_transform
from fastprompt.ops.geodesic.grid import check_spacing

__all__ = ["dice", "hausdorff", "iou", "pairwise_iou", "point_matching"]

Apart = Literal["zero", "nan"]


def like(tensor: bool, x: Any) -> Any:
    """A NumPy result in the kind of the input."""
    if not tensor:
        return x[()]
    import torch

    return torch.from_numpy(np.array(x))


def iou(
    pred: Any,  # (..., H, W)
    target: Any,  # (..., H, W)
    *,
    empty: Blank = "one",
    threshold: float | None = None,
    ignore: int | None = None,
    eps: float = 0.0,
) -> Any:
    r"""Intersection over union of every prediction and its target, foreground only.

    .. math:: \mathrm{IoU} = \frac{|P \cap T|}{|P \cup T| + \varepsilon}

    Args:
        pred, target, threshold, ignore: see :func:`overlap`.
        empty: the value where both masks are empty, whatever ``eps``: "one", "zero" or "nan". One empty mask gives 0.
        eps: CRIS adds 1e-6.

    Returns:
        float64, of the leading axes; torch in, torch out. No gradient.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> float(fp.metrics.iou(np.array([[0.9, 0.8, 0.1]]), np.array([[0, 1, 1]]), threshold=0.5))
        0.3333333333333333
    """
    check_empty(empty, Blank)
    eps = check_number("eps", eps, 0.0, math.inf)
    tensor, n = counted(pred, target, threshold, ignore)
    return like(tensor, ratio(n.intersection, n.union, empty, eps))


def dice(
    pred: Any,  # (..., H, W)
    target: Any,  # (..., H, W)
    *,
    empty: Blank = "one",
    threshold: float | None = None,
    ignore: int | None = None,
) -> Any:
    r"""Dice coefficient, or F1 score of the pixels.

    .. math:: \mathrm{Dice} = \frac{2\,|P \cap T|}{|P| + |T|}

    Arguments, results and errors are those of :func:`iou`.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> float(fp.metrics.dice(np.array([[1, 1, 0]]), np.array([[0, 1, 1]])))
        0.5
    """
    check_empty(empty, Blank)
    tensor, n = counted(pred, target, threshold, ignore)
    return like(tensor, ratio(2 * n.intersection, n.pred + n.target, empty))


def hausdorff(
    pred: Any,  # (..., [D,] H, W)
    target: Any,  # (..., [D,] H, W)
    *,
    spacing: float | Sequence[float] = 1.0,
    dims: int | None = None,
    surface: bool = False,
    empty: Apart = "zero",
    one_empty: Literal["inf", "diagonal"] = "inf",
    threshold: float | None = None,
) -> Any:
    r"""Hausdorff distance of two masks, exact.

    .. math:: \max\bigl(\max_{p \in P} \min_{t \in T} |p - t|,\ \max_{t \in T} \min_{p \in P} |p - t|\bigr)

    Args:
        pred, target, threshold: see :func:`overlap`.
        spacing: pixel size, a number or one per spatial axis.
        dims: 2 or 3 spatial axes; default 3 where the masks have five axes, else 2: (D, H, W) are D masks without
            ``dims=3``.
        surface: between the border pixels of the masks, those with one of 4 (6) neighbours outside of mask or image, as
            torchmetrics and medical toolkits do; else between all their pixels, as SciPy and scikit-image do. A mask
            inside a hole of the other makes the difference.
        empty: of two empty masks: "zero" or "nan".
        one_empty: where only one is empty: "inf", or "diagonal", the largest distance of two pixels of the image.

    Returns:
        float64, of the leading axes, in the unit of ``spacing``; torch in, torch out. No gradient.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> float(fp.metrics.hausdorff(np.array([[1, 0, 0]]), np.array([[1, 0, 1]])))
        2.0
    """
    check_empty(empty, Apart)
    choice("one_empty", one_empty, ("inf", "diagonal"))
    pred, target = as_array("pred", pred), as_array("target", target)
    # Leading axes are a batch of any shape, so three numbers of spacing alone make no volume of it.
    sizes = check_spacing(spacing, dims or (3 if pred.ndim == 5 else 2), 0)
    check_devices(pred=pred, target=target)
    if pred.ndim < len(sizes) or tuple(pred.shape) != tuple(target.shape):
        shapes = f"{tuple(pred.shape)} and {tuple(target.shape)}"
        wanted = "(..., D, H, W)" if len(sizes) == 3 else "(..., H, W)"
        raise ValueError(f"pred and target must both be {wanted}, got shapes {shapes}")
    axes = tuple(range(-len(sizes), 0))
    pair = []
    for x, (made, bound) in ((pred, prediction(pred, threshold)), (target, labelled(target, None))):
        inside = made > bound if dtype_name(made) == "float32" else made != 0
        inside = inside.numpy() if is_tensor(x) else inside
        pair.append(border(inside, axes) if surface else inside)
    lead, pixels = pair[0].shape[: axes[0]], pair[0].shape[axes[0] :]
    reach = [directed(a, b, sizes) for a, b in (pair, pair[::-1])] if pair[0].size else [np.full(lead, -math.inf)] * 2
    out = np.asarray(np.maximum(*reach))
    blank = [~x.any(axes) for x in pair]
    diagonal = math.hypot(*(s * (n - 1) for s, n in zip(sizes, pixels, strict=True)))
    out[blank[0] != blank[1]] = math.inf if one_empty == "inf" else diagonal
    out[blank[0] & blank[1]] = 0.0 if empty == "zero" else math.nan
    return like(is_tensor(pred), out)


def directed(of: Any, to: Any, sizes: tuple[float, ...]) -> Any:
    """The largest distance of a pixel of ``of`` to the nearest of ``to``."""
    distance = euclidean_distance_transform(to, spacing=sizes, dims=len(sizes))
    return np.where(of, distance, -np.inf).max(tuple(range(-len(sizes), 0))).astype(np.float64)


def border(mask: Any, axes: tuple[int, ...]) -> Any:
    """Pixels with one of their neighbours along these axes outside."""
    inner = mask.copy()
    for axis in axes:
        x, of = (np.moveaxis(m, axis, -1) for m in (mask, inner))  # views
        of[..., :1] = of[..., -1:] = False  # at the edge of the image, one is always outside
        of[..., 1:-1] &= x[..., :-2] & x[..., 2:]
    return mask & ~inner


def point_matching(
    scores: Any,  # (..., H, W)
    target: Any,  # (..., H, W)
) -> Any:
    """PointM: whether the pixel of the highest score lies in the target.

    Of equal scores the first in the order of the rows counts, NaN is the lowest score, and an empty target is a miss.

    Args:
        scores: similarity, probability or logits, any real dtype.
        target: the same shape, non-zero = inside.

    Returns:
        bool, of the leading axes; torch in, torch out. Its mean is the metric.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> bool(fp.metrics.point_matching(np.array([[0.1, 0.9, 0.9]]), np.array([[0, 1, 0]])))
        True
    """
    scores, target = as_array("scores", scores), as_array("target", target)
    check_devices(scores=scores, target=target)
    if scores.ndim < 2 or tuple(scores.shape) != tuple(target.shape) or 0 in tuple(scores.shape[-2:]):
        shapes = f"{tuple(scores.shape)} and {tuple(target.shape)}"
        raise ValueError(f"scores and target must both be (..., H, W) and not empty there, got shapes {shapes}")
    lead = tuple(scores.shape[:-2])
    inside = labelled(target, None)[0]
    if is_tensor(scores):
        values = (scores.detach().float() if dtype_name(scores) == "bfloat16" else scores.detach()).numpy()
    else:
        values = scores
    flat = values.reshape(math.prod(lead), math.prod(scores.shape[-2:]))
    if flat.dtype.kind == "f":
        flat = np.where(np.isnan(flat), -np.inf, flat)
    at = flat.argmax(1)
    hit = np.asarray(inside).reshape(flat.shape)[np.arange(len(flat)), at] != 0
    return like(is_tensor(scores), hit.reshape(lead))


def pairwise_iou(
    pred: Any,  # (M, H, W)
    target: Any,  # (K, H, W)
    *,
    empty: Blank = "one",
    threshold: float | None = None,
) -> Any:
    """IoU of every prediction with every target: matching, duplicates, proposals.

    Each mask is packed to one bit a pixel once; a pair then costs one AND and one count for 64 pixels.

    Args:
        pred, target, threshold: see :func:`overlap`; each has one leading axis.
        empty: see :func:`iou`.

    Returns:
        (M, K) float64; torch in, torch out. No gradient.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> masks = np.array([[[1, 1, 0]], [[0, 0, 1]]])
        >>> fp.metrics.pairwise_iou(masks, masks)
        array([[1., 0.],
               [0., 1.]])
    """
    check_empty(empty, Blank)
    pred, target = as_array("pred", pred), as_array("target", target)
    check_devices(pred=pred, target=target)
    if pred.ndim != 3 or target.ndim != 3 or tuple(pred.shape[1:]) != tuple(target.shape[1:]):
        shapes = f"{tuple(pred.shape)} and {tuple(target.shape)}"
        raise ValueError(f"pred must be (M, H, W) and target (K, H, W), got shapes {shapes}")
    first, second = packed(*prediction(pred, threshold)), packed(labelled(target, None)[0], 0.0)
    areas = [pair_counts(x, x, diagonal=True) for x in (first, second)]
    both = pair_counts(first, second)
    return like(is_tensor(pred), ratio(both, areas[0][:, None] + areas[1][None] - both, empty))


def packed(masks: Any, bound: float) -> Any:
    """(M, words) uint64, one bit a pixel."""
    inside = masks > bound if dtype_name(masks) == "float32" else masks
    flat = contiguous(inside).reshape(inside.shape[0], math.prod(inside.shape[1:]))
    bits = np.packbits(np.asarray(flat), axis=1)
    words = np.zeros((len(bits), -(-bits.shape[1] // 8) * 8), np.uint8)
    words[:, : bits.shape[1]] = bits
    return words.view(np.uint64)


def pair_counts(first: Any, second: Any, diagonal: bool = False) -> Any:
    """Pixels in common of packed masks (M, words) and (K, words); with ``diagonal`` of mask m and mask m only."""
    if diagonal:
        return np.array([pair_counts(x[None], x[None])[0, 0] for x in first], np.int64)
    return _operators.pair_counts(first, second)
