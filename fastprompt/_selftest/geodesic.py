"""Calls of distances for ``fastprompt doctor``."""

import itertools
from collections.abc import Iterator

import numpy as np

from fastprompt._selftest.check import Check, compare, picture
from fastprompt.ops.geodesic.grid import METHODS, METRICS


def checks() -> Iterator[Check]:
    yield from geodesic_distance()
    yield from geodesic_others()
    yield from euclidean()


def geodesic_distance() -> Iterator[Check]:
    # Ragged, wider than a register, and a tile and a half of the exact method; the reference of Toivanen's order walks
    # pixel by pixel in Python, so it gets small pictures.
    large, small = {2: (3, 61, 97), 3: (1, 7, 11, 35)}, {2: (3, 7, 35), 3: (1, 3, 4, 19)}
    for dims, metric, method in itertools.product((2, 3), METRICS, METHODS):
        image, seeds = picture(*(small if method == "toivanen" else large)[dims])
        variant, iterations = f"{dims}-D {metric} {method}", 1 if method == "toivanen" else 2
        options = {"metric": metric, "method": method, "iterations": iterations, "lam": 0.7, "dims": dims}
        yield compare("geodesic_distance", variant, image, seeds, **options)
    image, seeds = picture(3, 61, 97)
    walls = np.zeros((61, 97), bool)
    walls[5:50, 40] = True
    yield compare("geodesic_distance", "2-D barriers", image, seeds, barriers=walls, max_distance=8.0)


def geodesic_others() -> Iterator[Check]:
    image, seeds = picture(3, 61, 97)
    region = np.zeros((61, 97), bool)
    region[20:45, 30:70] = True
    yield compare("signed_geodesic_distance", "2-D", image, region, lam=0.7)
    yield compare("geodesic_symmetric_filter", "2-D", image, region, theta=1.5, lam=0.7)
    yield compare("exponentiated_geodesic", "2-D", image, seeds[0])


def euclidean() -> Iterator[Check]:
    for dims, shape in ((2, (1, 61, 97)), (3, (1, 7, 11, 35))):
        yield compare("euclidean_distance_transform", f"{dims}-D", picture(*shape)[1][0])
