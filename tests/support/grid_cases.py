"""What the kernel of grid attention must give, whoever executes it: cases that test_gpu_grid.py runs on compiled PTX,
and this file as a program, with TRITON_INTERPRET=1, by Triton's own interpreter."""

import numpy as np
import torch
from fastprompt.kernels import encoder_grid as kernels
from interpreted import run_all

from fastprompt.reference import encoder as reference

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCE = {"fp32": 2e-5, "bf16": 2e-2, "fp16": 3e-3}  # of the largest value
# images, grid, heads, width, window, pool
CASES = {
    "one token": (1, (1, 1), 1, 16, (0, 0), 1),
    "all": (2, (5, 7), 2, 32, (0, 0), 1),
    "all, several blocks": (1, (9, 17), 1, 96, (0, 0), 1),
    "all, pooled": (1, (6, 4), 2, 16, (0, 0), 2),
    "windows that fit": (2, (8, 6), 1, 64, (4, 3), 1),
    "whole rows": (1, (6, 5), 1, 24, (2, 5), 1),
    "ragged": (2, (5, 7), 2, 16, (2, 3), 1),
    "windows of 56": (1, (10, 9), 2, 56, (7, 7), 1),
    "windows of 72": (1, (9, 16), 1, 72, (8, 8), 1),
    "windows of 96": (1, (15, 6), 1, 96, (14, 14), 1),
    "a window larger than the grid": (1, (3, 2), 2, 16, (14, 14), 1),
    "pooled": (1, (8, 8), 1, 96, (8, 8), 2),
    "pooled and ragged": (2, (10, 6), 2, 56, (8, 8), 2),
    "pooled by four": (1, (8, 12), 1, 16, (4, 8), 4),
    "odd width": (1, (4, 6), 2, 10, (3, 4), 1),
}


def problem(case, dtype):
    """q, k, v as views of one tensor, padding; size, window and pool; scale."""
    images, size, heads, width, window, pool = CASES[case]
    rng = np.random.default_rng(0)
    normal = lambda *shape: torch.from_numpy(rng.standard_normal(shape, np.float32)).to(DTYPES[dtype])  # noqa: E731
    q, k, v = normal(images, size[0] * size[1], 3, heads, width).unbind(2)
    padding = [normal(heads, width) if window[0] else None for _ in range(2)]
    return (q, k, v, *padding), (size, window, pool), width**-0.5


def exact(x):
    return None if x is None else x.detach().cpu().double().numpy()


def wanted(case, dtype):
    """In float64, of the rounded inputs."""
    arrays, place, scale = problem(case, dtype)
    return reference.grid_attention(*map(exact, arrays), *place, scale)


def check(case, dtype, arch, precision, device="cpu"):
    arrays, place, scale = problem(case, dtype)
    given = [None if x is None else x.to(device) for x in arrays]
    out = kernels.attention(*given, *place, scale, arch, precision)
    want = wanted(case, dtype)
    assert tuple(out.shape) == want.shape
    assert out.dtype == DTYPES[dtype]
    np.testing.assert_allclose(exact(out), want, rtol=0, atol=TOLERANCE[dtype] * max(1, np.abs(want).max()))


if __name__ == "__main__":
    run_all(CASES, check)
