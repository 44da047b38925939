"""What the Triton kernels must give, whoever executes them: cases that test_triton_kernels.py runs on compiled PTX, and
this file as a program, with TRITON_INTERPRET=1, by Triton's own interpreter."""

import os
import types

import numpy as np
import torch
from fastprompt.kernels import attention

from fastprompt.reference import attention as reference_attention

DEVICE = os.environ.get("FASTPROMPT_TEST_DEVICE", "cpu")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def normal(seed, *shape, dtype="fp32"):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32)).to(DEVICE, DTYPES[dtype])


def plain(x):
    """float64 of the rounded inputs."""
    return None if x is None else x.double().cpu().numpy()


# ---------------------------------------------------------------- attention

ATTENTION = [  # dtype, prompts, images, image tokens, prompt tokens, channels, heads, position, splits
    ("fp32", 1, 1, 1, 1, 16, 1, False, 4),
    ("fp32", 2, 1, 75, 7, 32, 2, True, 2),
    ("bf16", 2, 2, 100, 7, 64, 4, True, 4),
    ("bf16", 2, 1, 33, 20, 48, 2, False, 2),
    ("fp16", 1, 1, 64, 5, 64, 8, True, 32),
    ("bf16", 1, 1, 70, 7, 256, 8, True, 2),
]
TOLERANCE = {"fp32": 2e-5, "bf16": 2e-2, "fp16": 3e-3}  # of the largest value


def problem(dtype, batch, images, n, count, channels, heads, with_position):
    inner = channels // 2 if channels >= 32 else channels  # SAM halves the channels inside
    shapes = {f"{name}_weight": (inner, channels) for name in ("query", "key", "value")}
    shapes |= {f"{name}_bias": (inner,) for name in ("query", "key", "value")}
    shapes |= {"out_weight": (channels, inner), "out_bias": (channels,)}
    w = {name: normal(10 + k, *shape) / shape[-1] ** 0.5 for k, (name, shape) in enumerate(shapes.items())}
    return types.SimpleNamespace(
        weights=types.SimpleNamespace(**w),
        exact=types.SimpleNamespace(**{name: plain(x) for name, x in w.items()}),
        image=normal(4, images, n, channels, dtype=dtype),
        position=normal(5, 1, n, channels, dtype=dtype) if with_position else None,
        prompt=normal(6, batch, count, channels),
        prompt_position=normal(7, batch, count, channels) if with_position else None,
        scale=(inner // heads) ** -0.5,
    )


def turned(x):
    """(B, N, C) as the reference wants its image, (B, C, N)."""
    return None if x is None else plain(x).swapaxes(1, 2)


def close(got, expected, dtype):
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE[dtype] * max(1, np.abs(expected).max()))


def check_prompt_to_image(dtype, batch, images, n, count, channels, heads, with_position, splits):
    p = problem(dtype, batch, images, n, count, channels, heads, with_position)
    got = attention.prompt_to_image(
        p.prompt, p.prompt_position, p.image, p.position, p.weights, heads, p.scale, splits=splits
    )
    expected = reference_attention.prompt_to_image(
        plain(p.prompt), turned(p.image), p.exact, heads=heads, scale=p.scale, image_position=turned(p.position),
        prompt_position=plain(p.prompt_position), bias=None, lengths=None,
    )  # fmt: skip
    close(got.cpu().numpy(), expected, dtype)


def check_image_to_prompt(dtype, batch, images, n, count, channels, heads, with_position, splits):
    p = problem(dtype, batch, images, n, count, channels, heads, with_position)
    norm, lengths = (normal(8, channels), normal(9, channels)), torch.tensor([0, count], device=DEVICE)[:batch]
    for residual, use_norm, use_lengths in [(False, False, True), (True, True, False)]:
        got = attention.image_to_prompt(
            p.image, p.position, p.prompt, p.prompt_position, p.weights, heads, p.scale,
            lengths if use_lengths else None, residual, (*norm, 1e-6) if use_norm else None,
        )  # fmt: skip
        expected = reference_attention.image_to_prompt(
            turned(p.image), plain(p.prompt), p.exact, heads=heads, scale=p.scale, image_position=turned(p.position),
            prompt_position=plain(p.prompt_position), lengths=lengths.cpu().numpy() if use_lengths else None,
            residual=residual, norm=(plain(norm[0]), plain(norm[1]), 1e-6) if use_norm else None,
        )  # fmt: skip
        close(got.float().cpu().numpy(), expected.swapaxes(1, 2), dtype)


CASES = {
    "prompt_to_image": (check_prompt_to_image, ATTENTION),
    "image_to_prompt": (check_image_to_prompt, ATTENTION),
}
ALL = [(name, case) for name, (_, cases) in CASES.items() for case in cases]


def main():
    cases = [(name, case) for name, case in ALL if DEVICE != "cpu" or "image" not in name or case[0] != "bf16"]
    for name, case in cases:  # Triton's interpreter takes the bits of bfloat16 for integers in a product
        CASES[name][0](*case)
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
