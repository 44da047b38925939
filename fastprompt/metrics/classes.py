"""Metrics over classes: few-shot and open-vocabulary segmentation."""

import math
from typing import Any, ClassVar

import numpy as np

from fastprompt._runtime import is_tensor
from fastprompt.metrics import _operators
from fastprompt.metrics._accumulator import Accumulator, fraction
from fastprompt.metrics._counts import Empty, check_empty, counted
from fastprompt.ops._arrays import as_array
from fastprompt.ops._checks import check_devices, check_number

__all__ = ["ClassMetrics", "fb_iou", "harmonic_iou", "mean_iou_per_class"]


class ClassMetrics(Accumulator):
    r"""mIoU over classes and FB-IoU, of counts gathered over the whole data set, mergeable.

    .. math:: \mathrm{mIoU} = \operatorname{mean}_c \frac{\sum_i I_{ic}}{\sum_i U_{ic}},\qquad
        \mathrm{FB\text{-}IoU} = \tfrac12 \Bigl(\frac{\sum I_{fg}}{\sum U_{fg}} + \frac{\sum I_{bg}}{\sum U_{bg}}\Bigr)

    Few-shot masks come through ``update``, with the class of each; label maps through ``update_labels``.

    Args:
        empty: a class whose union is empty: "skip" leaves it out of the mean, else "one", "zero" or "nan".
        eps: added to each union.

    ``ClassMetrics.preset(name)`` has the options of published code: "pfenet", "hsnet".

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> metrics = fp.metrics.ClassMetrics()
        >>> metrics.update(np.array([[1, 1, 0, 0]]), np.array([[1, 0, 0, 255]]), class_id=7, ignore=255)
        >>> metrics.compute()
        {'mean_iou': 0.5, 'fb_iou': 0.5}

    Source: PFENet (2020), ``intersectionAndUnion``; HSNet (2021), ``Evaluator`` and ``AverageMeter``.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "pfenet": {"empty": "zero", "eps": 1e-10},
        "hsnet": {"empty": "zero"},
    }

    def __init__(self, *, empty: Empty = "skip", eps: float = 0.0) -> None:
        super().__init__(empty=check_empty(empty), eps=check_number("eps", eps, 0.0, math.inf))

    def update(
        self,
        pred: Any,  # (..., H, W)
        target: Any,  # (..., H, W)
        class_id: Any = 0,  # int, or (...)
        *,
        threshold: float | None = None,
        ignore: int | None = None,
    ) -> None:
        """Masks of one class each; see :func:`overlap` for ``threshold`` and ``ignore``."""
        _, n = counted(pred, target, threshold, ignore)
        ids = as_array("class_id", class_id)
        ids = ids.cpu().numpy() if is_tensor(ids) else ids
        if ids.dtype.kind not in "iu" or ids.shape not in ((), n.pred.shape):
            wanted = f"an int or ints of shape {n.pred.shape}"
            raise ValueError(f"class_id must be {wanted}, got dtype {ids.dtype} and shape {ids.shape}")
        union = n.union
        for c, both, whole in zip(*(np.broadcast_to(x, union.shape).ravel() for x in (ids, n[0], union)), strict=True):
            self._add(int(c), int(both), int(whole))
        outside = n.pixels - union
        self.add(fg_i=n.intersection.sum(), fg_u=union.sum(), bg_i=outside.sum(), bg_u=(outside + union - n[0]).sum())

    def update_labels(self, pred: Any, target: Any, classes: int, *, ignore: int | None = None) -> None:
        """Label maps of the same shape with labels 0 … classes - 1. Pixels whose target is another number, such as
        ``ignore``, count nowhere; another prediction counts as a wrong one."""
        for c, (both, in_pred, in_target) in enumerate(class_counts(pred, target, classes, ignore).tolist()):
            self._add(c, both, in_pred + in_target - both)

    def _add(self, c: int, both: int, union: int) -> None:
        for name, n in ((f"i {c}", both), (f"u {c}", union)):
            self.counts[name] = self[name] + n

    def class_iou(self) -> dict[int, float]:
        """IoU by class; NaN where the union is empty and ``empty`` is "nan" or "skip"."""
        ids = sorted(int(name[2:]) for name in self.counts if name.startswith("u "))
        empty, eps = self.options["empty"], self.options["eps"]
        return {c: fraction(self[f"i {c}"], self[f"u {c}"], empty, eps) for c in ids}

    def compute(self) -> dict[str, float]:
        """``mean_iou``, and ``fb_iou`` where there were masks; NaN for a mean of nothing."""
        values = list(self.class_iou().values())
        if self.options["empty"] == "skip":
            values = [x for x in values if not math.isnan(x)]
        found = {"mean_iou": math.fsum(values) / len(values) if values else math.nan}
        if "fg_u" in self.counts:
            empty, eps = self.options["empty"], self.options["eps"]
            pair = [fraction(self[f"{k}_i"], self[f"{k}_u"], empty, eps) for k in ("fg", "bg")]
            known = [x for x in pair if not math.isnan(x)] if empty == "skip" else pair
            found["fb_iou"] = sum(known) / len(known) if known else math.nan
        return found


def mean_iou_per_class(
    pred: Any,
    target: Any,
    *,
    classes: int | None = None,
    class_id: Any = None,
    empty: Empty = "skip",
    threshold: float | None = None,
    ignore: int | None = None,
) -> float:
    """mIoU of semantic, open-vocabulary and few-shot segmentation: intersections and unions of a class are added over
    all images, and the mean is that over the classes. Not :func:`mean_iou_per_sample`.

    Give ``classes``, their number, for label maps, or ``class_id``, one for each mask ``(..., H, W)``. Other
    arguments: :class:`ClassMetrics`.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> fp.metrics.mean_iou_per_class(np.array([[0, 1, 1]]), np.array([[0, 0, 1]]), classes=2)
        0.5
    """
    if (classes is None) == (class_id is None):
        raise ValueError("give either classes, for label maps, or class_id, for masks")
    metrics = ClassMetrics(empty=empty)
    if classes is None:
        metrics.update(pred, target, class_id, threshold=threshold, ignore=ignore)
    elif threshold is not None:
        raise ValueError(f"threshold must be None for label maps, got {threshold!r}")
    else:
        metrics.update_labels(pred, target, classes, ignore=ignore)
    return metrics.compute()["mean_iou"]


def fb_iou(
    pred: Any, target: Any, *, empty: Empty = "skip", threshold: float | None = None, ignore: int | None = None
) -> float:
    """FB-IoU of masks ``(..., H, W)``: the mean of the IoU of foreground and of background, each accumulated over all
    of them. Arguments: :class:`ClassMetrics`."""
    metrics = ClassMetrics(empty=empty)
    metrics.update(pred, target, threshold=threshold, ignore=ignore)
    return metrics.compute()["fb_iou"]


def harmonic_iou(seen: float, unseen: float) -> float:
    """hIoU of zero-shot segmentation: 2 s u / (s + u) of the mIoU of seen and of unseen classes; 0 for 0 and 0.

    Example:
        >>> import fastprompt as fp
        >>> fp.metrics.harmonic_iou(0.5, 0.25)
        0.3333333333333333
    """
    s, u = check_number("seen", seen, 0.0, math.inf), check_number("unseen", unseen, 0.0, math.inf)
    return 2.0 * s * u / (s + u) if s + u else 0.0


def class_counts(pred: Any, target: Any, classes: int, ignore: int | None) -> Any:
    """(classes, 3) int64: pixels with the label in both, in the prediction, in the target."""
    pred, target = as_array("pred", pred), as_array("target", target)
    check_devices(pred=pred, target=target)
    if tuple(pred.shape) != tuple(target.shape):
        raise ValueError(f"target must have the shape of pred {tuple(pred.shape)}, got {tuple(target.shape)}")
    if isinstance(classes, bool) or not isinstance(classes, (int, np.integer)) or not 0 < classes < 2**31:
        raise ValueError(f"classes must be a positive int, got {classes!r}")
    p, t = labels("pred", pred), labels("target", target)
    if p.dtype != t.dtype:
        p, t = p.astype(np.int64), t.astype(np.int64)
    code = -1 if ignore is None or not 0 <= ignore < classes else int(ignore)
    return _operators.class_counts(p, t, int(classes), code)


def labels(name: str, x: Any) -> Any:
    """uint8 or int64, contiguous and flat; a label that int64 cannot hold becomes a negative one."""
    values = np.asarray(x.detach() if is_tensor(x) else x)
    if values.dtype.kind not in "iub":
        raise TypeError(f"{name} must hold integer labels, got dtype {values.dtype}")
    kind = np.uint8 if values.dtype.name in ("bool", "uint8") else np.int64
    return np.ascontiguousarray(values).astype(kind, copy=False).reshape(-1)
