"""Metrics against torchmetrics, where that is defined: not for empty masks."""

import importlib

import numpy as np
import pytest

from fastprompt import metrics


def torchmetrics_pairs(rng):
    torch = pytest.importorskip("torch")
    found = pytest.importorskip("torchmetrics")
    for part in ("classification", "segmentation", "functional.segmentation"):
        importlib.import_module(f"torchmetrics.{part}")
    pred, target = rng.random((4, 24, 31)) < 0.4, rng.random((4, 24, 31)) < 0.6
    return found, pred, target, torch.from_numpy(pred), torch.from_numpy(target)


def test_torchmetrics_iou_and_dice(rng):
    tm, pred, target, p, t = torchmetrics_pairs(rng)
    mean = tm.segmentation.MeanIoU(num_classes=1, input_format="one-hot")
    dice = tm.segmentation.DiceScore(num_classes=1, average="macro", input_format="one-hot")
    jaccard = tm.classification.BinaryJaccardIndex()
    for k in range(4):
        mean.update(p[k][None, None], t[k][None, None])
        dice.update(p[k][None, None], t[k][None, None])
        jaccard.update(p[k], t[k])
    assert metrics.mean_iou_per_sample(pred, target) == pytest.approx(float(mean.compute()), rel=1e-6)
    assert metrics.dice(pred, target).mean() == pytest.approx(float(dice.compute()), rel=1e-6)
    assert metrics.overall_iou(pred, target) == pytest.approx(float(jaccard.compute()), rel=1e-6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.0, 0.5)], ids=str)
def test_torchmetrics_hausdorff(rng, spacing):
    tm, *_ = torchmetrics_pairs(rng)
    import torch

    y, x = np.mgrid[
        :31, :31
    ]  # torchmetrics 1.9.0 is wrong where the height is not the width: equal masks are far apart
    masks = [np.hypot(x - a, y - b) < r for a, b, r in ((9, 9, 6), (14, 12, 8), (0, 0, 9), (20, 10, 3))]
    masks[1][10:13, 12:15] = False
    for pred in masks:
        for target in masks:
            options = {
                "num_classes": 1,
                "input_format": "one-hot",
                "spacing": list(spacing),
                "include_background": True,
            }
            p, t = (torch.from_numpy(m)[None, None].int() for m in (pred, target))
            wanted = tm.functional.segmentation.hausdorff_distance(p, t, **options)
            found = metrics.hausdorff(pred, target, spacing=spacing, surface=True)
            assert found == pytest.approx(float(wanted), rel=1e-6)


def test_torchmetrics_label_maps(rng):
    tm, *_ = torchmetrics_pairs(rng)
    import torch

    pred, target = rng.integers(0, 5, (3, 20, 30)), rng.integers(0, 5, (3, 20, 30))
    target[rng.random(target.shape) < 0.1] = 255
    judge = tm.classification.MulticlassJaccardIndex(num_classes=5, average="macro", ignore_index=255)
    judge.update(torch.from_numpy(pred), torch.from_numpy(target))
    found = metrics.mean_iou_per_class(pred, target, classes=5, ignore=255)
    assert found == pytest.approx(float(judge.compute()), rel=1e-6)
