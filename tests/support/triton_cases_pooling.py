"""What the Triton kernels of pooling, similarity and pruning must give, whoever executes them: as triton_cases.py."""

import os

import numpy as np
import torch
from fastprompt.kernels import pooling, pruning
from fastprompt.kernels import pooling_similarity as similarity
from triton_cases import DEVICE, normal, plain

from fastprompt.ops.pooling.call import LEVEL_EPS
from fastprompt.ops.pooling.means import RESIZES
from fastprompt.reference import pooling as reference_pooling
from fastprompt.reference import pruning as reference_pruning


def bits(x):
    return x.contiguous().view(torch.int32 if x.dtype == torch.float32 else torch.int16).cpu().numpy()


# ---------------------------------------------------------------- masked means

POOL = [  # dtype, mask's, batch, channels, features, masks, mask, resize, align_corners, background, threshold
    ("fp32", "uint8", 1, 3, (5, 6), 2, (41, 47), "features", False, True, None),
    ("fp16", "uint8", 2, 5, (4, 19), 1, (33, 40), "features", True, False, None),
    ("bf16", "fp32", 1, 2, (5, 4), 3, (19, 3), "features", False, True, None),
    ("fp32", "fp32", 1, 4, (7, 5), 1, (31, 23), "mask", True, False, None),
    ("fp32", "uint8", 1, 2, (4, 5), 5, (12, 20), "average", False, True, 0.25),
    ("fp32", "uint8", 1, 1, (1, 1), 1, (9, 7), "features", True, True, None),
    ("fp32", "fp32", 1, 2, (3, 2), 1, (1, 1), "features", True, False, None),
    ("fp32", "fp32", 1, 1, (1, 3), 1, (70, 6), "mask", False, True, 0.4),
]


def check_pool(dtype, kind, batch, channels, size, masks, large, resize, align_corners, background, threshold):
    features = normal(1, batch, channels, *size, dtype=dtype)
    mask = torch.rand(batch, masks, *large, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    mask[:, :, : large[0] // 2] = 0
    if kind == "uint8":
        mask = (mask > 0.5).to(torch.uint8)
    mask[0, 0] = 1  # no background at all
    mask[-1, -1] = 0
    for empty in (0.0, float("nan")):
        options = (align_corners, background, threshold, 1e-3, empty)
        got = pooling.masked_pool(features, mask, RESIZES.index(resize), *options).cpu().numpy()
        expected = reference_pooling.masked_pool(plain(features), plain(mask), resize, *options)
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6 * max(1, np.nanmax(np.abs(expected), initial=0)))


def check_pool_of_nan(*unused):
    """What has no weight is not read for a number."""
    features, mask = normal(1, 1, 2, 4, 4), torch.zeros(1, 1, 16, 16, dtype=torch.uint8, device=DEVICE)
    mask[..., 8:, 8:] = 1
    features[0, 0, 0, 0] = np.nan
    for background in (False, True):
        got = pooling.masked_pool(features, mask, 0, False, background, None, 0.0, 0.0).isnan().tolist()
        assert got == ([[[False, False], [True, False]]] if background else [[[False, False]]])


# ---------------------------------------------------------------- similarity

SIMILARITY = [  # dtype, rows', batch, channels, pixels, rows, one set of rows, kind
    ("fp32", "fp32", 1, 1, 1, 1, True, 0),
    ("fp32", "fp32", 2, 140, 45, 2, False, 0),
    ("bf16", "fp32", 1, 37, 33, 3, True, 0),
    ("fp16", "fp16", 1, 70, 40, 9, True, 0),
    ("bf16", "bf16", 2, 33, 31, 20, False, 1),
    ("fp32", "fp32", 1, 20, 35, 21, True, 1),
    ("fp32", "fp32", 2, 50, 40, 4, True, 2),
    ("fp32", "fp32", 1, 24, 37, 70, True, 2),
]
PRODUCTS = {"fp32": 2e-5, "bf16": 2e-2, "fp16": 3e-3}  # of the largest value
HOW = os.environ.get("FASTPROMPT_TEST_PRODUCTS", "tf32x3")


def check_similarity(dtype, other, batch, channels, pixels, count, shared, kind):
    features = normal(3, batch, channels, pixels, dtype=dtype)
    rows = normal(4, 1 if shared else batch, count, channels, dtype=other)
    rows[:, -1] = rows[:, 0]  # equal ones: the lowest
    if pixels > 5:
        features[0, :, 3] = 0
        features[0, 0, 5] = np.nan if kind != 1 else 9  # the executor keeps payloads, and two warps' may differ
    eps = 0.0 if kind == 2 else 1e-8
    got = similarity.similarity(features, rows, 20.0, eps, 8.0, kind, HOW).cpu().numpy()
    name = ("none", "softmax", "argmax")[kind]
    with np.errstate(invalid="ignore"):
        expected = reference_pooling.similarity(plain(features), plain(rows), 20.0, eps, 8.0, name, 0.0)
    if kind == 2:
        with np.errstate(invalid="ignore"):
            cosine = reference_pooling.cosines(plain(features), plain(rows), eps)
        second = np.sort(cosine, 1)[:, -3 if count > 2 else -1]  # the best may be there twice
        clear = ~(cosine.max(1) - second < 1e-4) | np.isnan(second)
        np.testing.assert_array_equal(got[clear], expected[clear])
        assert clear.mean() > 0.8
        assert got.dtype == np.int64
        return
    tolerance = PRODUCTS["fp32" if dtype != other or count <= 4 else dtype]
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.nanmax(np.abs(expected)))


PRIOR = [  # dtype, batch, shots, channels, pixels, of the support, share that the mask leaves, soft
    ("fp32", 1, 1, 5, 1, 6, 0.5, False),
    ("fp32", 1, 2, 70, 65, 40, 0.3, True),
    ("bf16", 2, 1, 40, 70, 90, 1.0, False),
    ("fp16", 1, 1, 33, 40, 70, 0.1, False),
    ("fp32", 1, 1, 16, 20, 40, 0.0, False),
]


def check_prior(dtype, batch, shots, channels, pixels, others, share, soft):
    query, support = normal(5, batch, channels, pixels, dtype=dtype), normal(6, batch * shots, channels, others)
    if share == 1.0:  # no pixel is left out, so the largest may be below 0
        query, support = query.abs(), -support.abs()
    support = support.to(query.dtype)
    mask = torch.rand(batch * shots, others, generator=torch.Generator().manual_seed(7)).to(DEVICE)
    live = mask < share
    mask = torch.where(live, mask + 0.1 if soft else 1.0, 0)
    for broken in (False, True):
        if broken:
            query[0, 0, 0] = np.nan
        else:
            support[0, 0, ~live[0]] = np.nan  # is not read
        got = similarity.prior(query, support, mask, 1e-7, 1e-7, HOW).cpu().numpy()
        expected = reference_pooling.most_similar(plain(query), plain(support), plain(mask), 1e-7)
        expected = reference_pooling.levelled(expected.astype(np.float64), LEVEL_EPS)
        spread = 1.0 if share else 1e-7
        assert np.isnan(got[:shots]).all() == broken, "the whole image"
        np.testing.assert_allclose(got, expected, rtol=0, atol=8 * PRODUCTS[dtype] * max(spread, 1e-3))


# ---------------------------------------------------------------- pruning

SCORES = [  # dtype, batch, tokens, prompts, channels, one set of prompts for all images
    ("fp32", 1, 1, 1, 1, False),
    ("fp32", 2, 45, 3, 40, False),
    ("bf16", 2, 33, 17, 96, True),
    ("fp16", 1, 64, 2, 33, False),
    ("fp32", 1, 5, 5, 1100, False),
    ("bf16", 1, 3, 1, 300, False),
]


def check_scores(dtype, batch, count, prompt_count, channels, shared):
    tokens = normal(1, batch, count + 1, channels, dtype=dtype)
    prompts = normal(2, 1 if shared else batch, prompt_count, channels, dtype=dtype)
    tokens[0, 1] = 0  # no direction: cosine 0
    if count > 2:
        tokens[-1, 3, 0] = np.nan
    tokens = tokens[:, 1:]  # a view: without the class token
    got = pruning.cosine_scores(tokens, prompts).cpu().numpy()
    expected = reference_pruning.cosine_scores(plain(tokens), plain(prompts))
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6)


PRUNE = [  # dtype, batch, tokens, channels, kept, some must stay, share of samples, a count for each image
    ("fp32", 1, 1, 1, 1, False, 0.0, False),
    ("fp32", 2, 37, 5, 16, False, 0.0, False),
    ("bf16", 2, 64, 70, 64, False, 0.0, False),
    ("bf16", 1, 100, 130, 9, True, 0.0, False),
    ("fp16", 3, 33, 64, 1, True, 0.0, False),
    ("fp32", 2, 70, 3, 33, True, 0.4, False),
    ("fp32", 1, 66, 2, 20, False, 1.0, False),
    ("fp32", 3, 40, 4, 50, True, 0.3, True),
]


def check_prune(dtype, batch, count, channels, kept, marked, share, each):
    rng = np.random.default_rng(count)
    tokens = normal(3, batch, count + 1, channels, dtype=dtype)[:, 1:]
    values = np.array([-np.inf, np.nan, -1.5, -0.0, 0.0, 0.25, np.inf], np.float32)  # many ties
    scores = torch.from_numpy(rng.choice(values, (batch, count))).to(DEVICE)
    counts = np.array([count, 7, 1]) if each else None
    always = torch.zeros(batch, count, dtype=torch.uint8, device=DEVICE) if marked else None
    if marked:
        for b, row in enumerate(always):  # at most those that are kept
            row[rng.permutation(count)[: max(1, (counts[b] if each else kept) // 2)]] = 3
    limits = torch.from_numpy(np.stack([counts, (counts * share).astype(np.int64)], 1)).to(DEVICE) if each else None
    out, indices = pruning.prune(tokens, scores, kept, always, int(share * kept), limits)
    chosen = None if always is None else always.cpu().numpy() != 0
    expected = reference_pruning.select_tokens(scores.cpu().numpy(), chosen, counts, kept, share)
    np.testing.assert_array_equal(indices.cpu().numpy(), expected)
    np.testing.assert_array_equal(bits(out), reference_pruning.gather_rows(bits(tokens), expected))
    for base in (None, tokens):
        full = torch.empty(batch, count, channels, dtype=tokens.dtype, device=DEVICE)
        pruning.scatter(base, out + 1, indices, full)
        below = None if base is None else bits(base)
        np.testing.assert_array_equal(bits(full), reference_pruning.scatter_rows(below, bits(out + 1), expected, count))


ROWS = [  # dtype, batch, tokens, channels, indices
    ("fp32", 1, 1, 1, 1),
    ("bf16", 2, 40, 70, 33),
    ("fp32", 1, 33, 65, 300),
]


def check_rows(dtype, batch, count, channels, kept):
    """Any indices: out of range, in any order, more than once."""
    rng = np.random.default_rng(kept)
    index = rng.integers(-3, count + 3, (batch, kept))
    index[0, 0] = 1 << 40
    given = torch.from_numpy(index).to(DEVICE)
    tokens = normal(8, batch, count + 2, channels, dtype=dtype)[:, 1:-1]
    got = pruning.gather(tokens, given)
    np.testing.assert_array_equal(bits(got), reference_pruning.gather_rows(bits(tokens), index))
    whole = normal(9, batch, count + 2, channels, dtype=dtype)
    expected = bits(whole).copy()
    expected[:, 1:-1] = reference_pruning.scatter_rows(expected[:, 1:-1], bits(got), index, count)
    pruning.scatter(whole[:, 1:-1], got, given, whole[:, 1:-1])
    np.testing.assert_array_equal(bits(whole), expected)


MERGE = [  # batch, tokens, channels, kept
    (1, 1, 1, 1),
    (2, 37, 20, 20),
    (1, 40, 65, 3),
]


def check_merge(batch, count, channels, kept):
    rng = np.random.default_rng(count)
    target = np.concatenate([np.tile(np.arange(kept), (batch, 1)), rng.integers(0, kept, (batch, count - kept))], 1)
    target = rng.permuted(target, axis=1)
    tokens, size = normal(10, batch, count, channels), normal(11, batch, count).abs() + 0.5
    tokens[0, 0, 0] = np.inf  # is in no other mean
    got = pruning.merge(tokens, size, torch.from_numpy(target).to(DEVICE), kept).cpu().numpy()
    expected, _ = reference_pruning.merge_rows(plain(tokens), plain(size), np.empty((batch, kept)), target)
    np.testing.assert_allclose(
        got, expected, rtol=0, atol=2e-6 * max(1, np.abs(expected[np.isfinite(expected)]).max(initial=0))
    )
    alone = np.array([[(row == j).sum() == 1 for j in range(kept)] for row in target])
    for b, j in zip(*np.nonzero(alone), strict=True):
        np.testing.assert_array_equal(got[b, j], tokens[b, (target[b] == j).argmax()].cpu().numpy())


CASES = {
    "pool": (check_pool, POOL),
    "pool of NaN": (check_pool_of_nan, [()]),
    "similarity": (check_similarity, SIMILARITY),
    "prior": (check_prior, PRIOR),
    "scores": (check_scores, SCORES),
    "prune": (check_prune, PRUNE),
    "rows": (check_rows, ROWS),
    "merge": (check_merge, MERGE),
}
ALL = [(name, case) for name, (_, cases) in CASES.items() for case in cases]


def main():
    chosen = ALL
    if DEVICE == "cpu":  # Triton's interpreter takes the bits of bfloat16 for integers in a product
        chosen = [(name, case) for name, case in ALL if name not in ("similarity", "prior") or case[0] != "bf16"]
    for name, case in chosen:
        try:
            CASES[name][0](*case)
        except Exception as problem:
            raise RuntimeError(f"{name} {case}") from problem
    print(len(chosen), "cases")


if __name__ == "__main__":
    main()
