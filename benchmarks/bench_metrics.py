"""Metrics, the click simulator and the NoC protocol beside the published code, OpenCV, SciPy, NumPy and torchmetrics.

python benchmarks/bench_metrics.py click protocol mask labels pairs hausdorff   # interleaved, minima, results compared
pytest benchmarks/bench_metrics.py --benchmark-enable --benchmark-group-by=group --benchmark-sort=min

"click" is one click on one image, "protocol" 20 clicks on one image with a predictor that costs nothing, so that the
time is what the protocol itself takes. "published" is RITM's rule (f-BRS, SimpleClick and ClickSEG have the same) built
from its description: masks, pad, two distance transforms, comparison of the maxima, the first pixel of the larger one.
"""

import argparse
import functools
import importlib

import numpy as np
import pytest
from harness import heading, interleaved, line

import fastprompt as fp
from fastprompt import metrics

SIZES = {"SBD 375 x 500": (375, 500), "DAVIS 480 x 854": (480, 854), "1024 x 1024": (1024, 1024)}


def optional(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


cv2, ndimage, torch = optional("cv2"), optional("scipy.ndimage"), optional("torch")
judge = optional("torchmetrics.functional.classification")


def picture(size):
    """An object with a wavy outline, and predictions: none, a coarse one, a good one."""
    y, x = np.mgrid[: size[0], : size[1]]
    y, x = (y - size[0] / 2) / size[0], (x - size[1] / 2) / size[1]
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    target = radius < 0.3 + 0.05 * np.sin(5 * angle)
    coarse = np.hypot(y - 0.06, x + 0.04) < 0.3
    good = radius < 0.3 + 0.05 * np.sin(5 * angle + 0.15)
    return target, {"first": np.zeros_like(target), "coarse": coarse, "good": good}


# ---------------------------------------------------------------- click


def opencv_transform(error):
    return cv2.distanceTransform(error.astype(np.uint8), cv2.DIST_L2, 0)


def our_transform(error):
    return fp.euclidean_distance_transform(~error)


def published_click(target, pred, free, transform):
    """(x, y, positive)"""
    counts = target != -1
    missed = np.logical_and(np.logical_and(target, np.logical_not(pred)), counts)
    false = np.logical_and(np.logical_and(np.logical_not(target), pred), counts)
    inner = [transform(np.pad(error, ((1, 1), (1, 1)), "constant"))[1:-1, 1:-1] * free for error in (missed, false)]
    most = [float(d.max()) for d in inner]
    best = 0 if most[0] > most[1] else 1
    y, x = np.where(inner[best] == most[best])
    return int(x[0]), int(y[0]), int(best == 0)


def transforms():
    found = {"published, fastprompt's transform": our_transform}
    if cv2:
        found[f"published, OpenCV {cv2.__version__}"] = opencv_transform
    if ndimage:
        found["published, SciPy"] = ndimage.distance_transform_edt
    return found


def click_case(name, state):
    target, preds = picture(SIZES[name])
    pred, free = preds[state], np.ones(SIZES[name], bool)
    calls = {"fastprompt": lambda: tuple(fp.next_click(target, pred)[:3])}
    for peer, transform in transforms().items():
        calls[peer] = functools.partial(published_click, target, pred, free, transform)
    return calls


# ---------------------------------------------------------------- protocol


def published_iou(target, pred):
    counts, inside = target != -1, target == 1
    both = np.logical_and(np.logical_and(pred, inside), counts).sum()
    return both / np.logical_and(np.logical_or(pred, inside), counts).sum()


def published_protocol(predictor, target, transform):
    pred, free, curve, clicks = np.zeros_like(target), np.ones(target.shape, bool), [], []
    for _ in range(20):
        x, y, positive = published_click(target, pred, free, transform)
        free[y, x] = False
        clicks.append((x, y, positive))
        points = np.array(clicks)
        pred = predictor(None, points[:, :2], points[:, 2]) > 0.49
        curve.append(published_iou(target, pred))
        if curve[-1] >= 0.999:
            break
    return curve


def protocol_case(name):
    """Probabilities that approach the object from one side, click by click."""
    target = picture(SIZES[name])[0]
    shifts = [np.roll(target, 21 - n, 0).astype(np.float32) for n in range(1, 21)]

    def predictor(image, points, labels):
        return shifts[len(points) - 1]

    def ours():
        return fp.evaluate_clicks(predictor, [(None, target)], stop_at=0.999, progress=False).curves[0].tolist()

    calls = {"fastprompt": ours}
    for peer, transform in transforms().items():
        calls[peer] = functools.partial(published_protocol, predictor, target, transform)
    return calls


# ---------------------------------------------------------------- masks


def mask_case(count, size, kind):
    rng = np.random.default_rng(0)
    target = np.stack([np.roll(picture((size, size))[0], 3 * k, 1) for k in range(count)])
    pred = np.roll(target, 5, 2)
    if kind == "float32":
        pred = np.where(pred, 0.8, 0.1).astype(np.float32) + rng.random(pred.shape, np.float32) / 10
    options = {"threshold": 0.5} if kind == "float32" else {}

    def numpy_iou():
        inside = pred > 0.5 if kind == "float32" else pred
        return np.logical_and(inside, target).sum((1, 2)) / np.logical_or(inside, target).sum((1, 2))

    def numpy_fast():
        """The best form found: two counts and one AND for each mask."""
        found = []
        for p, t in zip(pred, target, strict=True):
            inside = p > 0.5 if kind == "float32" else p
            both = np.count_nonzero(inside & t)
            found.append(both / (np.count_nonzero(inside) + np.count_nonzero(t) - both))
        return np.array(found)

    calls = {
        "fastprompt": lambda: metrics.iou(pred, target, **options),
        "NumPy": numpy_iou,
        "NumPy, counts": numpy_fast,
    }
    if torch:
        p, t = torch.from_numpy(pred), torch.from_numpy(target)

        def torch_iou():
            inside = p > 0.5 if kind == "float32" else p
            return ((inside & t).sum((1, 2)) / (inside | t).sum((1, 2))).numpy()

        calls["torch"] = torch_iou
        calls["fastprompt, torch tensors"] = lambda: metrics.iou(p, t, **options).numpy()
    if judge:

        def torchmetrics_iou():
            return np.array([float(judge.binary_jaccard_index(a, b)) for a, b in zip(p, t, strict=True)])

        calls["torchmetrics, binary_jaccard_index"] = torchmetrics_iou
    return calls


def labels_case(classes, size, dtype):
    rng = np.random.default_rng(0)
    target = np.kron(rng.integers(0, classes, (size // 32, size // 32)), np.ones((32, 32), np.int64))
    target = target.astype(dtype)
    pred = np.roll(target, (2, 3), (0, 1))  # errors along the outlines, as networks make them: 15 % of the pixels

    def numpy_bincount():
        table = np.bincount(classes * target.ravel().astype(int) + pred.ravel(), minlength=classes**2).reshape(
            classes, classes
        )
        both = np.diag(table)
        union = table.sum(0) + table.sum(1) - both
        return (both[union > 0] / union[union > 0]).mean()

    calls = {"fastprompt": lambda: metrics.mean_iou_per_class(pred, target, classes=classes), "NumPy": numpy_bincount}
    if judge:
        p, t = torch.from_numpy(pred).long(), torch.from_numpy(target).long()
        index = functools.partial(judge.multiclass_jaccard_index, p, t, num_classes=classes)
        calls["torchmetrics, multiclass_jaccard_index"] = lambda: float(index())
    return calls


def pairs_case(rows, columns, size):
    rng = np.random.default_rng(0)
    shape = picture((size, size))[0]
    masks = np.stack([np.roll(shape, rng.integers(0, size, 2), (0, 1)) for _ in range(rows + columns)])
    first, second = masks[:rows], masks[rows:]
    calls = {"fastprompt": lambda: metrics.pairwise_iou(first, second)}
    calls["fastprompt, pair by pair"] = lambda: np.array([[metrics.iou(a, b) for b in second] for a in first])
    if torch:
        p, t = torch.from_numpy(first), torch.from_numpy(second)

        def product():
            a, b = p.flatten(1).float(), t.flatten(1).float()
            both = a @ b.T
            return (both / (a.sum(1)[:, None] + b.sum(1)[None] - both)).numpy()

        calls["torch, product of floats"] = product
    return calls


def hausdorff_case(size):
    target, preds = picture((size, size))
    pred = preds["coarse"]
    calls = {"fastprompt": lambda: float(metrics.hausdorff(pred, target))}
    if ndimage:

        def scipy_transform():
            a, b = (ndimage.distance_transform_edt(~m) for m in (pred, target))
            return max(a[target].max(), b[pred].max())

        calls["SciPy, two transforms"] = scipy_transform
    scipy_distance = optional("scipy.spatial.distance")
    if scipy_distance and size <= 128:

        def points():
            a, b = np.argwhere(pred), np.argwhere(target)
            return max(scipy_distance.directed_hausdorff(a, b)[0], scipy_distance.directed_hausdorff(b, a)[0])

        calls["SciPy, directed_hausdorff"] = points
    return calls


# ---------------------------------------------------------------- tables

CASES = {
    "click": (click_case, [(name, state) for name in SIZES for state in ("first", "coarse", "good")]),
    "protocol": (protocol_case, [(name,) for name in SIZES]),
    "mask": (mask_case, [(1, 512, "bool"), (16, 512, "bool"), (1, 512, "float32"), (1, 1024, "bool")]),
    "labels": (labels_case, [(21, 512, "uint8"), (150, 512, "uint8"), (150, 512, "int64")]),
    "pairs": (pairs_case, [(100, 20, 256), (64, 64, 512)]),
    "hausdorff": (hausdorff_case, [(128,), (512,)]),
}


def difference(got, wanted):
    return float(np.abs(np.asarray(got, np.float64) - np.asarray(wanted, np.float64)).max())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("kind", "case"), [(k, c) for k in CASES for c in CASES[k][1]], ids=str)
def test_metrics(benchmark, kind, case, threads):
    calls = CASES[kind][0](*case)
    fp.set_num_threads(threads)
    try:
        peer = list(calls)[1]
        assert difference(calls[peer](), calls["fastprompt"]()) < 1e-5, peer
        benchmark.group = f"{kind} {case}, {threads} threads"
        benchmark(calls["fastprompt"])
    finally:
        fp.set_num_threads(None)


def table(kind, case, threads, rounds):
    fp.set_num_threads(threads)
    if torch:
        torch.set_num_threads(threads)
    if cv2:
        cv2.setNumThreads(threads)
    calls = CASES[kind][0](*case)
    results = {name: call() for name, call in calls.items()}
    times = interleaved(calls, rounds, threads, seconds=10)
    heading(f"{kind} {case}", threads, len(times["fastprompt"]))
    for name, spent in times.items():
        error = difference(results[name], results["fastprompt"])
        note = "" if name == "fastprompt" else "same" if error == 0 else f"differs by {error:.1e}"
        line(name, spent, times["fastprompt"], note, digits=3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    for kind in options.kinds:
        for threads in options.threads:
            for case in CASES[kind][1]:
                table(kind, case, threads, options.rounds)
