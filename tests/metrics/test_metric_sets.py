"""Metrics of data sets: against the formulas of published code, rebuilt here, and every trap that is known of them."""

import math

import numpy as np
import pytest

import fastprompt as fp
from fastprompt import metrics

ALL_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def data(rng, n=40, shape=(7, 9)):
    """Samples with and without targets, empty and wrong predictions."""
    target = rng.random((n, *shape)) < rng.random((n, 1, 1))
    pred = np.where(rng.random((n, *shape)) < 0.1 * rng.random((n, 1, 1)), ~target, target)
    target[::4] = False
    pred[::8] = False
    pred[1::9] = False
    return pred, target, rng.random(n) < 0.4


def sums(pred, target):
    return int((pred & target).sum()), int((pred | target).sum())


# ---------------------------------------------------------------- referring segmentation, published evaluations


def lavt(pred, target, *_):
    ious, hits, i_sum, u_sum = [], np.zeros(5), 0, 0
    for p, t in zip(pred, target, strict=True):
        i, u = sums(p, t)
        iou = 0.0 if u == 0 else i / u
        ious.append(iou)
        i_sum, u_sum = i_sum + i, u_sum + u
        hits += [iou >= x for x in ALL_THRESHOLDS]
    found = {f"precision@{x}": h / len(pred) for x, h in zip(ALL_THRESHOLDS, hits, strict=True)}
    return found | {"mean_iou": np.mean(ious), "overall_iou": i_sum / u_sum}


def cris(pred, target, *_):
    ious = np.array([i / (u + 1e-6) for i, u in map(sums, pred, target)])
    return {f"precision@{x}": (ious > x).mean() for x in ALL_THRESHOLDS} | {"mean_iou": ious.mean()}


def rela(pred, target, no_target):
    total, i_sum, u_sum, targeted = 0.0, 0, 0, 0
    hits = dict.fromkeys((0.7, 0.8, 0.9), 0)
    n = {"TP": 0, "FN": 0, "FP": 0, "TN": 0}
    for p, t, said in zip(pred, target, no_target, strict=True):
        i, u = sums(p, t)
        if not t.any():
            n["TP" if said else "FN"] += 1
            total += 1.0 if said else 0.0
            u_sum += 0 if said else u
            continue
        n["FP" if said else "TN"] += 1
        i = 0 if said else i
        iou = 0.0 if u == 0 else i / u
        total, i_sum, u_sum, targeted = total + iou, i_sum + i, u_sum + u, targeted + 1
        for x in hits:
            hits[x] += iou >= x
    found = {f"precision@{x}": h / targeted for x, h in hits.items()}
    found |= {"generalized_iou": total / len(pred), "overall_iou": i_sum / u_sum}
    return found | {"t_acc": n["TN"] / (n["TN"] + n["FP"]), "n_acc": n["TP"] / (n["TP"] + n["FN"])}


@pytest.mark.parametrize(("preset", "formula"), [("lavt", lavt), ("dmmi", lavt), ("cris", cris), ("rela", rela)])
def test_published_evaluations(rng, preset, formula):
    pred, target, no_target = data(rng)
    judge = metrics.ReferringMetrics.preset(preset)
    judge.update(pred, target, pred_no_target=no_target if preset == "rela" else None)
    found = judge.compute()
    for name, value in formula(pred, target, no_target).items():
        assert found[name] == pytest.approx(value, rel=1e-12), name


def test_refsegformer_compares_a_running_sum(rng):
    """Trap: Prec@X of the sum of IoU over the expressions of one image: higher than it is."""
    pred, target, _ = data(rng)
    judge, fair = metrics.ReferringMetrics.preset("refsegformer"), metrics.ReferringMetrics(empty="zero")
    hits = 0
    for image in range(0, 40, 4):
        total = 0.0
        for i, u in map(sums, pred[image : image + 4], target[image : image + 4]):
            total += i / u if u else 0.0
            hits += total >= 0.7
        judge.update(pred[image : image + 4], target[image : image + 4])
        fair.update(pred[image : image + 4], target[image : image + 4])
    assert judge.compute()["precision@0.7"] == hits / 40
    assert judge.compute()["precision@0.7"] > fair.compute()["precision@0.7"]


def test_robust_iou(rng):
    pred, target, _ = data(rng, 12)
    pred, target = pred[:, :5], target[:, :5]
    negatives = rng.random((12, 3, 5, 9)) < 0.1
    negatives[::2, 1] = False
    parts = [
        (p & t).sum() / max((p | t).sum() + n.sum(), 1e-300) if (p | t).any() or n.any() else 1.0
        for p, t, n in zip(pred, target, negatives, strict=True)
    ]
    empty = ~negatives.any((-2, -1))
    assert metrics.r_iou(pred, target, negatives) == pytest.approx(np.mean(parts), rel=1e-12)
    assert metrics.r_res(negatives) == empty.mean()
    rejected = rng.random((12, 3)) < 0.5
    judge = metrics.RobustReferringMetrics()
    judge.update(pred, target, negatives.astype(np.float32), rejected=rejected, threshold=0.5)
    assert judge.compute() == {"r_iou": metrics.r_iou(pred, target, negatives), "r_res": rejected.mean()}
    assert metrics.r_res(negatives[:0]) == 0.0


# ---------------------------------------------------------------- the switches

EMPTY, HALF, WHOLE = (np.array([row], bool) for row in ([0, 0], [1, 0], [1, 1]))


@pytest.mark.parametrize(
    ("empty", "mean", "precision"),
    [("one", (0.5 + 1) / 2, 1.0), ("zero", 0.25, 0.5), ("nan", math.nan, 0.5), ("skip", 0.5, 1.0)],
)
def test_empty(empty, mean, precision):
    pred, target = np.stack([HALF, EMPTY]), np.stack([WHOLE, EMPTY])
    np.testing.assert_equal(metrics.mean_iou_per_sample(pred, target, empty=empty), mean)
    assert metrics.precision_at(pred, target, 0.5, empty=empty) == precision
    assert metrics.overall_iou(pred, target, empty=empty) == 0.5
    value = {"one": 1.0, "zero": 0.0}.get(empty, math.nan)
    np.testing.assert_equal(metrics.overall_iou(EMPTY, EMPTY, empty=empty), value)


def test_strict():
    """Trap: the formula has >=, the text and CRIS have >."""
    assert metrics.precision_at(HALF, WHOLE, 0.5) == 1.0
    assert metrics.precision_at(HALF, WHOLE, 0.5, strict=True) == 0.0
    np.testing.assert_array_equal(metrics.precision_at(HALF, WHOLE, [0.4, 0.5, 0.6]), [1.0, 1.0, 0.0])


def test_thresholds_are_exact():
    """7 of 10 pixels reach 0.7."""
    pred, target = np.arange(10)[None] < 7, np.ones((1, 10))
    assert metrics.precision_at(pred, target, 0.7) == 1.0
    found = metrics.precision_at(pred, target, [0.7, 0.7 + 1e-12])  # names do not collide
    np.testing.assert_array_equal(found, [1.0, 0.0])


def test_denominator():
    """Trap: ReLA divides by the number of samples with a target."""
    pred, target = np.stack([WHOLE, EMPTY, WHOLE]), np.stack([WHOLE, EMPTY, EMPTY])
    assert metrics.precision_at(pred, target, 0.5) == 2 / 3
    assert metrics.precision_at(pred, target, 0.5, denominator="targeted") == 1.0


def test_no_target():
    """Trap: gIoU and oIoU ask the classifier, where there is one, not the mask."""
    pred, target = np.stack([WHOLE, EMPTY, HALF]), np.stack([EMPTY, EMPTY, WHOLE])
    assert metrics.generalized_iou_res(pred, target) == (0 + 1 + 0.5) / 3
    assert metrics.overall_iou(pred, target) == 1 / 4
    assert metrics.n_acc(pred, target) == 0.5
    assert metrics.t_acc(pred, target) == 1.0
    said = {"pred_no_target": np.array([True, False, True])}  # a false "no target" makes I = 0 and keeps U
    assert metrics.generalized_iou_res(pred, target, **said) == (1 + 0 + 0) / 3
    assert metrics.overall_iou(pred, target, **said) == 0 / 2
    assert metrics.n_acc(pred, target, **said) == 0.5
    assert metrics.t_acc(pred, target, **said) == 0.0


def test_nothing_to_judge():
    assert metrics.n_acc(HALF, WHOLE) == metrics.t_acc(HALF, EMPTY) == 0.0
    found = metrics.ReferringMetrics().compute()
    assert math.isnan(found["mean_iou"])
    assert math.isnan(found["overall_iou"])
    assert math.isnan(found["precision@0.5"])
    assert math.isnan(metrics.ClassMetrics().compute()["mean_iou"])
    assert math.isnan(metrics.ClickMetrics().compute()["noc@0.9"])


# ---------------------------------------------------------------- classes


def few_shot(pred, target, ids, ignore, eps=0.0, floor=0):
    """Area by area as PFENet counts, or with HSNet's floor under the union."""
    areas = {}
    total = np.zeros((2, 2))
    for p, t, c in zip(pred, target, ids, strict=True):
        keep = t != ignore
        i = [int(((p == k) & (t == k) & keep).sum()) for k in (0, 1)]
        u = [int((((p == k) | (t == k)) & keep).sum()) for k in (0, 1)]
        areas[c] = areas.get(c, 0) + np.array([i[1], u[1]])
        total += [i, u]
    classes = [i / (max(u, floor) + eps) for i, u in areas.values()]
    return {"mean_iou": np.mean(classes), "fb_iou": np.mean(total[0] / (total[1] + eps))}


@pytest.mark.parametrize(("preset", "rule"), [("pfenet", {"eps": 1e-10}), ("hsnet", {"floor": 1})])
def test_few_shot(rng, preset, rule):
    """Trap: the mean over classes of accumulated counts, not over samples."""
    pred, target, _ = data(rng)
    target = target.astype(np.uint8)
    target[rng.random(target.shape) < 0.2] = 255
    ids = rng.integers(0, 6, 40)
    pred[ids == 3] = False
    target[ids == 3] = 0  # a class whose union is empty
    judge = metrics.ClassMetrics.preset(preset)
    judge.update(pred, target, ids, ignore=255)
    wanted = few_shot(pred, target, ids, 255, **rule)
    assert judge.compute() == pytest.approx(wanted, rel=1e-12)
    if preset == "hsnet":
        assert metrics.fb_iou(pred, target, ignore=255) == pytest.approx(wanted["fb_iou"], rel=1e-12)
        found = metrics.mean_iou_per_class(pred, target, class_id=ids, ignore=255, empty="zero")
        assert found == pytest.approx(wanted["mean_iou"], rel=1e-12)
    assert judge.compute()["mean_iou"] != pytest.approx(metrics.mean_iou_per_sample(pred, target, ignore=255))


@pytest.mark.parametrize(("empty", "value"), [("skip", 0.5), ("one", 2 / 3), ("zero", 1 / 3), ("nan", math.nan)])
def test_an_absent_class(empty, value):
    pred, target = np.array([[0, 0, 1]]), np.array([[0, 1, 1]])
    found = metrics.mean_iou_per_class(pred, target, classes=3, empty=empty)
    assert found == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64", "uint64", "bool"])
@pytest.mark.parametrize("classes", [1, 2, 5, 150])
def test_label_maps(rng, dtype, classes):
    pred, target = (rng.integers(0, 7, (3, 11, 13)).astype(dtype) for _ in range(2))
    p, t = pred.astype(int), target.astype(int)
    if dtype != "bool":
        pred[0, 0, 0] = target[0, 0, 1] = p[0, 0, 0] = t[0, 0, 1] = 127
    valid = t < classes
    wanted = [[((p == c) & (t == c)).sum(), ((p == c) & valid).sum(), (t == c).sum()] for c in range(classes)]
    np.testing.assert_array_equal(metrics.classes.class_counts(pred, target, classes, None), wanted)
    with fp.backend("reference"):
        np.testing.assert_array_equal(metrics.classes.class_counts(pred, target, classes, None), wanted)
    valid &= t != 1
    wanted = [
        [((p == c) & (t == c) & valid).sum(), ((p == c) & valid).sum(), ((t == c) & valid).sum()]
        for c in range(classes)
    ]
    np.testing.assert_array_equal(metrics.classes.class_counts(pred, target, classes, 1), wanted)


@pytest.mark.parametrize("label", [-1, -(2**31), 2**31, 2**32, 2**40, 2**63 - 1])
def test_labels_that_are_no_class(label):
    """Neither read nor counted, whatever they are."""
    pred, target = np.array([[0, label, 1]]), np.array([[0, 1, label]])
    np.testing.assert_array_equal(metrics.classes.class_counts(pred, target, 2, None), [[1, 1, 1], [0, 0, 1]])


def test_harmonic():
    assert metrics.harmonic_iou(0.6, 0.3) == pytest.approx(0.4)
    assert metrics.harmonic_iou(0.0, 0.0) == metrics.harmonic_iou(0.7, 0.0) == 0.0


def test_torch(rng):
    torch = pytest.importorskip("torch")
    pred, target, no_target = data(rng)
    p, t, n = (torch.from_numpy(x) for x in (pred, target, no_target))
    a, b = metrics.ReferringMetrics(), metrics.ReferringMetrics()
    a.update(pred, target, pred_no_target=no_target)
    b.update(p.float() * 4 - 2, t, pred_no_target=n, threshold=0.0)
    assert a == b
    ids = torch.arange(40) % 3
    assert metrics.mean_iou_per_class(p, t, class_id=ids) == metrics.mean_iou_per_class(
        pred, target, class_id=ids.numpy()
    )
    assert metrics.mean_iou_per_class(p.long(), t.long(), classes=2) == metrics.mean_iou_per_class(
        pred, target, classes=2
    )


WRONG = {
    "preset": (lambda: metrics.ReferringMetrics.preset("sam"), r"preset must be one of lavt, dmmi, cris, rela"),
    "class_preset": (lambda: metrics.ClassMetrics.preset("sam"), r"preset must be one of pfenet, hsnet, got 'sam'"),
    "empty": (lambda: metrics.ReferringMetrics(empty=None), r"empty must be one of one, zero, nan, skip, got None"),
    "thresholds": (lambda: metrics.precision_at(HALF, WHOLE, 50), r"thresholds must be numbers in \[0, 1\], got 50"),
    "no_thresholds": (lambda: metrics.precision_at(HALF, WHOLE, []), r"thresholds must be numbers in \[0, 1\], got \[\]"),
    "denominator": (lambda: metrics.ReferringMetrics(denominator="none"), r"denominator must be one of all, targeted"),
    "flags": (lambda: metrics.n_acc(HALF, WHOLE, pred_no_target=[True]), r"pred_no_target must have shape \(\), got \(1,\)"),
    "negatives": (lambda: metrics.r_iou(HALF, WHOLE, HALF[0]), r"negatives must be \(\.\.\., H, W\), got shape \(2,\)"),
    "negative_lead": (lambda: metrics.r_iou(HALF, WHOLE, HALF), r"negatives must be \(K, 1, 2\), the size of pred, got shape \(1, 2\)"),
    "negative_size": (lambda: metrics.r_iou(HALF, WHOLE, np.zeros((3, 1, 3), bool)), r"must be \(K, 1, 2\), .* \(3, 1, 3\)"),
    "class_id": (lambda: metrics.ClassMetrics().update(HALF, WHOLE, 0.5), r"class_id must be an int or ints"),
    "both": (lambda: metrics.mean_iou_per_class(HALF, WHOLE), r"give either classes, for label maps, or class_id"),
    "classes": (lambda: metrics.mean_iou_per_class(HALF, WHOLE, classes=0), r"classes must be a positive int, got 0"),
    "label_threshold": (lambda: metrics.mean_iou_per_class(HALF, WHOLE, classes=2, threshold=0.5), r"threshold must be None"),
    "label_shapes": (lambda: metrics.mean_iou_per_class(HALF, WHOLE[0], classes=2), r"target must have the shape of pred"),
    "seen": (lambda: metrics.harmonic_iou(-1, 0), r"seen must be between 0 and inf"),
    "max_clicks": (lambda: metrics.noc([[0.5]], 0.9, max_clicks=0), r"max_clicks must be a positive int, got 0"),
    "curve": (lambda: metrics.noc([0.5], 0.9), r"a curve must be the IoU after each click, one axis, got shape \(\)"),
    "noc_threshold": (lambda: metrics.nof([[0.5]], 90), r"thresholds must be numbers in \[0, 1\], got 90"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_types():
    with pytest.raises(TypeError, match=r"pred must hold integer labels, got dtype float64"):
        metrics.mean_iou_per_class(np.zeros((2, 2)), np.zeros((2, 2), int), classes=2)
    with pytest.raises(TypeError, match=r"pred_no_target must hold bools, got dtype float64"):
        metrics.n_acc(HALF, WHOLE, pred_no_target=0.5)
