"""What the kernels of memory reads must give, whoever executes them: cases that test_gpu_memory.py runs on compiled
PTX, and this file as a program, with TRITON_INTERPRET=1, by Triton's own interpreter."""

import unittest.mock

import numpy as np
import torch
import triton
from fastprompt.kernels import memory as kernels
from interpreted import run_all

from fastprompt.reference import memory as reference

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCE = {"fp32": 2e-5, "bf16": 2e-2, "fp16": 3e-3}  # of the largest value
# images, queries, places of a frame, frames, unturned keys, heads, width, depth of values, splits; no places: not turned
CASES = {
    "one query": (1, 1, 1, 1, 0, 1, 16, 16, 1),
    "itself": (1, 35, 35, 1, 0, 1, 64, 64, 1),
    "frames and pointers": (2, 20, 16, 3, 7, 1, 32, 16, 1),
    "splits": (2, 21, 20, 9, 5, 2, 16, 24, 3),
    "wide keys": (1, 12, 12, 4, 4, 1, 256, 64, 2),
    "wide values": (1, 18, 18, 1, 0, 1, 256, 256, 1),
    "no frame": (1, 9, 4, 0, 70, 1, 48, 20, 1),
    "odd width": (1, 9, 5, 2, 1, 2, 10, 7, 1),
    "not turned": (2, 33, 0, 0, 150, 2, 32, 48, 2),
    "not turned, one key": (1, 5, 0, 0, 1, 1, 7, 3, 1),
}


def problem(case, dtype):
    """q, k, v as views; cosines and sines of queries and of keys, float32, none where nothing is turned; unturned."""
    images, queries, places, frames, unturned, heads, width, depth, _ = CASES[case]
    rng, count = np.random.default_rng(0), places * frames + unturned
    normal = lambda *shape: torch.from_numpy(rng.standard_normal(shape, np.float32)).to(DTYPES[dtype])  # noqa: E731
    q, k = normal(images, queries, 2, heads, width)[:, :, 0], normal(images, count, heads, 2, width)[..., 1, :]
    tables = []
    for n in (queries, places) if places else ():
        angles = rng.uniform(0, 6, (n, width // 2)).astype(np.float32).repeat(2, 1)
        tables += [torch.from_numpy(np.cos(angles)), torch.from_numpy(np.sin(angles))]
    return (q, k, normal(images, count, heads, depth)), tables, unturned


def exact(x):
    return x.detach().cpu().double().numpy()


def wanted(case, dtype):
    """Output in float64, of the rounded inputs, and the logarithms of the weights' sums (B, H, N)."""
    (q, k, v), tables, unturned = problem(case, dtype)
    q, k, v, *tables = map(exact, (q, k, v, *tables))
    scale = q.shape[-1] ** -0.5
    if tables:
        cos, sin, key_cos, key_sin = tables
        turned = k.shape[1] - unturned
        times = turned // len(key_cos)
        head = reference.turn(k[:, :turned], np.tile(key_cos, (times, 1)), np.tile(key_sin, (times, 1)))
        q, k = reference.turn(q, cos, sin), np.concatenate([head, k[:, turned:]], 1)
    return reference.memory_read(q, k, v, scale)


def check(case, dtype, arch, precision, device="cpu"):
    """On a device as many splits as it takes; elsewhere as the case says."""
    (q, k, v), tables, unturned = problem(case, dtype)
    q, k, v, *tables = (x.to(device) for x in (q, k, v, *tables))
    scale = q.shape[-1] ** -0.5
    if tables:
        q, k = kernels.turned(q, k, tables, unturned)
        assert q.dtype == k.dtype == DTYPES[dtype]
    with unittest.mock.patch.object(kernels, "splits_of", kernels.splits_of if device == "cuda" else split(case)):
        out, log_weight = kernels.read(q, k, v, scale, arch, precision)
    assert out.dtype == DTYPES[dtype]
    for got, want in zip((out, log_weight), wanted(case, dtype), strict=True):
        assert tuple(got.shape) == want.shape
        np.testing.assert_allclose(exact(got), want, rtol=0, atol=TOLERANCE[dtype] * max(1, np.abs(want).max()))


def split(case):
    def splits_of(keys, programs, tile, device):
        each = triton.cdiv(triton.cdiv(keys, tile), CASES[case][-1]) * tile
        return triton.cdiv(keys, each), each

    return splits_of


if __name__ == "__main__":
    run_all(CASES, check)
