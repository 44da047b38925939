"""Samples for the tiny click model: polygons of texture on a ground of texture, and clicks on one of them.

The textures are crops of pictures that scikit-image ships. Pictures of the training are never used for the test.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from skimage import data

SIZE = 96
TRAIN = (
    "astronaut",
    "coffee",
    "rocket",
    "immunohistochemistry",
    "grass",
    "brick",
    "camera",
    "colorwheel",
    "page",
    "moon",
)
TRAIN += ("hubble_deep_field", "motorcycle")
HELD_OUT = ("chelsea", "retina", "gravel", "coins", "cell", "clock")
SMALLEST = 120  # pixels of a target that can be seen


class Samples(NamedTuple):
    image: torch.Tensor  # (B, 3, 96, 96) within 0..1
    points: torch.Tensor  # (B, P, 2): x, y; NaN where there is no click
    labels: torch.Tensor  # (B, P): 1 on the object, 0 off it, -1 no click
    boxes: torch.Tensor  # (B, 1, 4): x0, y0, x1, y1 of the target, corners included
    target: torch.Tensor  # (B, 1, 96, 96) 0 or 1

    @property
    def inputs(self):
        return self.image, self.points, self.labels

    def rows(self, where):
        return Samples(*(x[where] for x in self))


def textures(names):
    """Every picture in colour, at three scales."""
    return [[shrunk(picture(name), by) for by in (1, 2, 3)] for name in names]


def picture(name):
    if name == "motorcycle":
        return data.stereo_motorcycle()[0]
    image = getattr(data, name)()
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)


def shrunk(image, by):
    by = min(by, min(image.shape[:2]) / (SIZE + 8))
    height, width = (round(n / by) for n in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def samples(pictures, count, rng, clicks=1):
    """``count`` samples; ``clicks`` is the largest number of positive clicks: one, or any up to it, at random."""
    parts = zip(*(sample(pictures, rng, clicks) for _ in range(count)), strict=True)
    return Samples(*(torch.stack(part) for part in parts))


def sample(pictures, rng, clicks):
    while True:
        objects = rng.integers(2, 4)
        kinds = rng.permutation(len(pictures))[: objects + 1]
        image, owner = crop(pictures[kinds[0]], rng), np.zeros((SIZE, SIZE), np.int64)
        for k in range(1, objects + 1):
            inside = polygon(rng)
            image = np.where(inside[..., None], crop(pictures[kinds[k]], rng), image)
            owner[inside] = k
        target = owner == rng.integers(1, objects + 1)
        if target.sum() >= SMALLEST:
            break
    image = (image + 0.02 * rng.standard_normal(image.shape, np.float32)).clip(0, 1)
    points, labels = click(target, rng, clicks)
    y, x = np.nonzero(target)
    box = (x.min(), y.min(), x.max(), y.max())
    plain = image.transpose(2, 0, 1)
    arrays = plain, points, labels, np.array([box], np.float32), target[None].astype(np.float32)
    return [torch.from_numpy(np.ascontiguousarray(x)) for x in arrays]


def crop(scales, rng):
    """A piece of a picture, turned, mirrored, in other colours, within 0..1."""
    texture = scales[rng.integers(len(scales))]
    top, left = (rng.integers(0, n - SIZE + 1) for n in texture.shape[:2])
    piece = np.rot90(texture[top : top + SIZE, left : left + SIZE], rng.integers(4))[:: rng.choice((1, -1))]
    piece = piece.astype(np.float32) / 255
    if rng.random() < 0.15:
        piece = piece.mean(2, keepdims=True).repeat(3, 2)
    contrast = (rng.uniform(0.7, 1.3, 3) * rng.uniform(0.8, 1.2)).astype(np.float32)
    return ((piece - 0.5) * contrast + np.float32(0.5 + rng.uniform(-0.15, 0.15))).clip(0, 1)


def polygon(rng):
    """A mask (96, 96) of 7 to 15 corners on an ellipse, most with radii of their own."""
    corners = rng.integers(7, 16)
    angle = np.sort(rng.uniform(0, 2 * math.pi, corners))
    radius = rng.uniform(0.45, 1, corners) if rng.random() < 0.7 else np.ones(corners)
    x, y = radius * rng.uniform(12, 40) * np.cos(angle), radius * rng.uniform(12, 40) * np.sin(angle)
    turn, centre = rng.uniform(0, math.pi), rng.uniform(0.15, 0.85, 2) * SIZE
    outline = np.stack([x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)], 1) + centre
    image = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(image).polygon([tuple(point) for point in outline.tolist()], fill=1)
    return np.asarray(image).astype(bool)


def click(target, rng, clicks):
    """Points (P, 2) and labels (P): the positive clicks, then up to two negative ones."""
    positive = 1 if clicks == 1 or rng.random() < 0.6 else rng.integers(2, clicks + 1)
    negative = int(rng.random() < 0.5) + (clicks > 1 and rng.random() < 0.2)
    points, labels = np.full((clicks + 2, 2), np.nan, np.float32), np.full(clicks + 2, -1, np.int64)
    core = shrink(shrink(target))
    for first, count, where, label in (
        (0, positive, core if core.any() else target, 1),
        (clicks, negative, ~target, 0),
    ):
        pixels = np.argwhere(where)
        points[first : first + count] = pixels[rng.integers(len(pixels), size=count), ::-1]
        labels[first : first + count] = label
    return points, labels


def shrink(mask):
    """Without the pixels of its rim."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return inner
