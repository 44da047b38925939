"""The files of ``segment``: pictures and scribbles in, masks and overlays out. Every error names its file."""

import os
from pathlib import Path
from typing import Any

from fastprompt.cli import UserError, needs


def load(path: str | None, built_in: str) -> tuple[str, Any]:
    """What to call it, and the pixels (H, W, 3) uint8, of a picture file, or of a picture of scikit-image."""
    if path is not None:
        image = pillow(path)
        dropped = ", its transparency dropped" if see_through(image) else ""
        return path + dropped, array(image, "RGB")
    try:
        from skimage import data
    except ImportError:
        raise needs("scikit-image") from None
    return f"built-in picture (skimage.data.{built_in})", getattr(data, built_in)()


def load_scribbles(path: str, size: tuple[int, int]) -> Any:
    """Positive and negative strokes (2, H, W) of a scribble picture."""
    import numpy as np

    image = pillow(path)
    marks = array(image, "L" if image.mode in ("L", "1") else "RGBA")
    if marks.shape[:2] != size:
        wrong, right = ("{1} x {0}".format(*shape) for shape in (marks.shape, size))
        raise UserError(f"{path}: scribbles must be {right} pixels like the picture, got {wrong}")
    if marks.ndim == 2:
        strokes = np.stack([marks == 255, marks == 128])
    else:
        red, green, blue, alpha = (marks[..., k] for k in range(4))
        strong = (alpha > 127) & (blue < 128)  # anti-aliased rims and other colours mean nothing
        strokes = np.stack([strong & (green > 127) & (red < 128), strong & (red > 127) & (green < 128)])
    if not strokes.any():
        raise UserError(f"{path}: no strokes; green or grey 255 is on the object, red or grey 128 off it")
    return strokes


def pillow(path: str) -> Any:
    """A picture file as a PIL image, upright, its numbers read."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise needs("pillow") from None
    try:
        with Image.open(path) as file:
            return ImageOps.exif_transpose(file)  # clicks mean what a viewer shows
    except UnidentifiedImageError:
        raise UserError(f"{path}: not a picture that pillow can read") from None
    except Exception as error:  # pillow's readers raise what they like for a damaged file
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise UserError(f"{path}: {str(error) or type(error).__name__}") from None


def array(image: Any, mode: str) -> Any:
    """Pixels of a PIL image, uint8."""
    import numpy as np
    from PIL import Image

    if image.mode[0] in "IF":  # 16 bits or floats: their range becomes 0..255
        values = np.asarray(image, np.float64)
        values = (values - values.min()) * (255 / max(np.ptp(values), 1e-30))
        image = Image.fromarray(values.astype(np.uint8))
    return np.asarray(image.convert(mode))


def see_through(image: Any) -> bool:
    """Is any pixel less than opaque?"""
    if "transparency" not in image.info and not {"A", "a"} & set(image.getbands()):
        return False
    return image.convert("RGBA").getchannel("A").getextrema()[0] < 255


def check_outputs(*paths: str) -> None:
    """What ``save`` would refuse is said before the work."""
    try:
        from PIL import Image
    except ImportError:
        raise needs("pillow") from None
    Image.init()
    for path in paths:
        folder, suffix = Path(path).parent, Path(path).suffix.lower()
        if Image.EXTENSION.get(suffix) not in Image.SAVE:
            raise UserError(f"{path}: unknown kind of picture; use a name such as mask.png")
        if not folder.is_dir():
            raise UserError(f"{path}: there is no folder {folder}")
        if Path(path).is_dir():
            raise UserError(f"{path}: is a folder")
        if not os.access(path if Path(path).exists() else folder, os.W_OK):
            raise UserError(f"{path}: no permission to write it")
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise UserError(f"{paths[0]}: mask and overlay must be two files")


def save(images: dict[str, Any]) -> None:
    """PIL images by the name of their file."""
    for path, image in images.items():
        image.save(path)
        print(f"wrote    {path}")
