"""The other maps beside what people use for them: polygons, scribbles, boxes, VPUFormer's vectors, superpixels.

python benchmarks/bench_guidance_shapes.py            # interleaved, minima, with the results compared
pytest benchmarks/bench_guidance_shapes.py --benchmark-enable --benchmark-group-by=group --benchmark-sort=min

Peers that are not installed are left out. "different" counts the pixels (or numbers) that are not ours: libraries have
rules of their own for pixels on an edge and for round pens; OpenCV's polygons must be the same.
"""

import argparse
import importlib.util

import numpy as np
import pytest
from harness import heading, interleaved, line

import fastprompt as fp

SIZE = (1024, 1024)
RNG = np.random.default_rng(0)


def star(count):
    angle, reach = np.linspace(0, 2 * np.pi, count, endpoint=False), RNG.uniform(150, 500, count)
    return np.rint(np.stack([512 + reach * np.cos(angle), 512 + reach * np.sin(angle)], 1))


POLYGON = star(60)
STROKES = [np.cumsum(RNG.uniform(-12, 12, (80, 2)), 0) + RNG.uniform(200, 800, 2) for _ in range(4)]
BOX = np.array([200.0, 150, 700, 900], np.float32)
CLICKS = RNG.uniform(0, 448, (24, 2))
REGIONS = (np.arange(SIZE[0])[:, None] // 32) * 32 + np.arange(SIZE[1]) // 32
POINTS = RNG.integers(0, 1024, (24, 2))


def opencv_polygon():
    import cv2

    out = np.zeros(SIZE, np.uint8)
    return cv2.fillPoly(out, [POLYGON.astype(np.int32)], 1)


def pillow_polygon():
    from PIL import Image, ImageDraw

    image = Image.new("L", SIZE[::-1])
    ImageDraw.Draw(image).polygon([tuple(p) for p in POLYGON], fill=1)
    return np.asarray(image)


def skimage_polygon():
    from skimage.draw import polygon2mask

    return polygon2mask(SIZE, POLYGON[:, ::-1])


def opencv_scribbles():
    import cv2

    out = np.zeros(SIZE, np.float32)
    return cv2.polylines(out, [np.rint(s).astype(np.int32) for s in STROKES], False, 1, 5)


def pillow_scribbles():
    from PIL import Image, ImageDraw

    image = Image.new("F", SIZE[::-1])
    for s in STROKES:
        ImageDraw.Draw(image).line([tuple(p) for p in s], fill=1, width=5, joint="curve")
    return np.asarray(image)


def numpy_box():
    y, x = (np.arange(n, dtype=np.float32) for n in SIZE)
    x0, y0, x1, y1 = BOX
    across, down = np.maximum(x0 - x, x - x1), np.maximum(y0 - y, y - y1)[:, None]
    outside = np.sqrt(np.maximum(across, 0) ** 2 + np.maximum(down, 0) ** 2)
    return np.clip(128 + outside + np.minimum(np.maximum(across, down), 0), 0, 255)


def loop_vectors():
    """A loop over clicks on the host, as VPUFormer has it."""
    out = np.zeros((len(CLICKS), 899))
    window = np.exp(-(np.arange(-9, 10) ** 2) / 18.0)
    window[9] += 1
    for row, click in zip(out, CLICKS.astype(int), strict=True):
        for begin, c in zip((0, 448), click, strict=True):
            low, high = max(c - 9, 0), min(c + 10, 448)
            row[begin + low : begin + high] = window[low - c + 9 : high - c + 9]
        row[896] = 1
    return out.astype(np.float32)


def numpy_superpixels():
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    flat = REGIONS.ravel()
    count = np.bincount(flat)
    centre = np.stack([np.bincount(flat, c.ravel()) / count for c in (x, y)], 1)
    clicked = centre[np.unique(REGIONS[POINTS[:, 1], POINTS[:, 0]])]
    distance = np.sqrt(((centre[:, None] - clicked) ** 2).sum(-1)).min(1)
    return np.minimum(distance, 255).astype(np.float32)[REGIONS]


CASES = {
    "polygon of 60, outline": {
        "fastprompt": lambda: fp.polygon_mask(POLYGON, size=SIZE, boundary=True),
        "cv2": opencv_polygon,
        "PIL": pillow_polygon,
    },
    "polygon of 60, centres": {"fastprompt": lambda: fp.polygon_mask(POLYGON, size=SIZE), "skimage": skimage_polygon},
    "4 scribbles of 80": {
        "fastprompt": lambda: fp.scribble_map(STROKES, size=SIZE, thickness=5)[0],
        "cv2": opencv_scribbles,
        "PIL": pillow_scribbles,
    },
    "box distance": {"fastprompt": lambda: fp.box_distance_map(BOX, size=SIZE)[0], "numpy": numpy_box},
    "24 vectors of 899": {
        "fastprompt": lambda: fp.prompt_unified_encoding(CLICKS, np.ones(24, int), size=(448, 448)),
        "numpy": loop_vectors,
    },
    "1024 superpixels": {
        "fastprompt": lambda: fp.superpixel_map(REGIONS, POINTS)[0],
        "numpy": numpy_superpixels,
    },
}


def installed(peer):
    return peer == "fastprompt" or importlib.util.find_spec(peer) is not None


def different(case, got):
    want = CASES[case]["fastprompt"]()
    return int((np.abs(got.astype(float) - want) > 1e-4).sum())


@pytest.mark.parametrize(("case", "peer"), [(c, p) for c in CASES for p in CASES[c]], ids=str)
def test_shapes(benchmark, case, peer):
    if not installed(peer):
        pytest.skip(f"{peer} is not installed")
    fp.set_num_threads(1)
    benchmark.group = case
    try:
        got = benchmark(CASES[case][peer])
    finally:
        fp.set_num_threads(None)
    benchmark.extra_info["different"] = different(case, got)
    if peer == "numpy" or (peer == "cv2" and "outline" in case):
        assert benchmark.extra_info["different"] == 0


def table(case, rounds):
    calls = {peer: call for peer, call in CASES[case].items() if installed(peer)}
    notes = {peer: different(case, call()) for peer, call in calls.items()}
    times = interleaved(calls, rounds, threads=1)
    heading(case, 1, rounds)
    for peer, spent in times.items():
        line(peer, spent, times["fastprompt"], f"different {notes[peer]}", digits=3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    fp.set_num_threads(1)
    for case in CASES:
        table(case, options.rounds)
