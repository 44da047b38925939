"""Launches of relative position whose resources docs/gpu_resources.md shows: SAM's global layers, windows, a list."""

import torch
from fastprompt.kernels import encoder_relative as forward
from fastprompt.kernels import encoder_relative_backward as backward

HOSTS = {"ViT-B": (12, 64), "ViT-H": (16, 80)}  # heads, width of one
GRID, WINDOW = (64, 64), (14, 14)
CELLS = {"global": (GRID, (0, 0), 4096), "windows": (GRID, WINDOW, 4096), "list": (GRID, (0, 0), 2048)}


def empty(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


def launches(record, arch):
    def attention():
        names = []
        for host, (heads, width) in HOSTS.items():
            for kind, (size, window, count) in CELLS.items():
                for dtype in (torch.bfloat16, torch.float32):
                    q, k, v = empty(1, count, 3, heads, width, dtype=dtype).unbind(2)
                    tables = [empty(2 * n - 1, width, dtype=dtype) for n in (window if window[0] else size)]
                    places = empty(1, count, 2, dtype=torch.int32) if kind == "list" else None
                    padding = [empty(heads, width, dtype=dtype) if window[0] else None for _ in range(2)]
                    place = size, window, width**-0.5, arch, "tf32x3"
                    forward.attention(q, k, v, *tables, places, *padding, *place)
                    names.append(f"relative position, {host} {kind}, {str(dtype)[6:]}")
        return names

    def gradient():
        heads, width = HOSTS["ViT-B"]
        q, k, v = empty(1, 4096, 3, heads, width).unbind(2)
        tables, out = [empty(127, width) for _ in range(2)], empty(1, 4096, heads, width)
        log_weight = empty(1, heads, 4096, dtype=torch.float32)
        backward.gradient(out, q, k, v, *tables, None, out, log_weight, GRID, width**-0.5, arch, "tf32x3")
        return [f"gradient of relative position, {part}" for part in ("biases", "keys", "queries", "tables")]

    return record([forward, backward], attention) | record([forward, backward], gradient)
