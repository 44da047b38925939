"""Launches of relative position whose resources docs/gpu_resources.md shows: SAM's global layers, windows, a list."""

import contextlib
import unittest.mock

HOSTS = {"ViT-B": (12, 64), "ViT-H": (16, 80)}  # heads, width of one
GRID, WINDOW = (64, 64), (14, 14)


def launches(arch, recorder):
    """{name: (kernel, arguments, constants and options)} as the launchers have them on sm_``arch``."""
    import torch
    from fastprompt.kernels import relative_position as forward
    from fastprompt.kernels import relative_position_backward as backward

    found = []

    def empty(*shape, dtype=torch.bfloat16):
        return torch.empty(shape, dtype=dtype, device="meta")

    with contextlib.ExitStack() as stack:
        for module in (forward, backward):
            for name in [n for n in vars(module) if n.endswith("_kernel")]:
                stand_in = recorder(getattr(module, name), found)
                stack.enter_context(unittest.mock.patch.object(module, name, stand_in))
        names, cells = (
            [],
            {"global": (GRID, (0, 0), 4096), "windows": (GRID, WINDOW, 4096), "list": (GRID, (0, 0), 2048)},
        )
        for host, (heads, width) in HOSTS.items():
            for kind, (size, window, count) in cells.items():
                for dtype in (torch.bfloat16, torch.float32):
                    q, k, v = empty(1, count, 3, heads, width, dtype=dtype).unbind(2)
                    tables = [empty(2 * n - 1, width, dtype=dtype) for n in (window if window[0] else size)]
                    places = empty(1, count, 2, dtype=torch.int32) if kind == "list" else None
                    padding = [empty(heads, width, dtype=dtype) if window[0] else None for _ in range(2)]
                    place = size, window, width**-0.5, arch, "tf32x3"
                    forward.attention(q, k, v, *tables, places, *padding, *place)
                    names.append(f"relative position, {host} {kind}, {str(dtype)[6:]}")
        heads, width = HOSTS["ViT-B"]
        q, k, v = empty(1, 4096, 3, heads, width).unbind(2)
        tables, out = [empty(127, width) for _ in range(2)], empty(1, 4096, heads, width)
        log_weight = empty(1, heads, 4096, dtype=torch.float32)
        backward.gradient(out, q, k, v, *tables, None, out, log_weight, GRID, width**-0.5, arch, "tf32x3")
        names += [f"gradient of relative position, {part}" for part in ("biases", "keys", "queries", "tables")]
    return dict(zip(names, found, strict=True))
