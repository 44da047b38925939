"""Masks on their way to the counting kernels."""

import math
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from fastprompt._choices import choice
from fastprompt._runtime import is_tensor
from fastprompt.metrics._operators import overlap_counts
from fastprompt.ops._arrays import as_array
from fastprompt.ops._binary import labelled, prediction
from fastprompt.ops._checks import check_devices

Blank = Literal["one", "zero", "nan"]  # the value of two empty masks
Empty = Literal["one", "zero", "nan", "skip"]  # skip: it does not count


class Overlap(NamedTuple):
    """int64, one number for each pair of masks."""

    intersection: Any
    pred: Any
    target: Any
    pixels: Any  # that count: all but the ignored

    @property
    def union(self) -> Any:
        return self.pred + self.target - self.intersection


def overlap(pred: Any, target: Any, *, threshold: float | None = None, ignore: int | None = None) -> Overlap:
    """Pixels of the intersection, of the prediction and of the target, in one pass over the masks.

    Args:
        pred: ``(..., H, W)``. bool and integers: non-zero = inside. Floats need a ``threshold``.
        target: the same shape, any real dtype: non-zero = inside, NaN = outside.
        threshold: inside where ``pred > threshold``, e.g. 0 for logits, 0.5 for probabilities; NaN = outside. Compared
            in float32 (float64 in float64).
        ignore: pixels with this value of ``target``, e.g. 255 or -1, count nowhere.

    Returns:
        :class:`Overlap` of arrays of the leading axes; torch in, torch out. No gradient.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> found = fp.metrics.overlap(np.array([[1, 1, 0]]), np.array([[0, 1, 255]]), ignore=255)
        >>> [int(n) for n in found]
        [1, 2, 1, 2]
    """
    tensor, found = count(pred, target, threshold, ignore)
    parts = (found[..., k] for k in range(4))
    if tensor:
        import torch

        return Overlap(*(torch.from_numpy(np.array(x)) for x in parts))
    return Overlap(*(x[()] for x in parts))


def counted(pred: Any, target: Any, threshold: float | None, ignore: int | None) -> tuple[bool, Overlap]:
    """Whether these are tensors, and the counts as NumPy arrays."""
    tensor, found = count(pred, target, threshold, ignore)
    return tensor, Overlap(*(found[..., k] for k in range(4)))


def count(pred: Any, target: Any, threshold: float | None, ignore: int | None) -> tuple[bool, Any]:
    pred, target = as_array("pred", pred), as_array("target", target)
    check_devices(pred=pred, target=target)
    if pred.ndim < 2 or tuple(pred.shape) != tuple(target.shape):
        shapes = f"{tuple(pred.shape)} and {tuple(target.shape)}"
        raise ValueError(f"pred and target must both be (..., H, W), got shapes {shapes}")
    lead, pixels = tuple(pred.shape[:-2]), math.prod(pred.shape[-2:])
    masks, bound = prediction(pred, threshold)
    labels, code = labelled(target, ignore)
    flat = [x.reshape(math.prod(lead), pixels) for x in (masks, labels)]
    counts = overlap_counts(*flat, bound, code)
    found = np.asarray(counts.cpu() if is_tensor(counts) else counts)
    return is_tensor(pred), found.reshape(*lead, 4)


def check_empty(empty: str, words: Any = Empty) -> str:
    """``words``: a ``Literal``."""
    return str(choice("empty", empty, get_args(words)))


def ratio(numerator: Any, denominator: Any, empty: str, eps: float = 0.0) -> Any:
    """float64; where the denominator is 0, what ``empty`` says ("skip": NaN)."""
    value = {"one": 1.0, "zero": 0.0, "nan": math.nan, "skip": math.nan}[empty]
    total = np.asarray(denominator + eps, np.float64)
    out = np.full(total.shape, value)
    return np.divide(numerator, total, out=out, where=np.asarray(denominator) != 0)
