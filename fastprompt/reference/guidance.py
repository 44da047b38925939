"""Guidance maps in plain NumPy, as the formulas read."""

import itertools
import math
from typing import Any

import numpy as np


def squares(points: Any, size: Any, missing: float) -> Any:
    """Squared distance of every pixel to the nearest of (N, 2) points, in float32 as RITM computes it."""
    out = np.full(size, np.inf, np.float32)
    rows, columns = np.arange(size[0], dtype=np.float32)[:, None], np.arange(size[1], dtype=np.float32)
    for x, y in points:
        if not np.isfinite((x, y)).all() or (x < 0 and y < 0):
            d2 = np.float32(missing)
        else:
            d2 = (rows - y) ** 2 + (columns - x) ** 2
        out = np.minimum(out, d2)
    return out


def encode(d2: Any, code: int, scale: float, clip: float, divisor: float) -> Any:
    """0 disk, 1 euclidean, 2 tanh, 3 gaussian."""
    if code == 0:
        return d2 <= np.float32(scale)
    d2 = d2.astype(np.float64)
    if code == 1:
        return np.minimum(np.sqrt(d2), clip) / divisor
    return np.tanh(np.sqrt(d2) * scale) if code == 2 else np.exp(-d2 * scale)


def click_map(
    points: Any, labels: Any, channels: Any, size: Any, code: int, scales: Any, clip: float, divisor: float,
    stretch: bool, missing: float,
) -> Any:  # fmt: skip
    points = np.asarray(points, np.float32)
    out = np.empty((len(points), len(channels), len(scales), *size), np.float32)
    for b, c in np.ndindex(*out.shape[:2]):
        chosen = points[b][labels[b] == channels[c]]
        d2 = squares(chosen, size, missing)
        for k, scale in enumerate(scales):
            value = encode(d2, code, scale, clip, divisor)
            if stretch and value.size:
                if np.isfinite(chosen).all(1).any() and np.isfinite(d2).all():
                    value = (value - value.min()) / max(value.max() - value.min(), 1e-8)
                else:
                    value = 0.0 if code == 3 else 1.0
            out[b, c, k] = value
    return out.reshape(len(points), len(channels) * len(scales), *size)


def box_map(boxes: Any, size: Any, distance: bool, offset: float, low: float, high: float) -> Any:
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    out = np.full((len(boxes), 1, *size), np.inf)
    for b, n in np.ndindex(*boxes.shape[:2]):
        box = boxes[b, n].astype(np.float64)
        if np.isnan(box).any():
            continue
        (x0, x1), (y0, y1) = sorted(box[::2]), sorted(box[1::2])
        inside = np.minimum(np.minimum(x - x0, x1 - x), np.minimum(y - y0, y1 - y))
        outside = np.hypot(np.maximum(np.maximum(x0 - x, x - x1), 0), np.maximum(np.maximum(y0 - y, y - y1), 0))
        out[b, 0] = np.minimum(out[b, 0], np.where(inside >= 0, -inside, outside))
    return np.clip(offset + out, low, high) if distance else out <= 0


def polygon_mask(points: Any, first: Any, size: Any, non_zero: bool, boundary: bool) -> Any:
    """Row by row: where the row crosses the edges, and what lies between an odd number of them."""
    out = np.zeros((len(points), *size), bool)
    points = np.asarray(points, np.float64)
    points = np.rint(points) if boundary else points
    rings = [np.arange(a, b) for a, b in itertools.pairwise(first)]
    for image, vertices in zip(out, points, strict=True):
        edges = [(*vertices[p], *vertices[q]) for r in rings for p, q in zip(r, np.roll(r, -1), strict=True)]
        for y in range(size[0]):
            crossed = sorted(crossing(e, y, boundary) for e in edges if min(e[1], e[3]) <= y < max(e[1], e[3]))
            winding = 0
            for (a, w), (b, _) in itertools.pairwise(crossed):
                winding += w if non_zero else 1
                if winding != 0 if non_zero else winding % 2:
                    begin, end = math.ceil(a), math.floor(b) + 1 if boundary else math.ceil(b)
                    image[y, max(begin, 0) : max(end, 0)] = True
        for e in edges if boundary else ():
            for x, y in line(e):
                if 0 <= x < size[1] and 0 <= y < size[0]:
                    image[y, x] = True
    return out


def crossing(edge: Any, y: int, fixed: bool) -> tuple[float, int]:
    x0, y0, x1, y1 = edge
    winding = 1 if y0 < y1 else -1
    if winding < 0:
        x0, y0, x1, y1 = x1, y1, x0, y0
    if fixed:  # cv2 steps by a whole number of 1 / 65536
        return x0 + (y - y0) * math.trunc((x1 - x0) * 65536 / (y1 - y0)) / 65536, winding
    return x0 + (y - y0) * (x1 - x0) / (y1 - y0), winding


def line(edge: Any) -> list[tuple[int, int]]:
    """Bresenham's pixels from the left end to the right one."""
    x0, y0, x1, y1 = (round(v) for v in edge)
    if x1 < x0:
        x0, y0, x1, y1 = x1, y1, x0, y0
    dx, dy, sign = x1 - x0, abs(y1 - y0), -1 if y1 < y0 else 1
    steps, other = max(dx, dy), min(dx, dy)
    aside = [-(-(2 * other * k - steps) // (2 * steps)) if steps else 0 for k in range(steps + 1)]
    return [(x0 + k, y0 + sign * a) if dx >= dy else (x0 + a, y0 + sign * k) for k, a in enumerate(aside)]


def scribble_map(points: Any, first: Any, labels: Any, channels: Any, size: Any, radius: float) -> Any:
    out = np.zeros((len(channels), *size), np.float32)
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    for s, label in enumerate(labels):
        stroke = points[first[s] : first[s + 1]]
        if label not in channels or len(stroke) == 0:
            continue
        near = np.zeros(size, bool)
        for (px, py), (qx, qy) in zip(
            stroke[: max(len(stroke) - 1, 1)], stroke[1:] if len(stroke) > 1 else stroke, strict=True
        ):
            ux, uy, vx, vy = qx - px, qy - py, x - px, y - py
            length = ux * ux + uy * uy
            t = np.clip((ux * vx + uy * vy) / length, 0, 1) if length > 0 else 0
            dx, dy = vx - t * ux, vy - t * uy
            near |= dx * dx + dy * dy <= radius * radius
        out[:, near] = 0
        out[max(c for c, shown in enumerate(channels) if shown == label), near] = 1
    return out


def pixel(point: Any, size: Any, image: int) -> tuple[int, int] | None:
    """(row, column), None for an empty slot."""
    x, y = (float(v) for v in point)
    if not (math.isfinite(x) and math.isfinite(y)) or (x < 0 and y < 0):
        return None
    row, column = math.floor(y + 0.5), math.floor(x + 0.5)
    if not (0 <= row < size[0] and 0 <= column < size[1]):
        where = f"{size[1]} x {size[0]} pixels, got {x:g}, {y:g} in image {image}"
        raise ValueError(f"points must lie in the image of {where}")
    return row, column


def located(points: Any, labels: Any, channels: Any, size: Any, image: int) -> list[list[tuple[int, int]]]:
    """The pixels of every channel's clicks."""
    found: list[list[tuple[int, int]]] = [[] for _ in channels]
    for point, label in zip(points[image], labels[image], strict=True):
        for c, wanted in enumerate(channels):
            at = pixel(point, size, image) if label == wanted else None
            found[c] += [] if at is None else [at]
    return found


def superpixel_map(regions: Any, points: Any, labels: Any, channels: Any, clip: float) -> Any:
    out = np.empty((len(regions), len(channels), *regions.shape[1:]), np.float32)
    y, x = np.mgrid[: regions.shape[1], : regions.shape[2]]
    for b, region in enumerate(regions):
        found = located(points, labels, channels, region.shape, b) if region.size else []
        centroid = {r: (x[region == r].mean(), y[region == r].mean()) for r in np.unique(region)}
        for c, clicked in enumerate(found):
            others = [centroid[region[at]] for at in clicked]
            for r, (cx, cy) in centroid.items():
                out[b, c][region == r] = min([clip, *(math.hypot(cx - ox, cy - oy) for ox, oy in others)])
    return out


def proposal_vote_map(members: Any, points: Any, labels: Any, channels: Any) -> Any:
    out = np.zeros((len(members), len(channels), *members.shape[2:]), np.float32)
    for b, member in enumerate(members):
        for c, clicked in enumerate(located(points, labels, channels, member.shape[1:], b)):
            out[b, c] = sum((m[at] != 0) * (m != 0) for m in member for at in clicked)
    return out


def prompt_vectors(centre: Any, radius: Any, sigma: Any, bit: Any, peak: Any, size: Any) -> Any:
    out = np.zeros((len(centre), size[0] + size[1] + 3), np.float32)
    for k, row in enumerate(out):
        begin = 0
        for axis, length in enumerate((size[1], size[0])):
            distance = np.arange(length) - centre[k, axis]
            value = np.exp(-(distance**2) / (2 * sigma[k, axis] ** 2)) + peak[k] * (distance == 0)
            row[begin : begin + length] = value * (np.abs(distance) <= radius[k, axis])
            begin += length
        row[begin + bit[k]] = 1
    return out
