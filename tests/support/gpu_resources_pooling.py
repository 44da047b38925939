"""Launches of pooling, similarity and pruning for the table of gpu_resources.py: common sizes."""

from unittest.mock import patch

import torch
from fastprompt.kernels import pooling, pruning
from fastprompt.kernels import pooling_similarity as similarity

SAME = {"prior, to unit, tf32", "prior, to unit, bfloat16"}  # as others


def empty(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


def pools():
    """As PANet calls it, 64 x 64 to 1024 x 1024."""
    mask = empty(1, 1, 1024, 1024, dtype=torch.uint8)
    pooling.masked_pool(empty(1, 512, 64, 64), mask, 0, False, True, None, 1e-5, 0.0)
    return "splat of a mask, with background", "masked mean"


def maps():
    names = []
    for dtype, count, kind in ((torch.float32, 2, 0), (torch.bfloat16, 60, 0), (torch.float32, 150, 1)):
        rows = empty(1, count, 512, dtype=dtype)
        similarity.similarity(empty(1, 512, 3600, dtype=dtype), rows, 20.0, 1e-8, 100.0, kind, "tf32x3")
        names.append(f"cosines, {count} rows{', softmax' if kind else ''}, {str(dtype).removeprefix('torch.')}")
    return names


def priors():
    names = []
    for dtype, precision in ((torch.float32, "tf32x3"), (torch.float32, "tf32"), (torch.bfloat16, "tf32")):
        x = empty(1, 2048, 3600, dtype=dtype)
        similarity.prior(x, x, empty(1, 3600, dtype=torch.float32), 1e-7, 1e-7, precision)
        name = "bfloat16" if dtype == torch.bfloat16 else precision
        names += [f"prior, {part}, {name}" for part in ("pack the query", "pack", "products", "to unit")]
    return names


def prunes():
    tokens, scores = empty(1, 4096, 768), empty(1, 4096, dtype=torch.float32)
    pruning.cosine_scores(tokens, empty(1, 8, 768))
    kept, indices = pruning.prune(tokens, scores, 2048)
    pruning.scatter(tokens, kept, indices, tokens.new_empty(tokens.shape))
    marks, limits = empty(1, 4096, dtype=torch.uint8), empty(1, 2, dtype=torch.int64)
    pruning.prune(tokens, scores, 2048, marks, 512, limits)
    pruning.gather(tokens, indices)
    wide, target = empty(1, 4096, 768, dtype=torch.float32), empty(1, 4096, dtype=torch.int64)
    pruning.merge(wide, scores, target, 2048)
    return (
        "token scores, 768 channels",
        "prune, 4096 tokens of 768",
        "restore, 4096 tokens of 768",
        "prune, 4096 tokens, marks and samples",
        "gather, 2048 tokens of 768",
        "merge, 4096 tokens of 768",
    )


def launches(record, arch):
    found = {}
    for module, calls in ((pooling, pools), (similarity, maps), (similarity, priors), (pruning, prunes)):
        with patch.object(similarity, "architecture", lambda x: arch):
            found |= record([module], calls)
    return {name: launch for name, launch in found.items() if name not in SAME}
