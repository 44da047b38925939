"""What gpu_resources.py compiles of prompt attention and SAM's two-way transformer, at SAM's sizes."""

import functools
import unittest.mock

import torch
from fastprompt.kernels import attention
from fastprompt.kernels import decoder_two_way as two_way
from fastprompt.kernels import decoder_two_way_tokens as two_way_tokens

KINDS = {"bfloat16": (torch.bfloat16, "ieee"), "TF32": (torch.float32, "tf32"), "3 x TF32": (torch.float32, "tf32x3")}
# The second pass over the image is the first again.
STAGES = (
    *("self-attention", "first attention", "tokens", "image pass"),
    *("tokens, last layer", "image pass", "last attention"),
)


def empty(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


def launches(record, arch):
    with unittest.mock.patch.object(attention, "multiprocessors", return_value=132):
        found = record([attention], operators)
        for kind, (dtype, precision) in KINDS.items():
            made = record([attention, two_way_tokens, two_way], functools.partial(decoder, dtype, precision))
            found |= {f"two-way: {stage}, {kind}": launch for stage, launch in made.items()}
    return found


def operators():
    image, rows, vector = empty(1, 256, 64, 64), empty(1, 8, 7, 256), empty(256)
    attention.prompt_to_image(image, image, rows)
    attention.image_to_prompt(image, image, rows, rows[..., 0], rows, vector, empty(2, 256), None, True, 1e-6)
    return "prompt to image, 256 channels", "prompt to image, combine", "image to prompt, 256 channels"


def decoder(dtype, precision):
    """A click."""
    make = functools.partial(empty, dtype=dtype)
    channels, inner, mlp, depth = 256, 128, 2048, 2
    rows = depth * (4 * channels + 8 * inner + 2 * mlp) + 4 * inner
    numbers = depth * (6 * inner + mlp + 15 * channels) + 3 * inner + 3 * channels
    arrays = [make(1, 7, channels), make(1, 4096, channels), make(4096, channels), *[make(1, 8, 4096, 16)] * 2]
    vectors = make(numbers, dtype=torch.float32)
    two_way.two_way(*arrays, make(rows, channels), vectors, 8, 16, mlp, depth, [1e-6, 1e-5], precision)
    return STAGES
