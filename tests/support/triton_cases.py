"""What the Triton kernels must give, whoever executes them: cases that test_triton_kernels.py runs on compiled PTX, and
this file as a program, with TRITON_INTERPRET=1, by Triton's own interpreter."""

import os

import numpy as np
import torch

from fastprompt.ops.attention import formulas, operators

DEVICE = os.environ.get("FASTPROMPT_TEST_DEVICE", "cpu")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def normal(seed, *shape, dtype="fp32"):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32)).to(DEVICE, DTYPES[dtype])


def plain(x):
    """float64 of the rounded inputs."""
    return None if x is None else x.double().cpu().numpy()


# ---------------------------------------------------------------- attention

ATTENTION = [  # dtype, prompts, images, map, prompt tokens, channels, heads, width of a head or 0: absorbed
    ("fp32", 1, 1, (1, 1), 1, 16, 1, 0),
    ("fp32", 4, 2, (5, 15), 7, 32, 2, 16),
    ("bf16", 2, 2, (10, 10), 7, 64, 4, 0),
    ("bf16", 2, 1, (3, 11), 20, 48, 2, 16),
    ("fp16", 1, 1, (8, 8), 5, 64, 8, 0),
    ("bf16", 1, 1, (7, 10), 7, 256, 8, 0),
]
TOLERANCE = {"fp32": 2e-5, "bf16": 2e-2, "fp16": 3e-3}  # of the largest value


def problem(dtype, prompts, images, size, count, channels, heads, width):
    """Image, position, two sets of rows, two matrices or None, and lengths."""
    image = normal(4, images, channels, *size, dtype=dtype)
    rows = [normal(k, prompts, heads, count, width or channels) / channels**0.5 for k in (6, 7)]
    inner = heads * width
    matrices = [normal(k, inner, channels) / channels**0.5 if width else None for k in (8, 9)]
    lengths = torch.arange(count, count + prompts, device=DEVICE) % count + 1
    return image, normal(5, 1, channels, *size), rows, matrices, lengths


def close(got, expected, dtype):
    got, expected = got.double().cpu().numpy(), expected.numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE[dtype] * max(1, np.abs(expected).max()))


def compare(name, dtype, *arguments):
    """The kernel against the formula, which the tests of the CPU hold against fastprompt.reference."""
    exact = [x.double().cpu() if torch.is_tensor(x) and x.is_floating_point() else x for x in arguments]
    exact = [x.cpu() if torch.is_tensor(x) else x for x in exact]
    got = getattr(operators, name).on_gpu(*arguments)
    assert got.dtype == torch.float32, "as the operator says"
    close(got, getattr(formulas, name)(*exact), dtype)


def check_prompt_to_image(dtype, prompts, images, size, count, *rest):
    image, position, (query, _), matrices, lengths = problem(dtype, prompts, images, size, count, *rest)
    hidden = normal(3, prompts, count, *size)
    hidden[:, :, 0, 0] = -np.inf
    hidden[0, 0] = -np.inf  # this token sees nothing: 0
    compare("prompt_to_image", dtype, image, position, query, *matrices, None, None)
    compare("prompt_to_image", dtype, image, None, query, *matrices, hidden, lengths)


def check_image_to_prompt(dtype, prompts, images, size, count, *rest):
    image, position, (key, value), matrices, lengths = problem(dtype, prompts, images, size, count, *rest)
    channels, heads = rest[:2]
    bias, (out_bias, *norm) = normal(3, prompts, heads, count), normal(2, 3, channels)
    back = None if matrices[1] is None else matrices[1].T
    given = (key, bias, value, matrices[0], back, out_bias)
    compare("image_to_prompt", dtype, image, position, *given, None, None, lengths, False, 0.0)
    compare("image_to_prompt", dtype, image, None, *given, *norm, None, True, 1e-6)


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
