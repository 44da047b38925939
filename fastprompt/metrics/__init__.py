"""Metrics of promptable segmentation: of one mask, of a data set, and accumulators that merge across processes."""

from fastprompt.metrics._counts import Overlap, overlap
from fastprompt.metrics.classes import ClassMetrics, fb_iou, harmonic_iou, mean_iou_per_class
from fastprompt.metrics.clicks import ClickMetrics, Failures, noc, nof
from fastprompt.metrics.masks import dice, hausdorff, iou, pairwise_iou, point_matching
from fastprompt.metrics.referring import (
    ReferringMetrics,
    RobustReferringMetrics,
    generalized_iou_res,
    mean_iou_per_sample,
    n_acc,
    overall_iou,
    precision_at,
    r_iou,
    r_res,
    t_acc,
)

__all__ = [
    "ClassMetrics",
    "ClickMetrics",
    "Failures",
    "Overlap",
    "ReferringMetrics",
    "RobustReferringMetrics",
    "dice",
    "fb_iou",
    "generalized_iou_res",
    "harmonic_iou",
    "hausdorff",
    "iou",
    "mean_iou_per_class",
    "mean_iou_per_sample",
    "n_acc",
    "noc",
    "nof",
    "overall_iou",
    "overlap",
    "pairwise_iou",
    "point_matching",
    "precision_at",
    "r_iou",
    "r_res",
    "t_acc",
]
