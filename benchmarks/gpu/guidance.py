"""Click maps, the Euclidean distance transform and the next click. Peers of the maps: RITM's published formula (every
click's map, then the least of each sign) in torch, as it is and compiled; the distances by one ``cdist``."""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

from gpu.case import Case, Run

Made = tuple[Run, dict[str, Run], Any]
NORM = 5.0, 260.0  # RITM's radius of disks and of tanh


def ritm(coords: Any, size: tuple[int, int], radius: float, disks: bool) -> Any:
    """(B, 2 N, 3) of row, column, order to (B, 2, H, W), in float32."""
    import torch

    batch, (height, width) = len(coords), size
    points = coords[..., :2].reshape(-1, 2)
    rows = torch.arange(height, dtype=torch.float32, device=coords.device)[:, None]
    columns = torch.arange(width, dtype=torch.float32, device=coords.device)[None, :]
    dy, dx = rows - points[:, :1, None], columns - points[:, 1:, None]
    squares = dy * dy + dx * dx if disks else (dy / radius) ** 2 + (dx / radius) ** 2
    squares = torch.where((points.amax(1) < 0)[:, None, None], 1e6, squares)
    least = squares.view(batch, 2, -1, height, width).amin(2)
    return (least <= radius**2).float() if disks else (2 * least.sqrt()).tanh()


def by_cdist(coords: Any, size: tuple[int, int], radius: float, disks: bool) -> Any:
    """The same without an (N, H, W) for each step, for clicks that are all there."""
    import torch

    height, width = size
    grid = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float32, device=coords.device) for n in size))
    halves = coords[..., :2].unflatten(1, (2, -1)).flatten(0, 1)
    apart = torch.cdist(grid[None], halves, compute_mode="donot_use_mm_for_euclid_dist")  # products round too much
    least = apart.amin(-1).view(len(coords), 2, height, width)
    return (least <= radius).float() if disks else (2 * least / radius).tanh()


def clicks(size: tuple[int, int], disks: bool) -> Made:
    import torch

    from fastprompt.nn import DistMaps

    torch.manual_seed(0)
    coords = (torch.rand(1, 48, 3, device="cuda") * min(size)).round()
    image = torch.empty(1, 3, *size, device="cuda")
    radius = NORM[0 if disks else 1]
    ours = DistMaps(radius, use_disks=disks)
    compiled = torch.compile(ritm)
    peers = {
        "RITM's formula": lambda: ritm(coords, size, radius, disks),
        "compiled": lambda: compiled(coords, size, radius, disks),
        "cdist": lambda: by_cdist(coords, size, radius, disks),
    }
    return lambda: ours(image, coords), peers, None


def euclidean(shape: tuple[int, ...]) -> Made:
    import torch

    import fastprompt as fp

    torch.manual_seed(0)
    seeds = torch.rand(shape) < 1e-3
    there, peers = seeds.cuda(), {}
    if importlib.util.find_spec("cupyx"):
        import cupy
        from cupyx.scipy.ndimage import distance_transform_edt

        other = cupy.from_dlpack(~there)
        peers["cupyx"] = lambda: torch.from_dlpack(distance_transform_edt(other))
    expected = fp.euclidean_distance_transform(seeds, dims=len(shape))
    return lambda: fp.euclidean_distance_transform(there, dims=len(shape)), peers, expected


def next_click(size: tuple[int, int], whole: bool) -> Made:
    """The operator, whose answer stays on the device; `whole`: everything is an error, the dearest case."""
    import torch

    import fastprompt as fp

    rows, columns = torch.arange(size[0])[:, None], torch.arange(size[1])[None]
    target = (rows - 240) ** 2 / 2 + (columns - 400) ** 2 / 5 < 60**2
    pred = (rows - 230) ** 2 + (columns - 380) ** 2 < 50**2
    if whole:
        target, pred = torch.ones_like(target), torch.zeros_like(pred)
    first = fp.next_click(target, pred)
    expected = torch.tensor([[first.x, first.y, first.label, round(first.distance**2)]])
    here = pred[None].cuda(), target[None].cuda(), torch.zeros(1, 0, 2, dtype=torch.int32, device="cuda")
    operator = torch.ops.fastprompt.next_click.default
    return lambda: operator(*here, 0.0, -1), {}, expected


def bound(make: Callable[..., Made], *args: Any) -> Callable[[], Made]:
    return lambda: make(*args)


def cases() -> Iterator[Case]:
    for size in ((1024, 1024), (480, 854)):
        pixels = size[0] * size[1]
        for disks in (True, False):
            what = f"24 + 24 clicks, {'disks' if disks else 'tanh'}"
            shape = f"{size[0]} x {size[1]}, {what}"
            make = bound(clicks, size, disks)
            yield Case("click maps", shape, make, 8 * pixels, 48 * pixels * 5, 1, 0.0 if disks else 2e-6)
    for dims in ((1024, 1024), (2048, 2048), (128, 128, 128)):
        pixels = dims[0] * dims[1] * (dims[2] if len(dims) == 3 else 1)
        shape = " x ".join(map(str, dims))
        yield Case("Euclidean transform", shape, bound(euclidean, dims), 5 * pixels, 0, len(dims))
    for whole in (False, True):
        shape = f"480 x 854, {'all an error' if whole else 'one object'}"
        yield Case("next click", shape, bound(next_click, (480, 854), whole), 2 * 480 * 854, 0, 2)
