"""A small network that segments what was clicked: a plain vision transformer on 96 x 96 pixels, after SimpleClick."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastprompt._choices import choice
from fastprompt.ops._arrays import as_array
from fastprompt.ops.guidance.click_maps import click_map
from fastprompt.ops.pruning.scoring import token_scores
from fastprompt.ops.pruning.selection import prune_tokens

SIZE, PATCH, RADIUS = 96, 8, 3  # pixels: of the picture, of a token, of a click's disk
GRID = SIZE // PATCH
DIM, DEPTH, HEADS, RATIO = 96, 6, 4, 3


class TinyClick(nn.Module):
    """Picture and clicks to logits, see :func:`fastprompt.models.tiny_click`; 666 097 parameters.

    Two maps of disks, of the positive and of the negative clicks, get patch weights of their own and are added to the
    tokens of the picture. Six transformer blocks follow, then a head that sees the pixels again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.image_patches = nn.Conv2d(3, DIM, PATCH, PATCH)
        self.click_patches = nn.Conv2d(2, DIM, PATCH, PATCH, bias=False)
        self.positions = nn.Parameter(torch.randn(1, GRID * GRID, DIM) * 0.02)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.head = Head()

    def forward(
        self,
        image: Tensor,  # (B, 3, 96, 96)
        points: Tensor,  # (B, P, 2)
        labels: Tensor,  # (B, P)
        *,
        boxes: Tensor | None = None,  # (B, N, 4)
        keep: float = 1.0,
        at: int = 1,
        score: Literal["click", "box"] = "click",
    ) -> Tensor:
        """
        Args:
            image: RGB within [0, 1].
            points: clicks (x, y), the middle of the first pixel is 0, 0.
            labels: 1 on the object, 0 off it; any other number: no click, which is how images with fewer are padded.
            boxes: (x0, y0, x1, y1), for the score "box" only: the network does not see them.
            keep: share of the tokens that go on to block ``at`` and those behind it; 1.0 changes no bit.
            at: 0 to 5, the first block with fewer tokens.
            score: which tokens stay: "click", those nearest to a positive click, or "box", to a box.

        Returns:
            (B, 1, 96, 96) logits, above 0 on the object. Tokens that were left out reach the head as they were.
        """
        check_forward(image, points, labels, boxes, at, score)
        pixels = torch.cat([2 * image - 1, click_disks(points, labels).to(image.dtype)], 1)
        patches = self.image_patches(pixels[:, :3]) + self.click_patches(pixels[:, 3:])
        x = patches.flatten(2).transpose(1, 2) + self.positions
        restore = None
        for k, block in enumerate(self.blocks):
            if k == at and keep != 1:
                x, restore = prune_tokens(x, prior(x, points, labels, boxes, score), keep=keep)
            x = block(x)
        x = x if restore is None else restore(x)
        return F.interpolate(self.head(x, pixels), size=(SIZE, SIZE), mode="bilinear", align_corners=False)

    @torch.no_grad()
    def predict(self, image: Any, points: Any, labels: Any, *, box: Any = None, **pruning: Any) -> Any:
        """The mask of a picture of any size, which is seen at 96 x 96 pixels.

        Args:
            image: (H, W) or (H, W, 3) uint8.
            points: (P, 2), clicks (x, y) in pixels of the picture. labels: (P), 1 on the object, 0 off it.
            box: (x0, y0, x1, y1) in pixels, for ``score="box"``. pruning: keep, at, score of :meth:`forward`.

        Returns:
            (H, W) bool.

        Raises:
            ValueError, TypeError: naming the argument, what it was and what is expected.
        """
        pixels = colour(image)
        height, width = pixels.shape[:2]
        clicks, kinds = check_clicks(points, labels, (height, width))
        device, dtype = self.positions.device, self.positions.dtype

        def seen_at(corners: Any) -> Tensor:
            places = (corners + 0.5) * (SIZE / width, SIZE / height) - 0.5
            return torch.from_numpy(places.astype(np.float32)).to(device)

        seen = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32)).to(device)[None] / 255
        seen = F.interpolate(seen, size=(SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True)
        boxes = None if box is None else seen_at(check_box(box).reshape(2, 2)).reshape(1, 1, 4)
        kinds = torch.from_numpy(kinds).to(device)[None]
        logits = self(seen.to(dtype), seen_at(clicks)[None], kinds, boxes=boxes, **pruning)
        full = F.interpolate(logits.float(), size=(height, width), mode="bilinear", align_corners=False)
        return (full[0, 0] > 0).cpu().numpy()


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.mlp = nn.Sequential(nn.Linear(DIM, RATIO * DIM), nn.GELU(), nn.Linear(RATIO * DIM, DIM))

    def forward(self, x: Tensor) -> Tensor:
        batch, count, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, count, 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(out.transpose(1, 2).reshape(batch, count, DIM))
        return x + self.mlp(self.norm2(x))


class Head(nn.Module):
    """Tokens, and the pixels at a stride of two, to logits at half the size of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(DIM)
        self.up = nn.ConvTranspose2d(DIM, 32, 4, 4)
        self.stem = nn.Conv2d(5, 8, 3, 2, 1)
        self.mix = nn.Conv2d(32 + 8, 32, 3, 1, 1)
        self.last = nn.Conv2d(32, 1, 3, 1, 1)

    def forward(self, x: Tensor, pixels: Tensor) -> Tensor:
        grid = self.norm(x).transpose(1, 2).unflatten(2, (GRID, GRID))
        both = torch.cat([F.gelu(self.up(grid)), self.stem(pixels)], 1)
        return self.last(F.gelu(self.mix(both)))


def click_disks(points: Tensor, labels: Tensor) -> Tensor:
    """(B, 2, 96, 96): 1 where d(pixel, a click) <= 3, of the positive and of the negative clicks."""
    disks: Tensor = click_map(points.cpu(), labels.cpu(), size=(SIZE, SIZE), encoding="disk", radius=RADIUS)
    return disks.to(points.device)


def prior(x: Tensor, points: Tensor, labels: Tensor, boxes: Tensor | None, score: str) -> Tensor:
    if score == "box":
        return token_scores(x, boxes=boxes, grid=(GRID, GRID), patch=PATCH)
    positive = points.masked_fill((labels != 1)[..., None], torch.nan)  # the others are passed over
    return token_scores(x, points=positive, grid=(GRID, GRID), patch=PATCH)


def check_forward(image: Tensor, points: Tensor, labels: Tensor, boxes: Any, at: int, score: str) -> None:
    batch = len(image) if image.ndim else 0
    if tuple(image.shape) != (batch, 3, SIZE, SIZE):
        raise ValueError(f"image must be (B, 3, {SIZE}, {SIZE}), got shape {tuple(image.shape)}")
    if not image.is_floating_point():
        raise TypeError(f"image must be floating within [0, 1], got {image.dtype}; predict takes uint8")
    if points.ndim != 3 or points.shape[0] != batch or points.shape[2] != 2:
        raise ValueError(f"points must be ({batch}, P, 2), got shape {tuple(points.shape)}")
    if labels.shape != points.shape[:2]:
        raise ValueError(f"labels must be {tuple(points.shape[:2])}, got shape {tuple(labels.shape)}")
    if isinstance(at, bool) or not isinstance(at, int) or not 0 <= at < DEPTH:
        raise ValueError(f"at must be an integer from 0 to {DEPTH - 1}, got {at!r}")
    choice("score", score, ("click", "box"))
    if score == "box" and boxes is None:
        raise ValueError("score 'box' needs a box, got None")


def colour(image: Any) -> Any:
    """(H, W, 3) uint8."""
    pixels = np.asarray(as_array("image", image))
    if pixels.dtype != np.uint8:
        raise TypeError(f"image must be uint8, got {pixels.dtype}")
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)) or 0 in pixels.shape:
        raise ValueError(f"image must be (H, W) or (H, W, 3) and not empty, got shape {pixels.shape}")
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)


def check_clicks(points: Any, labels: Any, size: tuple[int, int]) -> tuple[Any, Any]:
    clicks, kinds = np.asarray(as_array("points", points), np.float64), np.asarray(as_array("labels", labels))
    if clicks.ndim != 2 or clicks.shape[1] != 2:
        raise ValueError(f"points must be (P, 2), got shape {clicks.shape}")
    if kinds.shape != clicks.shape[:1]:
        raise ValueError(f"labels must be ({len(clicks)},), got shape {kinds.shape}")
    if not np.isin(kinds, (0, 1)).all():
        raise ValueError(f"labels must be 1 (on the object) or 0 (off it), got {kinds.tolist()}")
    if not (kinds == 1).any():
        raise ValueError("no positive click: give at least one point with the label 1")
    height, width = size
    inside = ((clicks >= 0) & (clicks < (width, height))).all(1)  # no for NaN
    if not inside.all():
        x, y = clicks[~inside][0]
        raise ValueError(f"points must be inside the image of {width} x {height} pixels (x, y from 0), got {x:g},{y:g}")
    return clicks, kinds.astype(np.int64)


def check_box(box: Any) -> Any:
    corners = np.asarray(as_array("box", box), np.float64)
    if corners.shape != (4,) or not (corners[:2] <= corners[2:]).all():
        raise ValueError(f"box must be (x0, y0, x1, y1) with x0 <= x1 and y0 <= y1, got {np.asarray(box).tolist()}")
    return corners
