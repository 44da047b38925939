"""The click simulator."""

import math
from typing import Any, NamedTuple

import numpy as np

from fastprompt._gpu import is_cuda
from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array
from fastprompt.ops._binary import labelled, prediction
from fastprompt.ops._checks import check_devices
from fastprompt.ops.clicks import operators
from fastprompt.ops.clicks.call import LARGEST_SIDE

__all__ = ["Click", "next_click"]

FAR = 2**30  # of a click that is no pixel


class Click(NamedTuple):
    """A click of :func:`next_click`."""

    x: int
    y: int
    label: int  # 1 positive, 0 negative
    distance: float  # pixels to the nearest pixel without an error of this kind

    @property
    def point(self) -> tuple[int, int]:
        return self.x, self.y


def next_click(
    target: Any,  # ([B,] H, W)
    pred: Any,  # ([B,] H, W)
    *,
    clicked: Any = None,  # ([B,] K, 2)
    threshold: float | None = None,
    ignore: int | None = None,
    compat: bool = False,
) -> Any:
    r"""The click of the standard evaluation: the middle of the largest error.

    .. math:: \mathrm{FN} = T \setminus P,\quad \mathrm{FP} = P \setminus T,\qquad
        q^* = \operatorname*{arg\,max}_{q \in \mathrm{FN}\ \text{or}\ \mathrm{FP}}\
        \min_{r \notin \mathrm{FN}\ (\mathrm{FP})} |q - r|

    with exact Euclidean distances; pixels outside of the image are no error. It is positive if the maximum of FN is the
    larger one; equal maxima make it negative. Of equal pixels the first in the order of the rows is taken.

    Args:
        target: the true mask, any real dtype, non-zero = inside.
        pred: the prediction; bool and integers: non-zero = inside, floats need a ``threshold``.
        clicked: pixels (x, y) that were clicked before and cannot be chosen; rounded, those outside of the image and
            NaN are passed over.
        threshold: inside where ``pred > threshold``; published code takes 0.49 of probabilities.
        ignore: pixels with this value of ``target`` are no errors, e.g. -1.
        compat: without any error left, published code clicks: negative, at (0, 0). So does ``compat=True``.

    Returns:
        :class:`Click`, or None where no error is left to click on; a list of them for a batch. Exact for images of up
        to 32766 pixels on a side; where the shorter side is over 8190, distances above 4096 may tie by rounding (not on
        a GPU). On a GPU the answer is waited for: ``torch.ops.fastprompt.next_click`` leaves it there.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> target = np.zeros((7, 9), bool); target[1:6, 2:7] = True
        >>> fp.next_click(target, np.zeros_like(target))
        Click(x=4, y=3, label=1, distance=3.0)

    Source: RITM (Sofiiuk et al., 2022), ``Clicker._get_next_click``; the same in f-BRS, SimpleClick and ClickSEG.
    """
    target, pred = as_array("target", target), as_array("pred", pred)
    check_devices(target=target, pred=pred)
    if target.ndim not in (2, 3) or tuple(pred.shape) != tuple(target.shape):
        shapes = f"{tuple(target.shape)} and {tuple(pred.shape)}"
        raise ValueError(f"target and pred must both be ([B,] H, W), got shapes {shapes}")
    check_side("target", target)
    single = target.ndim == 2
    if single:
        target, pred = target[None], pred[None]
    masks, bound = prediction(pred, threshold)
    labels, code = labelled(target, ignore)
    points = check_clicked(clicked, len(target), single)
    if is_tensor(target):
        import torch

        points = torch.as_tensor(points, device=masks.device)
    found = operators.next_click(masks, labels, points, bound, code)
    clicks = [click_of(row, compat) for row in found.tolist()]
    return clicks[0] if single else clicks


def check_side(name: str, target: Any) -> None:
    if max(target.shape[-2:]) > LARGEST_SIDE:
        wanted = f"at most {LARGEST_SIDE} pixels on a side"
        raise ValueError(f"{name} must have {wanted}, got shape {tuple(target.shape)}")


def click_of(row: list[int], compat: bool) -> Click | None:
    x, y, label, square = row
    if square == 0:
        return Click(0, 0, 0, 0.0) if compat else None
    return Click(x, y, label, math.sqrt(square))


def check_clicked(clicked: Any, batch: int, single: bool) -> Any:
    """(B, K, 2) int32: NumPy, or a tensor on the GPU of ``clicked``, which need not wait for the host."""
    if clicked is None:
        return np.empty((batch, 0, 2), np.int32)
    clicked = as_array("clicked", clicked)
    on_gpu = is_cuda(clicked)
    points: Any = (
        clicked.detach().double()
        if on_gpu
        else np.asarray(clicked.detach().cpu().double() if is_tensor(clicked) else clicked, float)
    )
    if 0 in points.shape:
        return np.empty((batch, 0, 2), np.int32)
    if single:
        points = points[None]
    if points.ndim != 3 or points.shape[0] != batch or points.shape[2] != 2:
        wanted = "(K, 2)" if single else f"({batch}, K, 2)"
        raise ValueError(f"clicked must be {wanted}, points (x, y), got shape {tuple(clicked.shape)}")
    if on_gpu:
        return points.nan_to_num(nan=-FAR).clamp(-FAR, FAR).round().int()
    known = np.where(np.isnan(points), -FAR, points)
    return np.ascontiguousarray(np.rint(known.clip(-FAR, FAR)), np.int32)
