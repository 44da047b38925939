"""The tests of csrc/geodesic/cuda_*.cu can fail: PTX without one barrier, or without a wait, is found out."""

import re

import numpy as np
import pytest
import test_geodesic_cuda as geodesic
from ptx import Fault, Kernel, Module
from ptx.build import ROOT, cuda_ptx


def entry(method, volume=False):
    """(text before, text, text behind) of the kernel with the metric fastgeodis."""
    name = "raster_volume" if method == "raster" else method
    text = cuda_ptx(f"csrc/geodesic/cuda_{name}.cu", 80, "-fmad=false")
    start = text.index(f".entry {geodesic.entry(geodesic.module(method, volume), 'fastgeodis', volume)}")
    end = text.index("\n}\n", start)
    return text[:start], text[start:end], text[end:]


def is_found_out(monkeypatch, method, text, pictures, **options):
    """Does the altered kernel fault, or give other bits than the CPU?"""
    image, start = pictures
    module = Module(text)
    kernel = Kernel(module, geodesic.entry(module, "fastgeodis", image.ndim == 5))
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


MISTAKES = {  # of csrc/geodesic/cuda_raster.cu and raster_layout.cuh
    "nobody waits for the neighbours' line": ("while (!(is_of(low.first, s_.number)", "while (false && !(is_of(low.first, s_.number)"),
    "the line of another sweep will do": ("return int(word >> 32) == sweep", "return int(word >> 32) >= 1"),
    "the words are not cleared": ("w.words[n] = 0;", ";"),
    "the margin is too small": ("kTile = kLanes - 2 * kLines", "kTile = kLanes - kLines"),
    "what was asked for has not arrived": ("await_groups<kStages - 1>()", "await_groups<kStages>()"),
    "the group that is read is overwritten": ("fetch(ahead, stage == 0 ? kStages - 1 : stage - 1)", "fetch(ahead, stage)"),
    "the costs of forth on the way back": ("s_.back ? 2 : 1", "s_.back ? 1 : 1"),
    "the first line is not handed on": ("if (is_own()) store(p, -1, before);", ""),
    "the margin is stored, too": ("if (!is_own()) return;", ""),
    "no barrier of the costs": ("if (inside(y, x)) start(y, x);\n    }\n    __syncthreads();", "if (inside(y, x)) start(y, x);\n    }"),
    "no barrier of the turn": ("square[r][t] = from[(line + r) * turn.from.pitch + lane + t];\n    __syncthreads();",
                               "square[r][t] = from[(line + r) * turn.from.pitch + lane + t];"),
    "costs of edges out of the image": ("return inside(y, x) ? image_value(channel, barrier, int64_t(y) * a_.nx + x) : nan();",
                                        "return inside(y, x) ? image_value(channel, barrier, int64_t(y) * a_.nx + x) : 0.f;"),
}  # fmt: skip


def picture_kernels(tmp_path, old="", new=""):
    """The module of csrc/geodesic/cuda_raster.cu and its header as one file, with a mistake."""
    text, header = ((ROOT / "csrc/geodesic" / name).read_text() for name in ("cuda_raster.cu", "raster_layout.cuh"))
    text = text.replace('#include "geodesic/raster_layout.cuh"', header.replace("#pragma once", ""))
    assert text.count(old) == 1 or not old, old
    path = tmp_path / "cuda_raster.cu"
    path.write_text(text.replace(old, new) if old else text)
    return Module(cuda_ptx(str(path), 80, "-fmad=false"))


def both_corners(*pixels):
    """Two rounds of lines, and three tiles: of two blocks the one that has the middle one is ahead of the other."""
    image, start = geodesic.pictures(np.random.default_rng(0), 1, 1, 1, *pixels)
    start[:] = 0
    start[..., 0, 10] = start[..., -1, -1] = 1
    return image, start


def picture_is_found_out(monkeypatch, module, images):
    """Does a launch fault, or give other bits than the CPU?"""
    image, start = images
    expected = geodesic.cpu("raster", image, start, iterations=1, lam=1.0)
    monkeypatch.setattr(geodesic, "module", lambda *args, **options: module)
    for order in ("forward", "reverse"):
        try:
            if not np.array_equal(
                geodesic.run("raster", image, start, iterations=1, lam=1.0, order=order, blocks=2), expected
            ):
                return True
        except Fault:
            return True
    return False


@pytest.mark.parametrize("mistake", [None, *MISTAKES])
def test_mistakes_in_the_raster_scan_of_pictures(monkeypatch, tmp_path, mistake):
    module = picture_kernels(tmp_path, *MISTAKES[mistake]) if mistake else picture_kernels(tmp_path)
    found = picture_is_found_out(monkeypatch, module, both_corners(60, 140))
    assert found == (mistake is not None)


def test_a_size_that_is_too_large(rng):
    image, start = geodesic.pictures(rng, 1, 1, 1, 8, 8)
    with pytest.raises(Fault, match="out of bounds"):
        geodesic.run("exact", image, start[:, :, :, :7].copy())
