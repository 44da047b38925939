"""Masked pooling, cosine, prior and text maps, memory, CLIPSeg beside torch: published forms, and the strongest found.

python benchmarks/bench_pooling.py pool cosine --threads 1 2   # interleaved, minima, with the errors
pytest benchmarks/bench_pooling.py --benchmark-enable --benchmark-group-by=group --benchmark-sort=min

The errors are the largest differences from the formula in float64. What is published is rebuilt here from its formula.
"""

import argparse
import functools

import pytest
from harness import heading, interleaved, line

import fastprompt as fp

torch = pytest.importorskip("torch")
F = torch.nn.functional


def blobs(count, size, share=0.15):
    """Disks that cover a share of the picture, anywhere in it."""
    g = torch.Generator().manual_seed(1)
    y, x = torch.arange(size)[:, None] / size, torch.arange(size) / size
    centres, radius = torch.rand(count, 2, generator=g) * 0.4 + 0.3, (share / 3.14159) ** 0.5
    return torch.stack([((y - a) ** 2 + (x - b) ** 2).sqrt() < radius for a, b in centres]).float()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- pooling: features (C, h, w), masks (M, H, W)


def panet(features, masks, eps=1e-5):
    """The features are enlarged for every mask."""
    found = []
    for mask in masks:
        large = F.interpolate(features[None], size=mask.shape, mode="bilinear")
        found.append((large * mask[None, None]).sum((2, 3)) / (mask.sum() + eps))
    return torch.cat(found)


def enlarged_product(features, masks, eps=1e-5):
    large = F.interpolate(features[None], size=masks.shape[-2:], mode="bilinear")[0]
    return masks.flatten(1) @ large.flatten(1).T / (masks.sum((1, 2))[:, None] + eps)


@functools.cache
def matrix(inputs, outputs, align_corners=False):
    eye = torch.eye(inputs)[None, None]
    return F.interpolate(eye, size=(outputs, inputs), mode="bilinear", align_corners=align_corners)[0, 0].contiguous()


@functools.cache
def turned(inputs, outputs):
    return matrix(inputs, outputs).T.contiguous()


def three_lines(features, masks, eps=1e-5):
    """The same algebra as ours."""
    (h, w), (height, width) = features.shape[-2:], masks.shape[-2:]
    weight = (turned(h, height) @ masks @ matrix(w, width)).flatten(1)
    return weight @ features.flatten(1).T / (weight.sum(1, keepdim=True) + eps)


def pool_case(channels, small, large, count):
    features, masks = normal(channels, small, small), blobs(count, large)
    bits = masks > 0
    calls = {
        "fastprompt": lambda: fp.masked_average_pool(features, masks, preset="panet"),
        "fastprompt, bool mask": lambda: fp.masked_average_pool(features, bits, preset="panet"),
        "torch, three lines": lambda: three_lines(features, masks),
        "torch, enlarge, product": lambda: enlarged_product(features, masks),
        "PANet as published": lambda: panet(features, masks),
    }
    if count > 4:
        del calls["PANet as published"], calls["torch, enlarge, product"]
    wide, large_masks = features.double(), masks.double()
    exact = torch.cat([enlarged_product(wide[c : c + 32], large_masks) for c in range(0, channels, 32)], 1)
    return calls, exact


def weighted_gap(features, mask, eps=5e-4):
    """PFENet's function: features and mask (B, 1, h, w) of one size."""
    h, w = features.shape[-2:]
    area = F.avg_pool2d(mask, (h, w)) * h * w + eps
    return (F.avg_pool2d(features * mask, (h, w)) * h * w / area)[:, :, 0, 0]


def pfenet(features, masks):
    small = F.interpolate(masks[:, None], size=features.shape[-2:], mode="bilinear", align_corners=True)
    return torch.cat([weighted_gap(features[None], m[None]) for m in small])


def resized_product(features, masks, eps=5e-4):
    """The masks as a batch: as channels, interpolate takes 2 to 50 times as long."""
    size = features.shape[-2:]
    weight = F.interpolate(masks[:, None], size=size, mode="bilinear", align_corners=True).flatten(1)
    return weight @ features.flatten(1).T / (weight.sum(1, keepdim=True) + eps)


def resize_case(channels, small, large, count):
    features, masks = normal(channels, small, small), blobs(count, large)
    calls = {
        "fastprompt": lambda: fp.masked_average_pool(features, masks, preset="pfenet"),
        "torch, resize, product": lambda: resized_product(features, masks),
        "PFENet as published": lambda: pfenet(features, masks),
    }
    return calls, resized_product(features.double(), masks.double())


# ---------------------------------------------------------------- cosine maps: features (C, h, w), prototypes (P, C)


def cosine_loop(features, prototypes, scale=20.0):
    maps = [F.cosine_similarity(features[None], p[None, :, None, None], dim=1) * scale for p in prototypes]
    return torch.cat(maps)


def cosine_normalise(features, prototypes, scale=20.0):
    unit = F.normalize(features.flatten(1), dim=0)
    return (scale * F.normalize(prototypes, dim=1) @ unit).view(-1, *features.shape[1:])


def cosine_squares(features, prototypes, scale=20.0):
    flat = features.flatten(1)
    length = (flat * flat).sum(0).clamp_min(1e-16).rsqrt()
    return (scale * (F.normalize(prototypes, dim=1) @ flat) * length).view(-1, *features.shape[1:])


def cosine_ones(features, prototypes, scale=20.0):
    flat = features.flatten(1)
    length = (torch.ones(1, len(flat)) @ flat.square()).clamp_min(1e-16).rsqrt()
    return (scale * (F.normalize(prototypes, dim=1) @ flat) * length).view(-1, *features.shape[1:])


def cosine_case(channels, size, count):
    features, prototypes = normal(channels, size, size), normal(count, channels, seed=1)
    calls = {
        "fastprompt": lambda: fp.cosine_prototype_map(features, prototypes),
        "torch, squares": lambda: cosine_squares(features, prototypes),
        "torch, ones": lambda: cosine_ones(features, prototypes),
        "torch, normalize": lambda: cosine_normalise(features, prototypes),
        "PANet as published": lambda: cosine_loop(features, prototypes),
    }
    return calls, cosine_normalise(features.double(), prototypes.double())


# ---------------------------------------------------------------- prior mask: (C, h, w), (C, h, w), (H, W)


def to_unit(x, eps=1e-7):
    return (x - x.min()) / (x.max() - x.min() + eps)


def shrunk(mask, like):
    return F.interpolate(mask[None, None], size=like.shape[-2:], mode="bilinear", align_corners=True)[0, 0]


def pfenet_prior(query, support, mask, eps=1e-7):
    support = support * shrunk(mask, support)
    q, s = query.flatten(1)[None], support.flatten(1)[None].transpose(1, 2)
    lengths = torch.bmm(torch.norm(s, 2, 2, True), torch.norm(q, 2, 1, True))
    return to_unit((torch.bmm(s, q) / (lengths + eps)).max(1)[0][0])


def compact_prior(query, support, mask, dtype=torch.float32, chunk=None):
    """Only the pixels that the mask leaves; the others have the similarity 0."""
    kept = shrunk(mask, support).flatten() > 0
    a = F.normalize(support.flatten(1)[:, kept], dim=0).to(dtype).T
    b = F.normalize(query.flatten(1), dim=0).to(dtype)
    parts = [a] if chunk is None else a.split(chunk)
    most = functools.reduce(torch.maximum, [(part @ b).amax(0) for part in parts]).float()
    return to_unit(most if kept.all() else most.clamp_min(0))


def prior_case(channels, size, share):
    g = torch.Generator().manual_seed(0)
    query, support = (torch.randn(channels, size, size, generator=g).relu() for _ in range(2))
    mask = torch.ones(473, 473) if share == 1 else blobs(1, 473, share)[0]
    arguments, half = (query, support, mask), torch.bfloat16

    def ours(precision):
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            return fp.prior_mask(*arguments)[0].flatten()
        finally:
            torch.set_float32_matmul_precision(before)

    calls = {
        "fastprompt": functools.partial(ours, "highest"),
        "torch, compact": functools.partial(compact_prior, *arguments),
        "torch, compact, chunks": functools.partial(compact_prior, *arguments, chunk=256),
        "PFENet as published": functools.partial(pfenet_prior, *arguments),
        "fastprompt bf16": functools.partial(ours, "medium"),
        "torch, compact bf16": functools.partial(compact_prior, *arguments, half),
        "torch, compact, chunks bf16": functools.partial(compact_prior, *arguments, half, 256),
    }
    return calls, compact_prior(*(x.double() for x in arguments), torch.float64)


# ---------------------------------------------------------------- text maps: (C, h, w), (T, C)


def text_torch(features, text, temperature, kind):
    cosine = (F.normalize(text, dim=1) @ F.normalize(features.flatten(1), dim=0)).view(-1, *features.shape[1:])
    return cosine.argmax(0) if kind == "argmax" else (temperature * cosine).softmax(0)


def text_case(channels, size, count, kind):
    features, text = normal(channels, size, size), normal(count, channels, seed=1)
    calls = {
        "fastprompt": lambda: fp.text_similarity_map(features, text, reduce=kind, temperature=30.0),
        "torch, normalize": lambda: text_torch(features, text, 30.0, kind),
    }
    return calls, text_torch(features.double(), text.double(), 30.0, kind)


# ---------------------------------------------------------------- memory: (N, H, D), (M, H, D)


def memory_case(queries, keys, heads, width):
    q, k, v = (normal(n, heads, width, seed=s) for s, n in enumerate((queries, keys, keys)))
    turn = lambda x: x.transpose(0, 1)[None]  # noqa: E731
    read = lambda q, k, v: F.scaled_dot_product_attention(turn(q), turn(k), turn(v))[0].transpose(0, 1).flatten(1)  # noqa: E731
    calls = {"fastprompt": lambda: fp.memory_attention(q, k, v), "torch sdpa": lambda: read(q, k, v)}
    return calls, read(q.double(), k.double(), v.double())


# ---------------------------------------------------------------- CLIPSeg: one picture, several texts


def clipseg_case(texts):
    """ViT-B/16 and its decoder at 352 pixels, random weights; "known": the picture of the call before."""
    transformers = pytest.importorskip("transformers")
    vision = {"image_size": 352, "patch_size": 16, "hidden_size": 768, "intermediate_size": 3072}
    vision |= {"num_hidden_layers": 12, "num_attention_heads": 12}
    torch.manual_seed(0)
    config = transformers.CLIPSegConfig(vision_config=vision, reduce_dim=64)
    model = fp.accelerate(transformers.CLIPSegForImageSegmentation(config).eval())
    pixels, ids = normal(1, 3, 352, 352).repeat(texts, 1, 1, 1), torch.randint(1, 400, (texts, 7))

    def new():
        model.clip.vision_model.__dict__.pop("_fastprompt_picture", None)
        return model(pixel_values=pixels, input_ids=ids).logits

    def host():
        with fp.disabled():
            return model(pixel_values=pixels, input_ids=ids).logits

    known = lambda: model(pixel_values=pixels, input_ids=ids).logits  # noqa: E731
    return {"fastprompt": new, "fastprompt, known": known, "transformers": host}, host().double()


# ---------------------------------------------------------------- tables

CASES = {
    "pool": (
        pool_case,
        [(256, 60, 473, 1), (512, 60, 473, 1), (256, 64, 1024, 1), (512, 64, 1024, 1), (512, 60, 473, 16),
         (256, 64, 1024, 16)],
    ),
    "resize": (resize_case, [(256, 60, 473, 1), (512, 60, 473, 1), (256, 64, 1024, 16)]),
    "cosine": (cosine_case, [(256, 64, 2), (512, 60, 2), (512, 53, 2), (2048, 60, 2)]),
    "prior": (prior_case, [(2048, 60, 0.15), (2048, 60, 1), (512, 60, 0.15), (256, 64, 0.15)]),
    "text": (text_case, [(512, 64, 21, "argmax"), (512, 64, 150, "argmax"), (512, 64, 150, "softmax")]),
    "memory": (memory_case, [(1024, 4096, 1, 256), (4096, 8192, 1, 64)]),
    "clipseg": (clipseg_case, [(4,)]),
}  # fmt: skip


SLOW = {"prior": 5, "memory": 5, "clipseg": 2}  # rounds


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("kind", "case"), [(k, c) for k in CASES for c in CASES[k][1] if k != "clipseg"], ids=str)
@torch.no_grad()
def test_pooling(benchmark, kind, case, threads):
    torch.set_num_threads(threads)
    calls, exact = CASES[kind][0](*case)
    assert error(calls["fastprompt"](), exact) < 2e-5
    benchmark.group = f"{kind} {case}, {threads} threads"
    benchmark(calls["fastprompt"])


def error(found, exact):
    """For "argmax" the share of other pixels: ties of rounded numbers."""
    if not exact.is_floating_point():
        return float((found != exact).double().mean())
    return float((found.double().reshape(exact.shape) - exact).abs().max())


@torch.no_grad()
def table(kind, case, threads, rounds):
    torch.set_num_threads(threads)
    calls, exact = CASES[kind][0](*case)
    errors = {name: error(call(), exact) for name, call in calls.items()}
    seldom = {"PANet as published", "torch, enlarge, product"} if kind == "pool" else set()

    def repeat(name, n):
        return int(n <= 2) if name in seldom else 1 if kind in SLOW else 5

    times = interleaved(calls, rounds, threads, repeat=repeat)
    heading(f"{kind} {case}", threads, rounds, f", torch {torch.__version__}")
    for name, spent in times.items():
        base = times["fastprompt bf16" if name.endswith("bf16") else "fastprompt"]
        line(name, spent, base, f"error {errors[name]:.1e}", digits=3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, help="default 20; 5 of prior and memory, 2 of clipseg")
    options = parser.parse_args()
    for kind in options.kinds:
        for threads in options.threads:
            for case in CASES[kind][1]:
                table(kind, case, threads, options.rounds or (SLOW.get(kind, 20)))
