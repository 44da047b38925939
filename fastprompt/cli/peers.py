"""Who ``bench`` measures: our functions, and the installed packages that do the same, or nearly so.

A peer is a function ``(case, threads) -> thunk``. What it does before it returns the thunk (imports, the peer's own
array layout, graphs) is not timed; the thunk's allocations and outputs are.
"""

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import fastprompt as fp
from fastprompt.ops.geodesic.grid import Method, Metric

V = 1e10  # FastGeodis' usual start value of pixels that are no seeds


@dataclass(frozen=True)
class Case:
    """One picture and its seeds."""

    name: str
    image: Any  # (C, [D,] H, W) float32, 0..255
    seeds: Any  # ([D,] H, W) bool

    @property
    def dims(self) -> int:
        return int(self.seeds.ndim)

    @property
    def iterations(self) -> int:
        return 2 if self.dims == 2 else 4  # FastGeodis' defaults


Thunk = Callable[[], Any]
Make = Callable[[Case, int], Thunk]


@dataclass(frozen=True)
class Peer:
    """``compare``: "bits" = must have our bits, "error" = the same quantity, "speed" = another quantity."""

    name: str
    package: str
    make: Make
    compare: str
    note: str = ""
    dims: tuple[int, ...] = (2, 3)

    @property
    def version(self) -> str | None:
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None


@dataclass(frozen=True)
class Group:
    """One of our functions, and the peers to be measured against it."""

    family: str
    name: str
    ours: Callable[[Case], Any]
    peers: list[Peer] = field(default_factory=list)


def load(name: str) -> Any:
    return importlib.import_module(name)


def roughness(case: Case) -> Any:
    """The cost of a pixel, for peers whose costs sit on pixels instead of on edges."""
    axes = tuple(range(1, case.image.ndim))
    return 0.01 + sum(np.abs(g).sum(axis=0) for g in np.gradient(case.image, axis=axes))


def fastgeodis(suffix: str) -> Make:
    def make(case: Case, threads: int) -> Thunk:
        torch, peer = load("torch"), load("FastGeodis")
        torch.set_num_threads(threads)
        image = torch.from_numpy(case.image)[None]
        mask = torch.from_numpy(1 - case.seeds.astype(np.float32))[None, None]
        call = getattr(peer, f"generalised_geodesic{case.dims}d{suffix}")
        spacing = [[1.0, 1.0, 1.0]] if case.dims == 3 else []
        return lambda: call(image, mask, *spacing, V, 1.0, case.iterations).numpy()[0, 0]

    return make


def geodistk(scan: str) -> Make:
    def make(case: Case, threads: int) -> Thunk:
        peer = load("GeodisTK")
        image = np.ascontiguousarray(np.moveaxis(case.image, 0, -1))
        if case.dims == 2 and image.shape[-1] == 1:
            image = np.ascontiguousarray(image[..., 0])
        call = getattr(peer, f"geodesic{case.dims}d_{scan}")
        spacing = [np.ones(3, np.float32)] if case.dims == 3 else []
        options = [1.0, case.iterations] if scan == "raster_scan" else []
        seeds = case.seeds.astype(np.uint8)
        return lambda: call(image, seeds, *spacing, *options)

    return make


def csgraph(case: Case, threads: int) -> Thunk:
    """The graph of pixels with FastGeodis' edge costs at lam = 1; its construction is not timed."""
    sparse, graph = load("scipy.sparse"), load("scipy.sparse.csgraph")
    index, rows, columns, costs = np.arange(case.seeds.size).reshape(case.seeds.shape), [], [], []
    for offset in np.ndindex((3,) * case.dims):
        to = tuple(slice(max(0, o - 1), n + min(0, o - 1)) for o, n in zip(offset, case.seeds.shape, strict=True))
        of = tuple(slice(max(0, 1 - o), n + min(0, 1 - o)) for o, n in zip(offset, case.seeds.shape, strict=True))
        if to != of:
            rows.append(index[to].ravel())
            columns.append(index[of].ravel())
            costs.append(np.abs(case.image[(slice(None), *to)] - case.image[(slice(None), *of)]).sum(axis=0).ravel())
    weights = np.maximum(np.concatenate(costs).astype(np.float64), 1e-12)  # csgraph takes a zero for no edge
    table = sparse.csr_array((weights, (np.concatenate(rows), np.concatenate(columns))))
    sources = np.flatnonzero(case.seeds)
    return lambda: graph.dijkstra(table, indices=sources, min_only=True).reshape(case.seeds.shape)


def scikit_fmm(case: Case, threads: int) -> Thunk:
    peer, phi, speed = load("skfmm"), np.where(case.seeds, -1.0, 1.0), 1 / roughness(case).astype(np.float64)
    return lambda: peer.travel_time(phi, speed, order=1)


def simpleitk_marching(case: Case, threads: int) -> Thunk:
    peer = load("SimpleITK")
    peer.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    speed = peer.GetImageFromArray((1 / roughness(case)).astype(np.float32))
    march = peer.FastMarchingImageFilter()
    march.SetTrialPoints([tuple(int(k) for k in p[::-1]) for p in np.argwhere(case.seeds)])
    march.SetStoppingValue(1e30)
    return lambda: peer.GetArrayFromImage(march.Execute(speed))


def dijkstra3d(case: Case, threads: int) -> Thunk:
    peer, field = load("dijkstra3d"), np.asfortranarray(roughness(case).astype(np.float32))
    sources = [tuple(int(k) for k in p) for p in np.argwhere(case.seeds)]
    if case.dims == 3:
        return lambda: peer.distance_field(field, source=sources, connectivity=26)
    return lambda: peer.distance_field(field, source=sources[0])


def mcp(case: Case, threads: int) -> Thunk:
    graph, cost = load("skimage.graph"), roughness(case).astype(np.float64)
    sources = [tuple(p) for p in np.argwhere(case.seeds)]
    return lambda: graph.MCP_Geometric(cost).find_costs(sources)[0]


def scipy_edt(case: Case, threads: int) -> Thunk:
    peer, background = load("scipy.ndimage"), ~case.seeds
    return lambda: peer.distance_transform_edt(background)


def edt(case: Case, threads: int) -> Thunk:
    peer, background = load("edt"), (~case.seeds).astype(np.uint8)
    return lambda: peer.edt(background, parallel=threads)


def opencv(case: Case, threads: int) -> Thunk:
    peer, background = load("cv2"), (~case.seeds).astype(np.uint8)
    peer.setNumThreads(threads)
    return lambda: peer.distanceTransform(background, peer.DIST_L2, peer.DIST_MASK_PRECISE)


def simpleitk_maurer(case: Case, threads: int) -> Thunk:
    peer = load("SimpleITK")
    peer.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    seeds = peer.GetImageFromArray(case.seeds.astype(np.uint8))
    maurer = peer.SignedMaurerDistanceMapImageFilter()
    maurer.SquaredDistanceOff()
    return lambda: np.maximum(peer.GetArrayFromImage(maurer.Execute(seeds)), 0)


def geodesic(metric: Metric, method: Method) -> Callable[[Case], Any]:
    def call(case: Case) -> Any:
        options: dict[str, Any] = {"metric": metric, "method": method, "iterations": case.iterations, "v": V}
        return fp.geodesic_distance(case.image, case.seeds, dims=case.dims, **options)

    return call


def euclidean(case: Case) -> Any:
    return fp.euclidean_distance_transform(case.seeds, dims=case.dims)


EIKONAL, NODES = "eikonal, costs on pixels", "costs on pixels"
GROUPS = [
    Group(
        "geodesic",
        "raster",
        geodesic("fastgeodis", "raster"),
        [Peer("FastGeodis raster", "fastgeodis", fastgeodis(""), "bits")],
    ),
    Group(
        "geodesic",
        "toivanen",
        geodesic("fastgeodis", "toivanen"),
        [Peer("FastGeodis toivanen", "fastgeodis", fastgeodis("_toivanen"), "bits")],
    ),
    Group(
        "geodesic",
        "exact",
        geodesic("fastgeodis", "exact"),
        [
            Peer("scipy csgraph.dijkstra", "scipy", csgraph, "error", "float64, the graph is given"),
            Peer("scikit-fmm travel_time", "scikit-fmm", scikit_fmm, "speed", EIKONAL),
            Peer("SimpleITK FastMarching", "simpleitk", simpleitk_marching, "speed", EIKONAL),
            Peer("dijkstra3d distance_field", "dijkstra3d", dijkstra3d, "speed", NODES),
            Peer("skimage MCP_Geometric", "scikit-image", mcp, "speed", NODES),
        ],
    ),
    Group(
        "geodesic",
        "geodistk toivanen",
        geodesic("geodistk", "toivanen"),
        [Peer("GeodisTK raster_scan", "GeodisTK", geodistk("raster_scan"), "error")],
    ),
    Group(
        "geodesic",
        "geodistk_fm exact",
        geodesic("geodistk_fm", "exact"),
        # Its queue takes quadratic time: 7 s for a volume of 48 x 48 x 48.
        [Peer("GeodisTK fast_marching", "GeodisTK", geodistk("fast_marching"), "error", dims=(2,))],
    ),
    Group(
        "euclidean",
        "euclidean",
        euclidean,
        [
            Peer("edt", "edt", edt, "error"),
            Peer("scipy distance_transform_edt", "scipy", scipy_edt, "error"),
            Peer("OpenCV distanceTransform", "opencv-python-headless", opencv, "error", "DIST_MASK_PRECISE", (2,)),
            Peer("SimpleITK SignedMaurer", "simpleitk", simpleitk_maurer, "error"),
        ],
    ),
]
