"""Metrics of referring segmentation: one expression, one mask, and perhaps nothing to find."""

import math
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from fastprompt._choices import choice
from fastprompt._runtime import is_tensor
from fastprompt.metrics._accumulator import Accumulator, check_thresholds, fraction
from fastprompt.metrics._counts import Empty, check_empty, counted
from fastprompt.ops._arrays import as_array
from fastprompt.ops._binary import prediction
from fastprompt.ops._checks import check_number

__all__ = ["ReferringMetrics", "RobustReferringMetrics", "generalized_iou_res", "mean_iou_per_sample", "n_acc"]
__all__ += ["overall_iou", "precision_at", "r_iou", "r_res", "t_acc"]

Denominator = Literal["all", "targeted"]
FIVE = (0.5, 0.6, 0.7, 0.8, 0.9)


class ReferringMetrics(Accumulator):
    r"""mIoU, oIoU, Prec@X, gIoU, T_acc and N_acc of referring segmentation, in one pass, mergeable.

    A sample is one expression. It has no target where the target mask is empty, and is predicted to have none where
    ``pred_no_target`` says so, or, if that is not given, where the predicted mask is empty.

    - ``mean_iou``: mean of the IoU of the samples; ``overall_iou``: Σ I / Σ U; ``precision@X``: share of samples with
      IoU ≥ X.
    - ``generalized_iou``: mean IoU in which a sample without target scores 1 if that was predicted, else 0.
    - ``t_acc``: share of the samples with target that are not predicted to have none; ``n_acc``: share of those
      without target that are. 0 where there is no such sample.

    With ``pred_no_target`` all of them follow ReLA: a sample with target that is predicted to have none has I = 0 and
    keeps its U, and one without target counts 1 and adds nothing to U if predicted, else 0 and adds its U.

    Args:
        thresholds: X of ``precision@X``.
        empty: the IoU of two empty masks in ``mean_iou`` and ``precision@X``: "one", "zero", "nan", or "skip": the
            sample does not count there.
        strict: IoU > X instead of ≥ X.
        denominator: of ``precision@X``: "all" samples, or those with a target only: "targeted".
        eps: added to the U of each sample.
        running_sum: ``precision@X`` compares the running sum of the IoU over the samples of one ``update``, as
            RefSegformer does over the expressions of an image: an error of that code, which raises the figure.

    ``ReferringMetrics.preset(name)`` has the options of published code: "lavt", "dmmi", "cris", "rela" (that of
    generalised referring segmentation; give ``pred_no_target``), "refsegformer".

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> first, second = fp.metrics.ReferringMetrics(), fp.metrics.ReferringMetrics()
        >>> first.update(np.array([[1, 1, 0]]), np.array([[1, 1, 1]]))
        >>> second.update(np.array([[0, 1, 0]]), np.array([[0, 1, 0]]))
        >>> found = (first + second).compute()
        >>> round(found["mean_iou"], 3), found["overall_iou"], found["precision@0.7"]
        (0.833, 0.75, 0.5)

    Source: LAVT (2022), CRIS (2022), ReLA (2023) and RefSegformer (2024), their published evaluation.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "lavt": {"empty": "zero"},
        "dmmi": {"empty": "zero"},
        "cris": {"empty": "zero", "eps": 1e-6, "strict": True},
        "rela": {"empty": "zero", "thresholds": (0.7, 0.8, 0.9), "denominator": "targeted"},
        "refsegformer": {"empty": "zero", "running_sum": True},
    }

    def __init__(
        self,
        *,
        thresholds: Any = FIVE,
        empty: Empty = "one",
        strict: bool = False,
        denominator: Denominator = "all",
        eps: float = 0.0,
        running_sum: bool = False,
    ) -> None:
        choice("denominator", denominator, get_args(Denominator))
        super().__init__(
            thresholds=check_thresholds(thresholds),
            empty=check_empty(empty),
            strict=bool(strict),
            denominator=denominator,
            eps=check_number("eps", eps, 0.0, math.inf),
            running_sum=bool(running_sum),
        )

    def update(
        self,
        pred: Any,  # (..., H, W)
        target: Any,  # (..., H, W)
        *,
        pred_no_target: Any = None,  # (...)
        threshold: float | None = None,
        ignore: int | None = None,
    ) -> None:
        """One or many samples; see :func:`overlap` for ``threshold`` and ``ignore``."""
        _, n = counted(pred, target, threshold, ignore)
        rejected = flags("pred_no_target", pred_no_target, n.pred.shape)
        columns = (n.intersection, n.union, n.target == 0, n.pred == 0 if rejected is None else rejected)
        running = 0.0
        for both, union, absent, said in zip(*(x.ravel().tolist() for x in columns), strict=True):
            if rejected is not None and said:
                both = 0
            score = self._score(both, union, absent, said if rejected is not None else None)
            self._count(both, union, absent, said, rejected is not None)
            if math.isnan(score) and self.options["empty"] == "skip":
                continue
            self.add_score("iou", score)
            running += 0.0 if math.isnan(score) else score
            self._hit(running if self.options["running_sum"] else score, absent)

    def _score(self, both: int, union: int, absent: bool, said: bool | None) -> float:
        if absent and said is not None:
            return float(said)
        return fraction(both, union, self.options["empty"], self.options["eps"])

    def _count(self, both: int, union: int, absent: bool, said: bool, given: bool) -> None:
        self.add(intersection=both, union=0 if given and absent and said else union)
        self.add(**{f"{'no target' if absent else 'target'}, said {'none' if said else 'some'}": 1})
        eps = self.options["eps"]
        self.add_score("generalized", float(said) if absent else fraction(both, union, "zero", eps))

    def _hit(self, score: float, absent: bool) -> None:
        if absent and self.options["denominator"] == "targeted":
            return
        self.add(judged=1)
        for x in self.options["thresholds"]:
            self.add(**{f"hits {x}": score > x if self.options["strict"] else score >= x})

    def compute(self) -> dict[str, float]:
        """All metrics by name; NaN for a mean of nothing."""
        hit, miss = self["no target, said none"], self["no target, said some"]
        kept, lost = self["target, said some"], self["target, said none"]
        found = {"mean_iou": self.mean("iou")}
        empty = self.options["empty"] if hit + miss + kept + lost else "nan"
        found["overall_iou"] = fraction(self["intersection"], self["union"], empty)
        found["generalized_iou"] = self.mean("generalized")
        for x in self.options["thresholds"]:
            found[f"precision@{x}"] = fraction(self[f"hits {x}"], self["judged"], "nan")
        found["t_acc"] = fraction(kept, kept + lost, "zero")
        found["n_acc"] = fraction(hit, hit + miss, "zero")
        return found


class RobustReferringMetrics(Accumulator):
    r"""rIoU and R of robust referring segmentation (R-RES), mergeable.

    .. math:: \mathrm{rIoU} = \operatorname{mean}_i \frac{I_i}{U_i + \sum_k |N_{ik}|},\qquad R = \frac{TN}{TN + FP}

    N_ik are the masks that image i got for expressions of things that are not there; one counts as TN if it is empty.
    RefSegformer counts |N| at the network's resolution and I, U at the image's; here both have the size of the target.

    Args:
        empty: the value of an image in which nothing is, and nothing was found; see :class:`ReferringMetrics`.

    Source: Wu et al., Towards Robust Referring Image Segmentation, 2024.
    """

    def __init__(self, *, empty: Empty = "one") -> None:
        super().__init__(empty=check_empty(empty))

    def update(
        self,
        pred: Any,  # (..., H, W)
        target: Any,  # (..., H, W)
        negatives: Any,  # (..., K, H, W)
        *,
        rejected: Any = None,  # (..., K)
        threshold: float | None = None,
    ) -> None:
        """Images, each with K predictions that should be empty; ``rejected`` says for which a classifier found that."""
        _, n = counted(pred, target, threshold, None)
        areas, size = negative_areas(negatives, threshold), tuple(as_array("pred", pred).shape[-2:])
        if areas.ndim != n.pred.ndim + 1 or areas.shape[:-1] != n.pred.shape or np.shape(negatives)[-2:] != size:
            wanted = ", ".join(map(str, (*n.pred.shape, "K", *size)))
            raise ValueError(f"negatives must be ({wanted}), the size of pred, got shape {np.shape(negatives)}")
        said = flags("rejected", rejected, areas.shape)
        empty = areas == 0 if said is None else said
        self.add(true_negatives=empty.sum(), negatives=empty.size)
        for both, whole in zip(n.intersection.ravel().tolist(), (n.union + areas.sum(-1)).ravel(), strict=True):
            score = fraction(both, int(whole), self.options["empty"])
            if not (math.isnan(score) and self.options["empty"] == "skip"):
                self.add_score("iou", score)

    def compute(self) -> dict[str, float]:
        r = fraction(self["true_negatives"], self["negatives"], "zero")
        return {"r_iou": self.mean("iou"), "r_res": r}


def negative_areas(negatives: Any, threshold: float | None) -> Any:
    """Pixels of each mask."""
    negatives = as_array("negatives", negatives)
    if negatives.ndim < 2:
        raise ValueError(f"negatives must be (..., H, W), got shape {tuple(negatives.shape)}")
    masks, bound = prediction(negatives, threshold, "negatives")
    return np.asarray(masks > bound).sum((-2, -1))


def flags(name: str, x: Any, shape: tuple[int, ...]) -> Any:
    """A bool for each sample, or None."""
    if x is None:
        return None
    values = as_array(name, x)
    values = values.detach().cpu().numpy() if is_tensor(values) else values
    if values.dtype.kind not in "biu":
        raise TypeError(f"{name} must hold bools, got dtype {values.dtype}")
    if values.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {values.shape}")
    return values != 0


def mean_iou_per_sample(pred: Any, target: Any, *, empty: Empty = "one", **masks: Any) -> float:
    """mIoU of referring and interactive segmentation: the mean of the IoU of the samples.

    Not the mIoU of semantic and few-shot segmentation, which is :func:`mean_iou_per_class`. Arguments: see
    :class:`ReferringMetrics` and its ``update``; masks are ``(..., H, W)``.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> fp.metrics.mean_iou_per_sample(np.array([[[1, 1]], [[0, 0]]]), np.array([[[1, 0]], [[0, 0]]]))
        0.75
    """
    return measured(pred, target, {"empty": empty}, masks)["mean_iou"]


def overall_iou(pred: Any, target: Any, *, empty: Empty = "one", **masks: Any) -> float:
    """oIoU, cIoU: the sum of all intersections over that of all unions. Arguments: :func:`mean_iou_per_sample`;
    ``empty`` is the value where all masks are empty."""
    return measured(pred, target, {"empty": empty}, masks)["overall_iou"]


def generalized_iou_res(pred: Any, target: Any, **masks: Any) -> float:
    """gIoU of generalised referring segmentation (not that of boxes): mean IoU in which a sample without target scores
    1 if ``pred_no_target``, or without that the empty mask, says so. Arguments: :func:`mean_iou_per_sample`."""
    return measured(pred, target, {}, masks)["generalized_iou"]


def precision_at(
    pred: Any,
    target: Any,
    thresholds: Any = FIVE,
    *,
    strict: bool = False,
    denominator: Denominator = "all",
    empty: Empty = "one",
    **masks: Any,
) -> Any:
    """Prec@X, Pr@X: the share of samples with IoU ≥ X (``strict``: > X), float64 of the number of thresholds, or one
    float for one number. Arguments: :class:`ReferringMetrics`."""
    options = {"thresholds": thresholds, "strict": strict, "denominator": denominator, "empty": empty}
    found = measured(pred, target, options, masks)
    values = np.array([found[f"precision@{x}"] for x in check_thresholds(thresholds)])
    return float(values[0]) if isinstance(thresholds, (int, float)) else values


def t_acc(pred: Any, target: Any, **masks: Any) -> float:
    """Share of the samples with a target that are not predicted to have none. See :class:`ReferringMetrics`."""
    return measured(pred, target, {}, masks)["t_acc"]


def n_acc(pred: Any, target: Any, **masks: Any) -> float:
    """Share of the samples without target that are predicted to have none. See :class:`ReferringMetrics`."""
    return measured(pred, target, {}, masks)["n_acc"]


def measured(pred: Any, target: Any, options: dict[str, Any], masks: dict[str, Any]) -> dict[str, float]:
    metrics = ReferringMetrics(**options)
    metrics.update(pred, target, **masks)
    return metrics.compute()


def r_iou(pred: Any, target: Any, negatives: Any, *, empty: Empty = "one", threshold: float | None = None) -> float:
    """rIoU of robust referring segmentation; see :class:`RobustReferringMetrics`."""
    metrics = RobustReferringMetrics(empty=empty)
    metrics.update(pred, target, negatives, threshold=threshold)
    return metrics.compute()["r_iou"]


def r_res(negatives: Any, *, rejected: Any = None, threshold: float | None = None) -> float:
    """R = TN / (TN + FP) of masks ``(..., H, W)`` that should be empty; see :class:`RobustReferringMetrics`."""
    areas = negative_areas(negatives, threshold)
    said = flags("rejected", rejected, areas.shape)
    empty = areas == 0 if said is None else said
    return fraction(int(empty.sum()), empty.size, "zero")
