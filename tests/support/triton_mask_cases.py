"""What the kernels of masks must give, whoever executes them: see triton_cases.py."""

import numpy as np
from fastprompt.kernels import decoder_head as masks
from fastprompt.kernels import decoder_mlps as token_mlps
from fastprompt.kernels import masks as masks_resize
from triton_cases import DEVICE, TOLERANCE, normal, plain

from fastprompt.ops.decoder.head import MaskHeadWeights
from fastprompt.ops.masks.formulas import taps_on
from fastprompt.reference import decoder
from fastprompt.reference import masks as reference

HEAD = [  # dtype, prompts, images, channels, middle, depth, masks, height, width, tokens first, detail
    ("fp32", 2, 1, 31, 7, 5, 3, 2, 3, False, False),
    ("fp32", 2, 2, 48, 24, 20, 2, 5, 9, True, True),
    ("bf16", 2, 1, 64, 16, 8, 4, 4, 8, True, False),
    ("fp16", 4, 2, 40, 20, 16, 1, 3, 11, False, True),
    ("bf16", 1, 1, 256, 64, 32, 3, 3, 23, True, False),
]


def check_head(dtype, prompts, images, channels, middle, depth, count, height, width, tokens_first, with_detail):
    tokens = normal(1, prompts, height * width, channels, dtype=dtype)
    image = tokens.transpose(1, 2).unflatten(2, (height, width))
    image = image if tokens_first else image.contiguous()
    vectors = normal(2, prompts, count, depth, dtype=dtype)
    w = [
        normal(3, channels, middle, 2, 2) / channels**0.5, normal(4, middle), 1 + normal(5, middle) / 5,
        normal(6, middle), normal(7, middle, depth, 2, 2) / middle**0.5, normal(8, depth),
    ]  # fmt: skip
    w = [x.to(image.dtype) for x in w]
    detail = [normal(9, images, middle, 2 * height, 2 * width), normal(10, images, depth, 4 * height, 4 * width)]
    detail = detail if with_detail else [None, None]
    got = masks.mask_head(image, vectors, *w, *detail, 1e-6)
    assert got.dtype == image.dtype
    expected = decoder.mask_head(
        plain(image),
        plain(vectors),
        MaskHeadWeights(*map(plain, w)),
        1e-6,
        list(map(plain, detail)) if with_detail else None,
    )
    assert np.abs(got.double().cpu().numpy() - expected).max() <= TOLERANCE[dtype] * np.abs(expected).max()


RESIZE = [  # dtype, masks, h, w, size, frame, crop, output, threshold
    ("fp32", 2, 64, 64, (75, 151), (256, 256), (171, 256), "bool", 0.0),
    ("fp32", 3, 17, 31, (40, 130), (), (), "float32", 0.25),
    ("bf16", 1, 48, 20, (13, 7), (40, 40), (33, 40), "packed", 0.0),
    ("fp16", 2, 9, 11, (9, 300), (), (), "uint8", -0.5),
    ("fp32", 1, 1, 1, (5, 70), (), (), "packed", -50.0),
    ("fp32", 2, 8, 8, (1, 1), (16, 16), (), "bool", 50.0),
]


def check_resize(dtype, count, h, w, size, frame, crop, output, threshold):
    logits = normal(1, count, h, w, dtype=dtype)
    logits = (logits + 0.7 * logits.roll(1, -1) + 0.7 * logits.roll(1, -2)).to(logits.dtype)
    axes = taps_on(logits, size, frame, crop)
    out, area, box, stability = masks_resize.resize_masks(logits, *axes, threshold, output, 0.5)
    full = masks_resize.resize_masks(logits, *axes, threshold, "float32", 0.5)[
        0
    ]  # what it would return is what it counts
    full = full.cpu().numpy()
    np.testing.assert_allclose(
        full, reference.resize(plain(logits), size, frame or None, crop or None), rtol=0, atol=3e-6
    )
    expected, numbers = reference.facts(full, np.float32(threshold), np.float32(0.5), output)
    np.testing.assert_array_equal(out.cpu().numpy(), expected)
    np.testing.assert_array_equal(area.cpu().numpy(), numbers[:, 0])
    np.testing.assert_array_equal(box.cpu().numpy(), numbers[:, 3:])
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(stability.cpu().numpy(), (numbers[:, 1] / numbers[:, 2]).astype(np.float32))


MLPS = [  # dtype, prompts, tokens, channels, hidden widths, outputs of each MLP
    ("fp32", 1, 1, 16, (16,), (1,)),
    ("fp32", 3, 6, 40, (24, 48), (8, 8, 5)),
    ("bf16", 17, 5, 64, (64, 64), (32, 32, 32, 32, 4)),
    ("fp16", 2, 3, 32, (32, 48, 20), (7, 16)),
    ("fp32", 1, 6, 256, (256, 256), (32, 4)),
]


def check_mlps(dtype, prompts, count, channels, hidden, outputs):
    tokens, weights, expected, rows = normal(1, prompts, count, channels, dtype=dtype), [], [], []
    for k, last in enumerate(outputs):
        rows.append((k + 1) % count)
        x, sizes = plain(tokens)[:, rows[-1]], (channels, *hidden, last)
        for n in range(len(sizes) - 1):
            w = (normal(100 * k + n, sizes[n + 1], sizes[n]) / sizes[n] ** 0.5).to(tokens.dtype)
            b = normal(100 * k + n + 50, sizes[n + 1], dtype=dtype)
            weights += [w, b]
            x = x @ plain(w).T + plain(b)
            x = x if n == len(hidden) else np.maximum(x, 0)
        expected.append(x)
    found = token_mlps.token_mlps(tokens, rows, weights, len(hidden) + 1)
    for got, wanted in zip(found, expected, strict=True):
        assert got.dtype == tokens.dtype
        assert np.abs(got.double().cpu().numpy() - wanted).max() <= TOLERANCE[dtype] * np.abs(wanted).max()


CASES = {"mask_head": (check_head, HEAD), "resize_masks": (check_resize, RESIZE), "token_mlps": (check_mlps, MLPS)}
ALL = [(name, case) for name, (_, cases) in CASES.items() for case in cases]
KERNELS = masks, masks_resize, token_mlps


def main():
    cases = [(name, case) for name, case in ALL if DEVICE != "cpu" or name == "resize_masks" or case[0] != "bf16"]
    for name, case in cases:  # Triton's interpreter takes the bits of bfloat16 for integers in a product
        CASES[name][0](*case)
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
