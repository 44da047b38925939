"""Every guidance map on one photograph: the picture of docs/guidance.md.

pip install ".[images]"
python examples/guidance_gallery.py docs/images/guidance.jpg
"""

import sys
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage import data
from skimage.segmentation import slic

import fastprompt as fp

SIDE, COLUMNS, GAP, TEXT = 190, 5, 8, 34
GREEN, RED, YELLOW = np.array([40, 220, 110.0]), np.array([245, 60, 60.0]), np.array([255, 214, 70.0])

PICTURE = data.astronaut()[:256, 96:352]
SIZE = PICTURE.shape[:2]
POINTS = np.array([[128, 110], [118, 205], [70, 190], [40, 40], [222, 70]])
LABELS = np.array([1, 1, 1, 0, 0])
BOX = [62, 10, 188, 214]
STROKES = [[(128, 60), (132, 120), (120, 170), (96, 215)], [(30, 20), (34, 90), (26, 150)], [(214, 40), (226, 130)]]
POLYGON = [(128, 12), (172, 50), (170, 120), (150, 160), (214, 214), (40, 214), (104, 160), (84, 110), (88, 48)]


def panels() -> Iterator[tuple[str, str, np.ndarray]]:
    """Name, who uses it, and picture."""
    clicks = {"points": POINTS, "labels": LABELS, "size": SIZE}
    yield "the prompts", "clicks, box, scribbles", prompts()
    yield "disk, radius 5", "RITM, SimpleClick, FocalClick", signs(fp.click_map(**clicks))
    both = fp.click_map(**clicks, radius=[5, 24])
    yield "disk, radius 5 and 24", "CDNet", signs((both[::2] + both[1::2]) / 2)
    far = fp.click_map(**clicks, encoding="euclidean", clip=255, normalize="clip")
    yield "euclidean, clip 255", "DIOS, iFCN", signs(1 - far)
    near = fp.click_map(**clicks, encoding="euclidean", normalize="minmax")
    yield "euclidean, minmax", "MIDeepSeg", signs(1 - near)
    yield "tanh, radius 260", "f-BRS, RITM", signs(1 - fp.click_map(**clicks, encoding="tanh"))
    yield "tanh, radius 60", "the same, nearer", signs(1 - fp.click_map(**clicks, encoding="tanh", radius=60))
    gauss = {"encoding": "gaussian"}
    yield "gaussian, FWHM 10", "DEXTR", signs(fp.click_map(**clicks, **gauss, sigma_unit="fwhm"))
    yield "gaussian, sigma 10", "MM-IIS, FCA-Net", signs(fp.click_map(**clicks, **gauss))
    relative = fp.click_map(**clicks, **gauss, sigma=0.1, sigma_unit="relative")
    yield "gaussian, sigma 0.1 of the side", "the survey's eq. 3", signs(relative)
    stack = fp.click_map(**clicks, **gauss, sigma=[5, 15, 40])[:3]
    yield "gaussian, sigma 5, 15, 40", "IBPOS: three channels", np.moveaxis(stack, 0, -1) * 255
    yield "box_map", "LIOS", colour(fp.box_map(BOX, size=SIZE)[0], YELLOW)
    yield "box_distance_map", "Deep GrabCut", np.repeat(fp.box_distance_map(BOX, size=SIZE)[0][..., None], 3, 2)
    scribbles = fp.scribble_map(STROKES, [1, 0, 0], size=SIZE, thickness=5)
    yield "scribble_map", "UI-Net, ScribblePrompt", signs(scribbles)
    yield "polygon_mask", "Polygon-RNN, SeqTR", colour(fp.polygon_mask(POLYGON, size=SIZE), YELLOW)
    regions = slic(PICTURE, 90, start_label=0)
    yield "superpixel_map", "CAMLG-IIS", signs(1 - fp.superpixel_map(regions, POINTS, LABELS) / 255)
    votes = fp.proposal_vote_map(proposals(), POINTS, LABELS)[0]
    yield "proposal_vote_map", "CAMLG-IIS", colour(votes / votes.max(), YELLOW)
    yield "prompt_unified_encoding", "VPUFormer", vectors()
    yield "fourier_position_encoding", "SAM: likeness to a click", fourier()
    channels = fp.compose_guidance(
        previous_mask=fp.polygon_mask(POLYGON, size=SIZE)[None], boxes=[BOX], encoding="tanh", **clicks
    )
    yield "compose_guidance", "mask, clicks, box: 4 channels", mosaic(channels)


def shade() -> np.ndarray:
    return np.repeat(PICTURE.mean(2, keepdims=True), 3, 2) * 0.45


def colour(strength: np.ndarray, tone: np.ndarray) -> np.ndarray:
    part = np.clip(np.asarray(strength, float), 0, 1)[..., None] * 0.85
    return (1 - part) * shade() + part * tone


def signs(maps: np.ndarray) -> np.ndarray:
    """Positive green, negative red, over the grey photograph."""
    positive, negative = (np.clip(m, 0, 1)[..., None] for m in maps)
    total = np.maximum(positive, negative)
    tone = (positive * GREEN + negative * RED) / np.maximum(positive + negative, 1e-6)
    return (1 - 0.9 * total) * shade() + 0.9 * total * tone


def prompts() -> np.ndarray:
    image = Image.fromarray(PICTURE)
    pen = ImageDraw.Draw(image)
    pen.rectangle(BOX, outline=tuple(YELLOW.astype(int)), width=2)
    for k, stroke in enumerate(STROKES):
        pen.line(stroke, fill=tuple((RED if k else GREEN).astype(int)), width=3)
    for (x, y), label in zip(POINTS, LABELS, strict=True):
        tone = tuple((GREEN if label else RED).astype(int))
        pen.ellipse((x - 6, y - 6, x + 6, y + 6), fill=tone, outline="white", width=2)
    return np.asarray(image, float)


def proposals() -> np.ndarray:
    """Of several sizes, as an object detector would find them: regions of the photograph, each of some superpixels."""
    found = []
    for count in (4, 8, 16, 40):
        regions = slic(PICTURE, count, start_label=0)
        found += [regions == k for k in np.unique(regions)]
    return np.stack(found)


def vectors() -> np.ndarray:
    """The Gaussians along x on top, along y at the left, as bars over the photograph."""
    encoding = fp.prompt_unified_encoding(POINTS, LABELS, size=SIZE)
    out = shade()
    for row, label in zip(encoding, LABELS, strict=True):
        tone, (height, width) = (GREEN if label else RED), SIZE
        for i in range(width):
            out[: int(row[i] * 26), i] = tone
        for i in range(height):
            out[i, : int(row[width + i] * 26)] = tone
    return out


def fourier() -> np.ndarray:
    matrix = np.random.default_rng(0).standard_normal((2, 128)).astype(np.float32)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    pixels = fp.fourier_position_encoding(matrix, size=SIZE, points=np.stack([x, y], -1).reshape(-1, 2))
    click = fp.fourier_position_encoding(matrix, size=SIZE, points=POINTS[:1])
    return colour((pixels @ click[0]).reshape(SIZE) / 128, GREEN)


def mosaic(channels: np.ndarray) -> np.ndarray:
    a, b, c, d = channels[:, ::2, ::2] * 255
    grey = np.concatenate([np.concatenate([a, b], 1), np.concatenate([c, d], 1)])
    return np.repeat(grey[..., None], 3, 2)


def main() -> None:
    shown = list(panels())
    rows = -(-len(shown) // COLUMNS)
    size = COLUMNS * (SIDE + GAP) + GAP, rows * (SIDE + TEXT + GAP) + GAP
    page = Image.new("RGB", size, "white")
    pen, fonts = ImageDraw.Draw(page), (ImageFont.load_default(13), ImageFont.load_default(11))
    for k, (name, user, picture) in enumerate(shown):
        x, y = GAP + k % COLUMNS * (SIDE + GAP), GAP + k // COLUMNS * (SIDE + TEXT + GAP)
        panel = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
        page.paste(panel.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, y))
        pen.text((x, y + SIDE + 2), name, fill="black", font=fonts[0])
        pen.text((x, y + SIDE + 18), user, fill=(110, 110, 110), font=fonts[1])
    out = sys.argv[1] if len(sys.argv) > 1 else "guidance.jpg"
    page.save(out, quality=82, optimize=True)
    print(f"wrote {out}: {len(shown)} panels")


if __name__ == "__main__":
    main()
