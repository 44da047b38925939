"""The NoC protocol: against the published loop, and what happens when it is stopped."""

import numpy as np
import pytest
from click_samples import disks, samples
from scipy import ndimage

import fastprompt as fp
from fastprompt import _text


def published(predictor, image, target, max_clicks=20, stop=0.95, bound=0.49, first=1):
    """RITM's loop from its description: click, predict, IoU; (y, x) inside, every click blanked."""
    pred, blank, curve, clicks = np.zeros(target.shape, bool), np.ones(target.shape, bool), [], []
    for n in range(max_clicks):
        maps = [
            ndimage.distance_transform_edt(np.pad(e, 1))[1:-1, 1:-1] * blank for e in (target & ~pred, ~target & pred)
        ]
        missed = maps[0].max() > maps[1].max()
        best = maps[0 if missed else 1]
        y, x = np.argwhere(best == best.max())[0]
        blank[y, x] = False
        clicks.append((x, y, int(missed)))
        points = np.array(clicks)
        pred = predictor(image, points[:, :2], points[:, 2]) > bound
        curve.append((pred & target).sum() / (pred | target).sum())
        if curve[-1] >= stop and n + 1 >= first:
            break
    return curve, clicks


@pytest.mark.parametrize("options", [
    {}, {"max_clicks": 3}, {"max_clicks": 12, "stop_at": 0.6}, {"min_clicks": 4, "stop_at": 0.2}, {"threshold": 0.7},
], ids=str)  # fmt: skip
def test_the_published_loop(options):
    found = fp.evaluate_clicks(disks, samples(), **options)
    names = {"stop_at": "stop", "threshold": "bound", "min_clicks": "first"}
    for k, (image, target) in enumerate(samples()):
        curve, clicks = published(disks, image, target, **{names.get(n, n): v for n, v in options.items()})
        np.testing.assert_array_equal(found.curves[k], curve)
        np.testing.assert_array_equal(found.clicks[k], clicks)
    cap = options.get("max_clicks", 20)
    values = found.compute()
    for x in (0.8, 0.85, 0.9, 0.95):
        assert values[f"noc@{x}"] == fp.metrics.noc(found.curves, x, max_clicks=cap).mean()
        assert values[f"nof@{x}"] == fp.metrics.nof(found.curves, x, max_clicks=cap).rate
    assert found.compute(strict=True)["failures@0.95"] == sum(c.max() < 0.95 for c in found.curves)


def test_points_are_x_y_and_fresh():
    seen = []

    def spoiler(image, points, labels):
        seen.append((points.copy(), labels.copy()))
        points[:], labels[:] = -1, 7
        return np.zeros(image.shape, bool)

    target = np.zeros((20, 30), bool)
    target[3:8, 20:27] = True
    found = fp.evaluate_clicks(spoiler, [(target, target)], max_clicks=3)
    assert [len(points) for points, _ in seen] == [1, 2, 3]
    np.testing.assert_array_equal(seen[2][0][0], [22, 5])  # the first of the middle row's ties
    assert seen[0][0].dtype == seen[0][1].dtype == np.int64
    assert len({tuple(p) for p in seen[2][0]}) == 3  # no pixel twice
    np.testing.assert_array_equal(found.clicks[0][:, :2], seen[2][0])


def test_previous_mask():
    given = []

    def predictor(image, points, labels, previous):
        given.append(previous)
        return np.full(image.shape, 0.1 * len(points), np.float32)

    target = np.ones((5, 6), bool)
    fp.evaluate_clicks(predictor, [(target, target)] * 2, max_clicks=3, previous_mask=True)
    assert given[0] is given[3] is None
    assert [float(x.max()) for x in given[1:3]] == pytest.approx([0.1, 0.2])


def test_forms_of_a_prediction():
    torch = pytest.importorskip("torch")
    forms = [
        lambda p: p > 0.49,
        lambda p: (p > 0.49).astype(np.int64),
        lambda p: p.astype(np.float64),
        lambda p: p[None, None],
        lambda p: p.T.copy().T,
        torch.from_numpy,
        lambda p: torch.from_numpy(p)[None].requires_grad_() * 1,
        lambda p: torch.from_numpy(p) > 0.49,
    ]
    wanted = fp.evaluate_clicks(disks, samples(3), max_clicks=5).curves
    for form in forms:
        found = fp.evaluate_clicks(lambda *args, form=form: form(disks(*args)), samples(3), max_clicks=5).curves
        np.testing.assert_equal(found, wanted)
    half = fp.evaluate_clicks(lambda *a: torch.from_numpy(disks(*a) > 0.49).bfloat16(), samples(3), max_clicks=5).curves
    np.testing.assert_equal(half, wanted)
    targets = [(image, torch.from_numpy(target)) for image, target in samples(3)]
    np.testing.assert_equal(fp.evaluate_clicks(disks, targets, max_clicks=5).curves, wanted)


def test_no_error_left():
    """min_clicks goes on after a perfect mask only with compat, where the clicks are those at (0, 0)."""
    target = np.zeros((9, 9), bool)
    target[2:7, 2:7] = True
    options = {"min_clicks": 3, "stop_at": 0.5, "max_clicks": 4}
    found = fp.evaluate_clicks(lambda *_: target, [(None, target)], **options)
    assert found.curves[0].tolist() == [1.0]
    found = fp.evaluate_clicks(lambda *_: target, [(None, target)], compat=True, **options)
    assert found.clicks[0].tolist() == [[4, 4, 1], [0, 0, 0], [0, 0, 0]]


def test_ignored_pixels():
    target = np.zeros((9, 9), np.int32)
    target[2:7, 2:7], target[7:] = 1, -1
    found = fp.evaluate_clicks(lambda *_: target != 0, [(None, target)], ignore=-1)
    assert found.curves[0].tolist() == [1.0]


def test_nothing():
    found = fp.evaluate_clicks(disks, [])
    assert found.curves == found.clicks == []
    assert np.isnan(found.compute()["noc@0.9"])


def test_processes_add_up():
    whole = fp.evaluate_clicks(disks, samples())
    shares = [fp.evaluate_clicks(disks, samples()[k::2]) for k in range(2)]
    assert (shares[0].metrics + shares[1].metrics) == whole.metrics


# ---------------------------------------------------------------- the bar


class Terminal:
    def __init__(self, answer):
        self.answer, self.text = answer, ""

    def isatty(self):
        return self.answer

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.mark.parametrize(
    ("terminal", "progress", "shown"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_progress(monkeypatch, terminal, progress, shown):
    screen = Terminal(terminal)
    monkeypatch.setattr(_text.sys, "stderr", screen)
    fp.evaluate_clicks(disks, samples(2), progress=progress)
    assert ("1/2 sample 2" in screen.text) == shown
    assert bool(screen.text) == shown


# ---------------------------------------------------------------- wrong calls

MASK = np.ones((4, 5), bool)
WRONG = {
    "empty_target": ({"samples": [(None, MASK), (None, ~MASK)]}, ValueError, "the target of sample 1 is empty"),
    "only_ignored": ({"samples": [(None, MASK.astype(int))], "ignore": 1}, ValueError, "the target of sample 0 is empty"),
    "target_axes": ({"samples": [(None, MASK[None])]}, ValueError, r"target of sample 0 must be \(H, W\), got shape \(1, 4, 5\)"),
    "target_text": ({"samples": [(None, "x")]}, TypeError, "target must hold real numbers"),
    "huge": ({"samples": [(None, np.ones((1, 32767), bool))]}, ValueError, "target of sample 0 must have at most 32766 pixels"),
    "output": ({"predictor": lambda *_: MASK[:3]}, ValueError, r"prediction for sample 0 must have shape \(4, 5\), got \(3, 5\)"),
    "two_outputs": ({"predictor": lambda *_: np.stack([MASK] * 2)}, ValueError, r"must have shape \(4, 5\), got \(2, 4, 5\)"),
    "no_output": ({"predictor": lambda *_: None}, TypeError, "the prediction must hold real numbers"),
    "max_clicks": ({"max_clicks": 0}, ValueError, "max_clicks must be a positive int, got 0"),
    "min_clicks": ({"min_clicks": 0}, ValueError, "min_clicks must be a positive int, got 0"),
    "thresholds": ({"thresholds": [90]}, ValueError, r"thresholds must be numbers in \[0, 1\], got \[90\]"),
    "stop_at": ({"stop_at": 90}, ValueError, r"stop_at must be numbers in \[0, 1\], got 90"),
    "threshold": ({"threshold": np.nan}, ValueError, "threshold must be between"),
    "ignore": ({"ignore": "x"}, TypeError, "ignore must be an int or None"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "kind", "message"), WRONG.values(), ids=WRONG)
def test_errors(options, kind, message):
    with pytest.raises(kind, match=message):
        fp.evaluate_clicks(**{"predictor": lambda *_: MASK, "samples": [(None, MASK)], **options})
