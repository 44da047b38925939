"""Drop-in for RITM's maps of clicks.

RITM, SimpleClick, ClickSEG, PVPUFormer and f-BRS are repositories to fork, not packages: their ``DistMaps`` is known by
its name, attributes and signature, in whatever module it lies.
"""

import functools
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from fastprompt._drop_ins import original
from fastprompt.nn.dist_maps import dist_maps, no_kernel
from fastprompt.nn.parts.host_path import falls_back
from fastprompt.nn.parts.known import unknown

ATTRIBUTES = {"norm_radius", "spatial_scale", "cpu_mode", "use_disks"}
SIGNATURE = ["self", "points", "batchsize", "rows", "cols"]


class Accelerated(nn.Module):
    """Mixin of a host's ``DistMaps``."""

    norm_radius: float
    spatial_scale: float

    @classmethod
    def unsupported(cls, host: Any) -> str | None:
        own = {name for name in vars(host) if not name.startswith("_")} - {"training"}
        method = getattr(type(host), "get_coord_features", None)
        if method is None or list(inspect.signature(method).parameters) != SIGNATURE or own - ATTRIBUTES:
            return "it is another DistMaps than RITM's"
        if not {"norm_radius", "spatial_scale"} <= own or not (host.norm_radius > 0 and host.spatial_scale > 0):
            return "it has no positive norm_radius and spatial_scale"
        if getattr(host, "cpu_mode", False):
            return "its cpu_mode is an approximate search, which rounds the clicks: set cpu_mode = False first"
        return None if gives_our_maps(host) else "its maps are others than RITM's"

    def get_coord_features(self, points: Tensor, batchsize: int, rows: int, cols: int) -> Any:
        if falls_back(self, self.refusal(points)):
            return super().get_coord_features(points, batchsize, rows, cols)  # type: ignore[misc]
        disks = bool(getattr(self, "use_disks", False))
        return dist_maps(points, (rows, cols), self.norm_radius, self.spatial_scale, disks, False)

    def refusal(self, points: Tensor) -> str | None:
        """Why a call is not covered; None: it is."""
        if why := unknown(self, points):
            return why
        if getattr(self, "cpu_mode", False):
            return "cpu_mode is on"
        if why := no_kernel(points):
            return why
        if points.dtype == torch.float64:
            return "it computes in float32 only"
        if points.dim() != 3 or points.shape[2] not in (2, 3) or points.shape[1] % 2 or points.shape[1] == 0:
            return "coords is not (B, 2 N, 2 or 3)"
        if torch.is_grad_enabled() and points.requires_grad:
            return "coords requires a gradient"
        return None

    def __reduce_ex__(self, protocol: Any) -> Any:
        return rebuilt, (type(self).__bases__[-1],), self.__dict__


EXAMPLE = torch.tensor([[[1.0, 2.0, 0.0], [-1.0, -1.0, -1.0], [3.5, 0.0, 1.0], [4.0, 4.0, 2.0]]])


def gives_our_maps(host: Any) -> bool:
    """Forks change the formula and keep the name: both are asked for maps of 5 x 6 pixels."""
    disks, sizes = bool(getattr(host, "use_disks", False)), (host.norm_radius, host.spatial_scale)
    theirs = original(type(host)).get_coord_features(host, EXAMPLE.clone(), 1, 5, 6)  # type: ignore[attr-defined]
    ours = dist_maps(EXAMPLE, (5, 6), *sizes, disks, False)
    return theirs.shape == ours.shape and torch.allclose(theirs.float(), ours, atol=1e-4)


@functools.cache
def drop_in(host: type) -> Any:
    """A subclass of ``host``, a ``DistMaps`` of somebody."""
    return type("DistMaps", (Accelerated, host), {"__module__": __name__, "__doc__": Accelerated.__doc__})


def rebuilt(host: type) -> Any:
    """For pickles and copies."""
    cls = drop_in(host)
    return cls.__new__(cls)
