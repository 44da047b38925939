"""Calls of the public functions of pooling, similarity and pruning: what test_gpu_pooling.py and test_gpu_pruning.py make
on a GPU, and on tensors that only say that they are there."""

import torch

import fastprompt as fp
from fastprompt.compat import panet, pfenet

HALVES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def marks(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) > 0.6


def pool(**options):
    def call(features, mask):
        found = fp.masked_average_pool(features, mask, **options)
        return torch.cat(found, -2) if isinstance(found, tuple) else found

    return call


MASKS = (normal(0, 2, 37, 20, 23), marks(1, 2, 3, 157, 181))
PAIR = (normal(2, 2, 70, 15, 17), normal(3, 2, 3, 70, 15, 17), marks(4, 2, 3, 113, 130))
TEXT = (normal(5, 2, 48, 19, 21), normal(6, 30, 48))
POOLING = {  # function of floating-point tensors and masks, arguments
    "panet": (pool(preset="panet", background=True), MASKS),
    "sgone, soft": (pool(preset="sgone"), (MASKS[0], MASKS[1].float())),
    "pfenet": (pool(preset="pfenet"), MASKS),
    "persam": (pool(preset="persam"), MASKS),
    "matcher": (pool(preset="matcher"), (normal(7, 2, 9, 8, 8), marks(8, 2, 2, 112, 112))),
    "shots": (pool(preset="panet"), (normal(9, 2, 3, 5, 12, 12), marks(10, 2, 3, 1, 97, 60))),
    "cosine_prototype_map": (fp.cosine_prototype_map, (TEXT[0], TEXT[1][:2])),
    "cosine_prototype_map, many": (fp.cosine_prototype_map, TEXT),
    "softmax": (lambda x, t: fp.text_similarity_map(x, t, temperature=10.0, reduce="softmax"), TEXT),
    "denoise": (lambda x, t: fp.text_similarity_map(x, t, temperature=10.0, denoise=0.2), TEXT),
    "templates": (lambda x, t: fp.text_similarity_map(x, t.view(6, 5, 48)), TEXT),
    "prior_mask": (lambda q, s, m: fp.prior_mask(q, s, m, size=(20, 21)), PAIR),
    "film": (fp.film, (normal(11, 1, 8, 5, 6), normal(12, 3, 8), normal(13, 3, 8))),
    "getFeatures": (panet.getFeatures, (MASKS[0][:1], MASKS[1][0, :1])),
    "calDist": (panet.calDist, (TEXT[0], TEXT[1][:1])),
    "Weighted_GAP": (pfenet.Weighted_GAP, (MASKS[0], MASKS[1][:, :1])),
    "pfenet.prior_mask": (
        lambda q, s, m: pfenet.prior_mask(q, s.unbind(1), m.float()[:, :, None].unbind(1), (15, 17)),
        PAIR,
    ),
}


def pruned(**options):
    def call(tokens, scores):
        kept, restore = fp.prune_tokens(tokens[:, 1:], scores, **options)
        return torch.cat([kept, restore(-kept), restore(kept, 0)], 1)

    return call


def in_place(tokens, scores):
    tokens = tokens.clone()
    kept, restore = fp.prune_tokens(tokens[:, 1:], scores, count=20)
    restore(kept * 2, inplace=True)
    return tokens


def merged(tokens, size):
    y, sizes, unmerge = fp.merge_tokens(tokens, r=40, size=size, protected=1)
    return torch.cat([y, y * sizes[..., None].to(y.dtype), unmerge(y)], 1)


TOKENS = (normal(20, 3, 131, 48), normal(21, 3, 130).mul(4).round())  # many ties
PLACE = {"grid": (10, 13), "patch": 16}
PRUNING = {
    "prompts": (lambda x, p: fp.token_scores(x[:, 1:], prompts=p), (TOKENS[0], normal(22, 1, 4, 48))),
    "points": (
        lambda x, p: fp.token_scores(x[:, 1:], points=p, boxes=p.view(1, 1, 4), points_weight=0.01, **PLACE),
        (TOKENS[0], torch.tensor([[[20.0, 30.0], [140.0, 150.0]]])),
    ),
    "mask": (lambda x, m: fp.token_scores(x[:, 1:], mask=m, **PLACE), (TOKENS[0], marks(23, 1, 160, 208).float())),
    "keep": (pruned(keep=0.4), TOKENS),
    "stride_mix": (pruned(count=61, stride_mix=0.3), TOKENS),
    "padded": (pruned(threshold=1.0, pad=70, stride_mix=0.2), TOKENS),
    "always": (
        lambda x, s: pruned(count=40, stride_mix=0.5, always_keep=torch.arange(130, device=s.device) % 9 == 0)(x, s),
        TOKENS,
    ),
    "in place": (in_place, TOKENS),
    "merge_tokens": (merged, (TOKENS[0], normal(24, 3, 131).abs() + 0.5)),
}
DIFFERENTIABLE = ("panet", "sgone, soft", "pfenet", "cosine_prototype_map", "softmax", "film", "prompts", "keep",
                  "padded", "merge_tokens")  # fmt: skip
TOLERANCE = {"fp32": 2e-5, "fp16": 4e-3, "bf16": 3e-2}  # of the largest value
