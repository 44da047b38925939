"""The channels that a network takes, from every kind of prompt, in one array."""

import sys
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

from fastprompt import _gpu
from fastprompt._choices import choice
from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array
from fastprompt.ops._checks import check_devices
from fastprompt.ops.guidance import operators
from fastprompt.ops.guidance.boxes import check_boxes
from fastprompt.ops.guidance.call import check_finite
from fastprompt.ops.guidance.click_sets import (
    ClickEncoding,
    arguments,
    array,
    axes,
    check_clicks,
    check_encoding,
    check_positive,
    check_size,
)
from fastprompt.ops.guidance.strokes import check_strokes, scribble_map

__all__ = ["compose_guidance"]

BoxEncoding = Literal["map", "distance"]
Fill = Callable[[Any], None]  # writes its channels into a view (B, C, H, W)


def compose_guidance(
    *,
    size: tuple[int, int],
    image: Any = None,  # ([B,] C, H, W)
    previous_mask: Any = None,  # ([B,] C, H, W)
    points: Any = None,  # ([B,] N, 2), or a list of B arrays
    labels: Any = None,  # ([B,] N)
    encoding: ClickEncoding = "disk",
    click_options: dict[str, Any] | None = None,
    boxes: Any = None,  # ([B,] N, 4)
    box_encoding: BoxEncoding = "map",
    scribbles: Any = None,  # list of strokes (N_s, 2), or a list of such lists
    scribble_labels: Any = None,  # (S), or a list of such
    thickness: float = 1.0,
) -> Any:
    """Stacks what is given, in this order: image, previous mask, clicks, boxes, scribbles. Every map is computed where
    it belongs in the result: there is no other memory.

    RITM's input is ``compose_guidance(size=…, previous_mask=…, points=…, labels=…)``: three channels.

    Args:
        size: (height, width).
        image, previous_mask: copied as they are, converted to float32.
        points, labels, encoding, click_options: as of :func:`click_map`, whose other options are in the dictionary.
        boxes: as of :func:`box_map`, one channel. box_encoding: "map" or "distance", the signed distance.
        scribbles, scribble_labels, thickness: as of :func:`scribble_map`; of a batch, a list for each image.

    Returns:
        ``([B,] C, H, W)`` float32; torch in, torch out. Either all arguments have a batch axis or none. Differentiable
        by image and previous mask.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> fp.compose_guidance(size=(2, 3), previous_mask=np.ones((1, 2, 3)), points=[[0, 0]], labels=[1],
        ...                     click_options={"radius": 1}, boxes=[[1, 0, 2, 1]]).astype(int).tolist()
        [[[1, 1, 1], [1, 1, 1]], [[1, 1, 0], [1, 0, 0]], [[0, 0, 0], [0, 0, 0]], [[0, 1, 1], [0, 1, 1]]]
    """
    size = check_size(size)
    parts: list[Part] = []
    for name, x in (("image", image), ("previous_mask", previous_mask)):
        if x is not None:
            parts.append(copied(name, x, size))
    if points is not None:
        parts.append(clicked(points, labels, encoding, click_options or {}, size))
    if boxes is not None:
        parts.append(boxed(boxes, box_encoding, size))
    if scribbles is not None:
        parts.append(scribbled(scribbles, scribble_labels, thickness, size))
    if not parts:
        raise ValueError("compose_guidance needs at least one of image, previous_mask, points, boxes, scribbles")
    return stacked(parts, size)


class Part:
    """Channels of the result: how many, of which kind of array, and how to write them, or to get them anew."""

    def __init__(self, name: str, x: Any, batch: int | None, channels: int, fill: Fill, new: Callable[[], Any]) -> None:
        self.name, self.x, self.batch, self.channels, self.fill, self.new = name, x, batch, channels, fill, new


def copied(name: str, x: Any, size: tuple[int, int]) -> Part:
    x = as_array(name, x)
    if x.ndim not in (3, 4) or tuple(x.shape[-2:]) != size:
        raise ValueError(f"{name} must be ([B,] C, H, W) with the size {size}, got shape {tuple(x.shape)}")
    whole = x if x.ndim == 4 else x[None]

    def fill(out: Any) -> None:
        if is_tensor(out):
            out.copy_(whole)
        else:
            out[...] = whole

    return Part(name, x, len(x) if x.ndim == 4 else None, whole.shape[1], fill, lambda: whole.float())


def clicked(points: Any, labels: Any, encoding: str, options: dict[str, Any], size: tuple[int, int]) -> Part:
    known = {"radius", "sigma", "sigma_unit", "clip", "normalize", "channels", "rounding"}
    if set(options) - known:
        raise ValueError(f"click_options must be among {', '.join(sorted(known))}, got {sorted(set(options) - known)}")
    own = dict.fromkeys(("radius", "sigma", "sigma_unit", "clip", "normalize")) | options
    c = check_clicks(points, labels, own.pop("channels", None), own.pop("rounding", None))
    e = check_encoding(encoding, size, **own)
    given = arguments(c, e, size)
    return Part(
        "points",
        c.points,
        len(c.points) if c.batched else None,
        len(c.channels) * len(e.scales),
        lambda out: operators.click_map.into(out, *given),
        lambda: operators.click_map(*given),
    )


def boxed(boxes: Any, encoding: str, size: tuple[int, int]) -> Part:
    choice("box_encoding", encoding, get_args(BoxEncoding))
    corners, batched = check_boxes(boxes)
    options = (size, False, 0.0, -np.inf, np.inf) if encoding == "map" else (size, True, 128.0, 0.0, 255.0)
    return Part(
        "boxes",
        corners,
        len(corners) if batched else None,
        1,
        lambda out: operators.box_map.into(out, corners, *options),
        lambda: operators.box_map(corners, *options),
    )


def scribbled(scribbles: Any, labels: Any, thickness: float, size: tuple[int, int]) -> Part:
    """One image's strokes are arrays, a batch is a list of lists of them."""
    if not isinstance(scribbles, (list, tuple)):
        raise TypeError(f"scribbles must be a list of strokes (N, 2), got {type(scribbles).__name__}")
    batched = bool(scribbles) and all(isinstance(s, (list, tuple)) and all(axes(p) == 2 for p in s) for s in scribbles)
    images = list(scribbles) if batched else [scribbles]
    kinds = labels if batched and labels is not None else [labels] * len(images)
    if len(kinds) != len(images):
        raise ValueError(f"scribble_labels must have labels for each of {len(images)} images, got {len(kinds)}")
    checked = [check_strokes(s, k, None) for s, k in zip(images, kinds, strict=True)]
    radius = check_positive("thickness", thickness)[0] / 2
    if any(_gpu.is_cuda(points) for points, *_ in checked):
        raise ValueError(
            "scribbles are drawn on the CPU, got tensors on a GPU: call scribble_map, and .cuda() on its map"
        )
    sample = next((points for points, *_ in checked if is_tensor(points)), None)

    def fill(out: Any) -> None:
        for b, (points, first, kind, channels) in enumerate(checked):
            check_finite("scribbles", array(points))
            operators.scribble_map.into(out[b], points, first, kind, list(channels), size, radius)

    def new() -> Any:
        maps = [scribble_map(s, k, size=size, thickness=thickness) for s, k in zip(images, kinds, strict=True)]
        torch = sys.modules["torch"]
        return torch.stack([torch.as_tensor(m) for m in maps])

    return Part("scribbles", sample, len(images) if batched else None, len(checked[0][3]), fill, new)


def stacked(parts: list[Part], size: tuple[int, int]) -> Any:
    batches = {p.name: p.batch for p in parts}
    if len(set(batches.values())) > 1:
        raise ValueError(f"batch sizes must be the same in all arguments, got {batches}")
    batch, like = parts[0].batch, next((p.x for p in parts if p.x is not None), None)
    if like is not None:
        check_devices(**{p.name: p.x for p in parts if p.x is not None})
    torch, device = (sys.modules["torch"], like.device) if like is not None and is_tensor(like) else (None, None)
    if torch and torch.compiler.is_compiling():
        out = torch.cat([p.new() for p in parts], 1)
        return out if batch is not None else out[0]
    shape = (1 if batch is None else batch, sum(p.channels for p in parts), *size)
    out = torch.empty(shape, dtype=torch.float32, device=device) if torch else np.empty(shape, np.float32)
    begin = 0
    for p in parts:
        p.fill(out[:, begin : begin + p.channels])
        begin += p.channels
    return out if batch is not None else out[0]
