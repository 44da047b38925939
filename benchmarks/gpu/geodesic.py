"""Geodesic distance: pictures, a batch, a volume. What it must give is what the CPU gives, bit for bit."""

import functools
import importlib.util
import math
from collections.abc import Iterator
from typing import Any

from gpu.case import Case, Run


def cases() -> Iterator[Case]:
    for channels in (1, 3):
        for size in (512, 1024, 2048):
            for method in ("raster", "exact"):
                yield case(method, (1, channels, size, size))
    for method in ("raster", "exact"):
        yield case(method, (16, 3, 512, 512))
        yield case(method, (1, 1, 128, 128, 128))


def case(method: str, shape: tuple[int, ...]) -> Case:
    batch, channels, *sizes = shape
    name = f"{batch} x {channels} channels, " if batch > 1 else f"{channels} channels, "
    return Case(
        operator=f"geodesic_distance, {method}",
        shape=name + " x ".join(map(str, sizes)),
        make=lambda: make(method, shape),
        bytes=4.0 * batch * math.prod(sizes) * (channels + 2),
        flops=0.0,  # comparisons and additions, none of them on the matrix units
        # Costs, and four sweeps and two turns an iteration; the others a memset and a kernel.
        launches=13 if method == "raster" and len(sizes) == 2 else 2,
    )


def make(method: str, shape: tuple[int, ...]) -> tuple[Run, dict[str, Run], Any]:
    """A noisy scene with edges and one click in its middle."""
    import torch

    import fastprompt as fp

    batch, _, *sizes = shape
    generator = torch.Generator().manual_seed(0)
    image = 0.1 * torch.rand(shape, generator=generator)
    coarse = torch.rand((*shape[:2], *(1 + s // 64 for s in sizes)), generator=generator)
    image += torch.nn.functional.interpolate(coarse, tuple(sizes))
    seeds = torch.zeros((batch, 1, *sizes))
    seeds[(..., *(s // 2 for s in sizes))] = 1
    options: dict[str, Any] = {"method": method, "lam": 0.5, "dims": len(sizes)}
    expected = fp.geodesic_distance(image, seeds, **options)
    on_gpu, mask = image.cuda(), seeds.cuda()
    return lambda: fp.geodesic_distance(on_gpu, mask, **options), peers(method, on_gpu, mask), expected


def peers(method: str, image: Any, seeds: Any) -> dict[str, Run]:
    """FastGeodis on its CUDA kernels, where it is built with them and takes the case. It races between its blocks."""
    if method != "raster" or len(image) > 1 or importlib.util.find_spec("FastGeodis") is None:
        return {}
    import FastGeodis

    if image.ndim == 4:
        call = functools.partial(FastGeodis.generalised_geodesic2d, image, 1 - seeds, 1e10, 0.5, 2)
    else:
        call = functools.partial(FastGeodis.generalised_geodesic3d, image, 1 - seeds, [1.0] * 3, 1e10, 0.5, 4)
    try:
        call()
    except RuntimeError:  # built without CUDA
        return {}
    return {"FastGeodis": call}
