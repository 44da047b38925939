"""Geodesic distance in plain NumPy, as the formulas read. Slow: the oracle of the kernels, and their fallback."""

import itertools
from typing import Any, NamedTuple

import numpy as np

Offset = tuple[int, int, int]  # z, y, x


class Options(NamedTuple):
    """In the order of the operator ``geodesic_distance``."""

    metric: str
    method: str
    iterations: int
    lam: float
    step_weight: float
    spacing: tuple[float, ...]  # one per spatial axis: ([z,] y, x)
    v: float
    limit: float


def solve(image: Any, start: Any, walls: Any, kind: str, *settings: Any) -> Any:
    """Distances (B, K, D, H, W) for ``image`` (B, C, D, H, W) and ``start`` (B, K, D, H, W), as the kernel has them."""
    if kind.startswith("signed_"):
        kind = kind.removeprefix("signed_")
        inside, outside = (solve(image, m, walls, k, *settings) for m, k in ((start, kind), complement(start, kind)))
        with np.errstate(invalid="ignore"):
            return np.where(np.isposinf(inside), np.float32(np.inf), inside - outside)
    options = Options(*settings)
    distance = start_distance(start, kind, options.v)
    image = np.array(image, np.float32)
    if walls is not None:  # a barrier has no value, so no edge leads to it, and no start
        image[np.broadcast_to(walls != 0, image.shape)] = np.nan
        distance[np.broadcast_to(walls != 0, distance.shape)] = np.inf
    method = {"exact": exact, "raster": raster, "toivanen": toivanen}[options.method]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        for b, k in np.ndindex(distance.shape[:2]):
            method(image[b], distance[b, k], options)
    distance[distance > np.float32(options.limit)] = np.inf
    return distance


def start_distance(start: Any, kind: str, v: float) -> Any:
    """v (1 - s) for a degree s of being a seed; a seed starts at 0 whatever v is."""
    start = np.asarray(start, np.float32)
    seed, cost = {
        "cost": (start == 0, start),
        "seed": (start == 1, 1 - start),
        "nonzero": (start != 0, np.float32(1)),
    }[kind]
    with np.errstate(invalid="ignore"):
        return np.where(seed, np.float32(0), np.float32(v) * cost)


def complement(start: Any, kind: str) -> tuple[Any, str]:
    """The map whose seeds are the other pixels."""
    return (start == 0, kind) if kind == "nonzero" else (start, "seed" if kind == "cost" else "cost")


def length(offset: Offset, options: Options, order: str = "zyx") -> np.float32:
    """Euclidean length of a step, the squares added in ``order`` (float32 sums depend on it)."""
    spacing = options.spacing if len(options.spacing) == 3 else (1.0, *options.spacing)
    total = np.float32(0)
    for axis in order:
        k = "zyx".index(axis)
        if offset[k]:
            total += np.float32(spacing[k]) * np.float32(spacing[k])
    return np.sqrt(total)


def reach(distance: Any, difference: Any, step: np.float32, options: Options) -> Any:
    """Distance through a neighbour at ``distance``; ``difference`` (C, …) = I(p) - I(q), ``step`` = edge length."""
    lam = np.float32(options.lam)
    if options.metric == "fastgeodis":
        l1 = add(np.abs(c) for c in difference)
        return (distance + np.float32(options.step_weight) * step) + lam * l1
    l2 = np.sqrt(add(c * c for c in difference))
    if options.metric == "geodistk_fm":
        return distance + step * l2
    weight = np.float64(lam)
    speed = (1 - weight) + weight / (l2.astype(np.float64) + 1e-5)
    return distance + step / speed.astype(np.float32)


def add(terms: Any) -> Any:
    """Left to right, in float32."""
    terms = iter(terms)
    total = next(terms)
    for term in terms:
        total = total + term
    return total


def neighbour(x: Any, offset: Offset, outside: float) -> Any:
    """x[..., p + offset] for every pixel p."""
    out = np.full_like(x, outside)
    to, of = [], []
    for d, n in zip(offset, x.shape[-3:], strict=True):
        to.append(slice(max(0, -d), n - max(0, d)))
        of.append(slice(max(0, d), n - max(0, -d)))
    out[(..., *to)] = x[(..., *of)]
    return out


def offsets(options: Options) -> list[Offset]:
    depth = (-1, 0, 1) if len(options.spacing) == 3 else (0,)
    return [o for o in itertools.product(depth, (-1, 0, 1), (-1, 0, 1)) if any(o)]


def exact(image: Any, distance: Any, options: Options) -> None:
    """D(p) = min(D(p), min_q D(q) + w(p, q)) for all pixels at once, until nothing changes: the shortest paths."""
    edges = [(o, image - neighbour(image, o, np.nan), length(o, options)) for o in offsets(options)]
    changed = True
    while changed:
        before = distance.copy()
        for offset, difference, step in edges:
            candidate = reach(neighbour(distance, offset, np.inf), difference, step, options)
            np.copyto(distance, candidate, where=candidate < distance)
        changed = not np.array_equal(before, distance, equal_nan=True)


def raster(image: Any, distance: Any, options: Options) -> None:
    """FastGeodis' order: per axis a sweep forth and back, each layer taking from the layer behind it."""
    axes = "zyx" if len(options.spacing) == 3 else "yx"
    for _, axis, direction in itertools.product(range(options.iterations), axes, (1, -1)):
        k = "zyx".index(axis)
        order = {"z": "zyx", "y": "yzx", "x": "xyz"}[axis]  # of the squares in a length, as FastGeodis adds them
        layers, pixels = np.moveaxis(distance, k, 0), np.moveaxis(image, k + 1, 0)
        back = [o for o in offsets(options) if o[k] == -direction]
        for n in range(len(layers))[::direction][1:]:
            here, behind = n, n - direction
            for offset in back:
                u, v = (o for j, o in enumerate(offset) if j != k)
                d = neighbour(layers[behind][None], (0, u, v), np.inf)[0]
                i = neighbour(pixels[behind][:, None], (0, u, v), np.nan)[:, 0]
                candidate = reach(d, pixels[here] - i, length(offset, options, order), options)
                np.copyto(layers[here], candidate, where=candidate < layers[here])


def toivanen(image: Any, distance: Any, options: Options) -> None:
    """Toivanen's order: pixel by pixel in place, forth with the neighbours before a pixel, back with the others."""
    shape = distance.shape
    forth = [o for o in offsets(options) if (o[1], o[2], o[0]) < (0, 0, 0)]
    for _, direction in itertools.product(range(options.iterations), (1, -1)):
        for p in list(np.ndindex(shape))[::direction]:
            for o in forth:
                q = tuple(a + direction * b for a, b in zip(p, o, strict=True))
                if not all(0 <= a < n for a, n in zip(q, shape, strict=True)):
                    continue
                difference = image[(slice(None), *p)] - image[(slice(None), *q)]
                candidate = reach(distance[q], difference, length(o, options), options)
                if candidate < distance[p]:
                    distance[p] = candidate


def euclidean(mask: Any, spacing: tuple[float, float, float]) -> Any:
    """Distances (B, 1, D, H, W) to the non-zero pixels of ``mask`` (B, 1, D, H, W), ``spacing`` (z, y, x)."""
    out = np.empty(mask.shape, np.float32)
    pixels = np.argwhere(np.ones(mask.shape[2:], bool)) * spacing
    for b, image in enumerate(mask[:, 0]):
        seeds = np.argwhere(image) * spacing
        difference = pixels[:, None] - seeds[None]  # (pixels, seeds, 3)
        out[b, 0] = np.sqrt((difference**2).sum(-1)).min(1, initial=np.inf).reshape(image.shape)
    return out
