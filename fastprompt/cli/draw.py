"""The overlay picture of ``segment``: the object tinted, its outline, and the prompts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

GREEN, RED, BLUE, WHITE = (30, 180, 75), (225, 45, 55), (40, 130, 255), (255, 255, 255)
TINT = 0.27  # of the object's colour is BLUE
DIM = 0.65  # brightness that is left to the rest

Click = tuple[int, int, bool]  # x, y, positive


def overlay(
    picture: Any,  # (H, W, 3) uint8
    mask: Any,  # (H, W) bool
    clicks: Sequence[Click],
    *,
    scribbles: Any = None,  # (2, H, W) bool
    box: tuple[int, int, int, int] | None = None,
) -> Any:
    """A PIL image of the picture's size."""
    scale = max(min(picture.shape[:2]) / 512, 0.6)  # of lines and markers
    image = outline(tint(picture, mask), mask, scale)
    for strokes, colour in zip(scribbles if scribbles is not None else (), (GREEN, RED), strict=False):
        image.paste(colour, mask=stencil(strokes))
    if box is not None:
        draw_box(image, box, scale)
    for x, y, positive in clicks:
        mark = marker(positive, scale)
        image.paste(mark, (x - mark.width // 2, y - mark.height // 2), mark)
    return image


def stencil(mask: Any) -> Any:
    return Image.fromarray(mask.astype(np.uint8) * 255)


# NOTE: everything below stays uint8 and in pillow: numbers of NumPy would be eight times as large as a large picture.
def tint(picture: Any, mask: Any) -> Any:
    image, shades = Image.fromarray(picture), np.arange(256)
    inside = [(1 - TINT) * shades + TINT * colour for colour in BLUE]
    outside = [DIM * shades] * 3
    tinted, dimmed = (image.point(np.concatenate(k).astype(int).tolist()) for k in (inside, outside))
    return Image.composite(tinted, dimmed, stencil(mask))


def outline(image: Any, mask: Any, scale: float) -> Any:
    """A smooth white line where the blurred mask passes one half."""
    soft = stencil(np.pad(mask, 8, mode="edge")).filter(ImageFilter.GaussianBlur(1.6 * scale))
    strength = 255 * np.clip(1.6 - 3.2 * np.abs(2 * np.arange(256) / 255 - 1), 0, 1)
    line = soft.point(strength.round().astype(int).tolist()).crop((8, 8, soft.width - 8, soft.height - 8))
    image.paste(WHITE, mask=line)
    return image


def draw_box(image: Any, box: tuple[int, int, int, int], scale: float) -> None:
    line, pen = max(round(2 * scale), 1), ImageDraw.Draw(image)
    x0, y0, x1, y1 = box
    pen.rectangle((x0 - line, y0 - line, x1 + line, y1 + line), outline=WHITE, width=line)
    pen.rectangle((x0, y0, x1, y1), outline=GREEN, width=line)


def marker(positive: bool, scale: float) -> Any:
    """A green disc with a plus, or a red one with a cross; drawn four times too large for smooth edges."""
    radius, big = round(8 * scale), 4
    size, bar = 2 * radius + 1, max(1.6 * scale, 1.0) * big
    mark = Image.new("RGBA", (size * big, size * big), (*WHITE, 0))
    pen, middle, reach = ImageDraw.Draw(mark), size * big / 2, 0.5 * radius * big
    rim = max(1.6 * scale, 1.0) * big
    pen.ellipse((0, 0, size * big - 1, size * big - 1), fill=WHITE)
    pen.ellipse((rim, rim, size * big - 1 - rim, size * big - 1 - rim), fill=GREEN if positive else RED)
    pen.line((middle - reach, middle, middle + reach, middle), fill=WHITE, width=round(bar))
    pen.line((middle, middle - reach, middle, middle + reach), fill=WHITE, width=round(bar))
    turned = mark if positive else mark.rotate(45, resample=Image.Resampling.BICUBIC, fillcolor=(*WHITE, 0))
    return turned.resize((size, size), Image.Resampling.LANCZOS)
