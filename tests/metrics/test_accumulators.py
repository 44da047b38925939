"""NoC and NoF of curves; accumulators of any metric that are split over processes and merged."""

import json
import math
import pickle

import numpy as np
import pytest
from test_metric_sets import data, sums

from fastprompt import metrics

# ---------------------------------------------------------------- clicks

CURVES = [[0.5, 0.92, 0.95], [0.95], [0.2] * 20, [0.2] * 19 + [0.9], [0.85, 0.86], [0.3] * 24 + [0.99], []]


def published_noc(curve, x, cap):
    values = np.array(curve) >= x
    return int(np.argmax(values)) + 1 if values.any() else cap


@pytest.mark.parametrize("x", [0.5, 0.8, 0.85, 0.9, 0.95])
@pytest.mark.parametrize("cap", [1, 5, 20])
def test_noc_and_nof(x, cap):
    curves = [curve[:cap] for curve in CURVES]
    wanted = np.array([published_noc(curve, x, cap) for curve in curves])
    for given in (curves, CURVES):  # clicks beyond the cap do not count
        np.testing.assert_array_equal(metrics.noc(given, x, max_clicks=cap), wanted)
        assert metrics.nof(given, x, max_clicks=cap) == ((wanted == cap).sum(), (wanted == cap).mean())
    judge = metrics.ClickMetrics(thresholds=[x], max_clicks=cap)
    for curve in CURVES:
        judge.update(curve)
    number, rate = metrics.nof(curves, x, max_clicks=cap)
    assert judge.compute() == {f"noc@{x}": wanted.mean(), f"nof@{x}": rate, f"failures@{x}": number}
    strict = sum(max(curve, default=0) < x for curve in curves)
    assert metrics.nof(curves, x, max_clicks=cap, strict=True).number == strict
    assert judge.compute(strict=True)[f"failures@{x}"] == strict


def test_success_at_the_last_click_is_a_published_failure():
    """Trap: and eq. 16 with a capped NoC, NoC > 20, would always be 0."""
    assert metrics.noc(CURVES, 0.9).tolist() == [2, 1, 20, 20, 20, 20, 20]
    assert metrics.nof(CURVES, 0.9) == (5, 5 / 7)
    assert metrics.nof(CURVES, 0.9, strict=True) == (4, 4 / 7)
    assert metrics.nof([], 0.9).number == 0
    assert math.isnan(metrics.nof([], 0.9).rate)


def test_a_stopped_curve_gets_the_cap_above():
    """Trap: NoC@95 of a curve that stopped at 0.90 is not known, and is the cap in published code."""
    assert metrics.noc([[0.5, 0.91]], 0.95).tolist() == [20]


@pytest.mark.parametrize(("curves", "error", "match"), [
    (3.0, TypeError, r"curves must be a curve for every sample, got 3\.0"),
    (np.array(3.0), TypeError, "curves must be a curve for every sample"),
    (None, TypeError, "curves must be a curve for every sample, got None"),
    ([0.5, 0.9], ValueError, "a curve must be the IoU after each click, one axis"),
    ([[0.5], [92.0]], ValueError, r"a curve must hold IoUs from 0 to 1, got \[92\.0\]"),
    ([[math.nan]], ValueError, r"a curve must hold IoUs from 0 to 1, got \[nan\]"),
    (["ab"], TypeError, "a curve must hold real numbers"),
])  # fmt: skip
def test_wrong_curves(curves, error, match):
    for function in (metrics.noc, metrics.nof):
        with pytest.raises(error, match=match):
            function(curves, 0.8)


# ---------------------------------------------------------------- merging


def judges(rng):
    """Accumulators, their samples, their options."""
    pred, target, _ = data(rng, 30)
    pairs = list(zip(pred, target, strict=True))
    yield metrics.ReferringMetrics, pairs, {}
    yield metrics.ReferringMetrics, pairs, {"empty": "skip", "thresholds": (0.3, 0.7)}
    yield metrics.RobustReferringMetrics, [(p, t, p[None]) for p, t in pairs], {}
    yield metrics.ClassMetrics, [(p, t, k % 4) for k, (p, t) in enumerate(pairs)], {}
    yield metrics.ClickMetrics, [(rng.random(n),) for n in rng.integers(0, 9, 30)], {"max_clicks": 6}


@pytest.mark.parametrize("which", range(5))
def test_any_split_gives_the_same_bits(rng, which):
    kind, samples, options = list(judges(rng))[which]
    whole = kind(**options)
    for sample in samples:
        whole.update(*sample)
    for parts in (2, 3, 7):
        shares = [kind(**options) for _ in range(parts)]
        for k in rng.permutation(len(samples)):
            shares[rng.integers(parts)].update(*samples[k])
        total = kind(**options)
        for share in shares:
            before = pickle.dumps(share)
            total = total + pickle.loads(before)
            assert pickle.dumps(share) == before
        assert total == whole
        assert repr(total.compute()) == repr(whole.compute())
        merged = shares[0].merge(shares[1])
        assert merged is shares[0]
    assert all(type(n) is int for n in whole.counts.values())
    assert json.loads(json.dumps(whole.counts)) == whole.counts  # plain numbers


def test_images_of_different_sizes(rng):
    judge, i_sum, u_sum, ious = metrics.ReferringMetrics(), 0, 0, []
    for shape in ((1, 1), (3, 70), (65, 2), (17, 33), (64, 64)):
        pred, target = rng.random(shape) < 0.5, rng.random(shape) < 0.5
        pred[0, 0] = True
        judge.update(pred, target)
        i, u = sums(pred, target)
        i_sum, u_sum = i_sum + i, u_sum + u
        ious.append(i / u)
    found = judge.compute()
    assert found["overall_iou"] == i_sum / u_sum
    assert found["mean_iou"] == pytest.approx(np.mean(ious), rel=1e-12)


def test_merging_wants_the_same_kind():
    a = metrics.ReferringMetrics()
    with pytest.raises(ValueError, match=r"other must have the same options .*'one'.* got .*'zero'"):
        a.merge(metrics.ReferringMetrics(empty="zero"))
    with pytest.raises(TypeError, match=r"other must be a ReferringMetrics, got ClassMetrics"):
        a + metrics.ClassMetrics()
    assert a != metrics.ClassMetrics()
    assert repr(metrics.ClassMetrics()) == "ClassMetrics(empty='skip', eps=0.0)"
