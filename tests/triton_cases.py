"""What the Triton kernels must give, whoever executes them: cases that test_triton_kernels.py runs on compiled PTX, and
this file as a program, with TRITON_INTERPRET=1, by Triton's own interpreter."""

import os
import types

import numpy as np
import torch
from fastprompt.kernels import attention, pruning

from fastprompt.reference import attention as reference_attention
from fastprompt.reference import pruning as reference_pruning

DEVICE = os.environ.get("FASTPROMPT_TEST_DEVICE", "cpu")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def normal(seed, *shape, dtype="fp32"):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32)).to(DEVICE, DTYPES[dtype])


def plain(x):
    """float64 of the rounded inputs."""
    return None if x is None else x.double().cpu().numpy()


# ---------------------------------------------------------------- pruning

SCORES = [  # dtype, batch, tokens, prompts, channels, one set of prompts for all images
    ("fp32", 1, 1, 1, 1, False),
    ("fp32", 2, 45, 3, 40, False),
    ("bf16", 2, 33, 17, 96, True),
    ("fp16", 1, 64, 2, 33, False),
]


def check_scores(dtype, batch, count, prompt_count, channels, shared):
    tokens = normal(1, batch, count, channels, dtype=dtype)
    prompts = normal(2, 1 if shared else batch, prompt_count, channels, dtype=dtype)
    tokens[0, 0] = 0  # no direction: cosine 0
    if count > 2:
        tokens[-1, 2, 0] = np.nan
    got = pruning.cosine_scores(tokens, prompts).cpu().numpy()
    expected = reference_pruning.cosine_scores(plain(tokens), plain(prompts))
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6)


PRUNE = [  # dtype, batch, tokens, channels, kept, some must stay
    ("fp32", 1, 1, 1, 1, False),
    ("fp32", 2, 37, 5, 16, False),
    ("bf16", 2, 64, 70, 64, False),
    ("bf16", 1, 100, 130, 9, True),
    ("fp16", 3, 33, 64, 1, True),
]


def check_prune(dtype, batch, count, channels, kept, marked):
    rng = np.random.default_rng(count)
    tokens = normal(3, batch, count, channels, dtype=dtype)
    values = np.array([-np.inf, np.nan, -1.5, -0.0, 0.0, 0.25, np.inf], np.float32)  # many ties
    scores = torch.from_numpy(rng.choice(values, (batch, count))).to(DEVICE)
    always = torch.zeros(batch, count, dtype=torch.uint8, device=DEVICE) if marked else None
    if marked:
        for row in always:  # at most those that are kept
            row[rng.permutation(count)[: max(1, kept // 2)]] = 3
    out, indices, places = pruning.prune(tokens, scores, kept, always)
    chosen = None if always is None else always.cpu().numpy() != 0
    expected = reference_pruning.select_tokens(scores.cpu().numpy(), chosen, None, kept, 0.0)
    np.testing.assert_array_equal(indices.cpu().numpy(), expected)
    bits = tokens.view(torch.int32 if dtype == "fp32" else torch.int16).cpu().numpy()
    np.testing.assert_array_equal(out.view(torch.int32 if dtype == "fp32" else torch.int16).cpu().numpy(),
                                  reference_pruning.gather_rows(bits, expected))  # fmt: skip
    where = np.full((batch, count), -1)
    np.put_along_axis(where, expected, np.arange(kept)[None], 1)
    np.testing.assert_array_equal(places.cpu().numpy(), where)
    for base in (None, tokens):
        full = pruning.restore(out + 1, places, base)
        wanted = reference_pruning.scatter_rows(
            None if base is None else base.float().cpu().numpy(), (out + 1).float().cpu().numpy(), expected, count
        )
        np.testing.assert_array_equal(full.float().cpu().numpy(), wanted)


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
    "scores": (check_scores, SCORES),
    "prune": (check_prune, PRUNE),
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
