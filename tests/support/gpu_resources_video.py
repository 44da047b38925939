"""Launches of SAM 2's attentions whose resources docs/gpu_resources.md shows: Hiera's windows and global layers, and the
reads of memory attention with a full bank."""

import unittest.mock

import torch
from fastprompt.kernels import encoder_grid, memory

KINDS = {"bfloat16": (torch.bfloat16, "ieee"), "TF32": (torch.float32, "tf32"), "3 x TF32": (torch.float32, "tf32x3")}
# heads, width of one, grid, window, pool
LAYERS = {
    "Hiera-B+ windows of 8": (2, 56, (256, 256), (8, 8), 1),
    "Hiera-B+ pooled": (4, 56, (256, 256), (8, 8), 2),
    "Hiera-L windows of 8": (4, 72, (128, 128), (8, 8), 1),
    "Hiera-T windows of 14": (4, 96, (64, 64), (14, 14), 1),
    "Hiera-T global": (4, 96, (64, 64), (0, 0), 1),
}
FRAME, FRAMES, POINTERS = 4096, 7, 64
SAME = {f"memory attention, splits of {depth}, TF32" for depth in (64, 256)}  # as others


def empty(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


def launches(record, arch):
    def layers():
        names = []
        for layer, (heads, width, size, window, pool) in LAYERS.items():
            for kind, (dtype, precision) in KINDS.items():
                q, k, v = empty(1, size[0] * size[1], 3, heads, width, dtype=dtype).unbind(2)
                padding = [empty(heads, width, dtype=dtype) if window[0] else None for _ in range(2)]
                encoder_grid.attention(q, k, v, *padding, size, window, pool, width**-0.5, arch, precision)
                names.append(f"{layer}, {kind}")
        return names

    def reads():
        names, tables = [], [empty(FRAME, 256, dtype=torch.float32)] * 4
        for kind, (dtype, precision) in KINDS.items():
            q, k = (empty(1, n, 1, 256, dtype=dtype) for n in (FRAME, FRAME * FRAMES + POINTERS))
            memory.read(q, k, empty(*k.shape[:3], 64, dtype=dtype), 1 / 16, arch, precision)
            memory.read(q, q, q, 1 / 16, arch, precision)
            names += [f"memory attention, memory, {kind}", f"memory attention, splits of 64, {kind}"]
            names += [f"memory attention, itself, {kind}", f"memory attention, splits of 256, {kind}"]
            if kind != "TF32":
                memory.turned(q, k, tables, POINTERS)
                names.append(f"memory attention, turns, {kind}")
        return names

    with unittest.mock.patch.object(memory, "multiprocessors", return_value=132):
        found = record([encoder_grid], layers) | record([memory], reads)
    return {name: launch for name, launch in found.items() if name not in SAME}
