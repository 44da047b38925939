"""RITM's maps of clicks, as a module of ours."""

import torch
from torch import Tensor, nn

from fastprompt import _gpu
from fastprompt.ops.guidance.click_sets import BOTH, ENCODINGS, Clicks, Encoding, arguments, as_the_cython_path
from fastprompt.ops.guidance.operators import click_map

EMPTY = 1e6  # squared distance of an empty slot in RITM: 1000 pixels in disks, whatever the radius


def dist_maps(points: Tensor, size: tuple[int, int], radius: float, scale: float, disks: bool, cython: bool) -> Tensor:
    """(B, 2 N, 2 or 3) of row, column[, order], positive clicks first, to (B, 2, H, W)."""
    clicks = points[..., :2] if cython or scale == 1 else points[..., :2] * scale
    xy = clicks.flip(-1).float()
    xy = as_the_cython_path(xy) if cython else xy
    labels = torch.zeros(points.shape[1], dtype=torch.int64, device=points.device)
    labels[: points.shape[1] // 2] = 1
    labels = labels.expand(points.shape[0], -1)
    reach = radius * scale
    code = ENCODINGS.index("disk" if disks else "tanh")
    encoding, missing = Encoding(code, (reach**2 if disks else 2 / reach,)), EMPTY if disks else float("inf")
    maps: Tensor = click_map(*arguments(Clicks(xy, labels, BOTH, True), encoding, size, missing))
    return maps


def no_kernel(points: Tensor) -> str | None:
    """Why these clicks cannot become maps where they are."""
    if points.is_cuda:
        return None if _gpu.has_triton() else "triton is not installed: pip install triton"
    return None if points.device.type == "cpu" else "there is no kernel for this device"


class DistMaps(nn.Module):
    """Maps of positive and negative clicks as RITM's ``isegm.model.ops.DistMaps`` makes them, the same bits of disks.

    Args:
        norm_radius: of a disk, or where the distance has become tanh(2). spatial_scale: of coordinates and radius.
        cpu_mode: clicks as RITM's Cython path takes them: rounded, not scaled, and empty where the row is negative.
            Distances are exact, where that path searches and is up to 0.06 pixels off.
        use_disks: disks, else tanh.

    ``forward(x, coords)``: ``x`` gives the size; ``coords`` is (B, 2 N, 2 or 3) of **(row, column**, order), N positive
    clicks and then N negative ones, an empty slot where both coordinates are negative. Returns (B, 2, H, W) float32.
    An empty slot counts as 1000 pixels away, as in RITM. No gradient by ``coords``.
    """

    def __init__(
        self, norm_radius: float, spatial_scale: float = 1.0, cpu_mode: bool = False, use_disks: bool = False
    ) -> None:
        super().__init__()
        if not norm_radius > 0 or not spatial_scale > 0:
            raise ValueError(f"norm_radius and spatial_scale must be > 0, got {norm_radius!r} and {spatial_scale!r}")
        self.norm_radius, self.spatial_scale = norm_radius, spatial_scale
        self.cpu_mode, self.use_disks = cpu_mode, use_disks

    def get_coord_features(self, points: Tensor, batchsize: int, rows: int, cols: int) -> Tensor:
        if not isinstance(points, Tensor):
            raise TypeError(f"coords must be a tensor, got {type(points).__name__}")
        if points.dim() != 3 or points.shape[2] not in (2, 3) or points.shape[1] % 2:
            raise ValueError(f"coords must be (B, 2 N, 2 or 3) of row, column[, order], got {tuple(points.shape)}")
        why = no_kernel(points)
        if why:
            raise ValueError(f"coords is on {points.device}: {why}")
        options = self.norm_radius, self.spatial_scale, self.use_disks, self.cpu_mode
        return dist_maps(points.detach(), (rows, cols), *options)

    def forward(self, x: Tensor, coords: Tensor) -> Tensor:
        if len(getattr(x, "shape", ())) != 4:
            raise ValueError(f"x must be (B, C, H, W), got {tuple(x.shape) if hasattr(x, 'shape') else x!r}")
        return self.get_coord_features(coords, x.shape[0], x.shape[2], x.shape[3])
