"""The tests of csrc/geodesic/cuda_*.cu can fail: PTX without one barrier, or without a wait, is found out."""

import re

import numpy as np
import pytest
import test_geodesic_cuda as geodesic
from ptx import Fault, Kernel, Module
from ptx.build import cuda_ptx


def entry(method, volume=False):
    """(text before, text, text behind) of the kernel with the metric fastgeodis."""
    text = cuda_ptx(f"csrc/geodesic/cuda_{method}.cu", 80, "-fmad=false")
    start = re.search(rf"\.entry \w*MetricE0ELb{int(volume)}E", text).start()
    end = text.index("\n}\n", start)
    return text[:start], text[start:end], text[end:]


def is_found_out(monkeypatch, method, text, pictures, **options):
    """Does the altered kernel fault, or give other bits than the CPU?"""
    image, start = pictures
    kernel = Kernel(Module(text), next(n for n in Module(text).entries if f"MetricE0ELb{image.ndim - 4}E" in n))
    monkeypatch.setattr(geodesic, "kernel", lambda *args: kernel)
    try:
        got = geodesic.run(method, image, start, iterations=1, **options)
    except Fault:
        return True
    return not np.array_equal(got, geodesic.cpu(method, image, start, iterations=1))


LINES_OF_VOLUMES = 4


def late(channels, *pixels):
    """A picture with its seed in the last corner: the block that has the first tile is done long before the other."""
    image, start = geodesic.pictures(np.random.default_rng(0), 1, channels, 1, *pixels)
    start[:] = 0
    start[..., -1] = 1
    return image, start


@pytest.mark.parametrize("volume", [False, True])
def test_a_missing_barrier(monkeypatch, volume):
    """Of the exact kernel each is missed, in lock-step or where one block is ahead."""
    before, text, behind = entry("exact", volume)
    barriers = list(re.finditer(r"\n\s*bar\.sync[^;]*;", text))
    assert len(barriers) >= 5
    pictures = late(2, 3, 9, 9) if volume else late(2, 34, 40)
    for barrier in barriers:
        altered = before + text[: barrier.start()] + text[barrier.end() :] + behind
        assert any(
            is_found_out(monkeypatch, "exact", altered, pictures, blocks=2, order=order) for order in (None, "forward")
        )


def test_a_missing_barrier_of_the_raster_scan(monkeypatch):
    """Those between the lines and around the staging are missed; not all of those around the flags are."""
    before, text, behind = entry("raster", volume=True)
    barriers = list(re.finditer(r"\n\s*bar\.sync[^;]*;", text))
    found = []
    for barrier in barriers:
        altered = before + text[: barrier.start()] + text[barrier.end() :] + behind
        found.append(is_found_out(monkeypatch, "raster", altered, late(2, 3, 3, 3)))
    assert sum(found) >= LINES_OF_VOLUMES + 2


@pytest.mark.parametrize("method", ["raster", "exact"])
def test_a_missing_wait_for_other_blocks(rng, monkeypatch, method):
    before, text, behind = entry(method, volume=method == "raster")
    altered, count = re.subn(r"ld\.acquire\.gpu\.global\.s32 (%r\d+), \[[^;]*;", r"mov.b32 \1, 2147483647;", text)
    assert count
    pictures = late(1, 9, 3, 17) if method == "raster" else geodesic.pictures(rng, 1, 1, 1, 34, 40)
    assert not is_found_out(monkeypatch, method, before + text + behind, pictures, order="reverse")
    found = [
        is_found_out(monkeypatch, method, before + altered + behind, pictures, order=order)
        for order in ("forward", "reverse")
    ]
    assert any(found)


def test_a_size_that_is_too_large(rng):
    image, start = geodesic.pictures(rng, 1, 1, 1, 8, 8)
    with pytest.raises(Fault, match="out of bounds"):
        geodesic.run("exact", image, start[:, :, :, :7].copy())
