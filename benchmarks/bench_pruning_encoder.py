"""Pruned encoders: time against the share that is kept, and against the ratio of multiplications (the FLOP ideal).

python benchmarks/bench_pruning_encoder.py --threads 1            # one period of SAM ViT-B, ViT-S, ViT-B; interleaved
python benchmarks/bench_pruning_encoder.py sam --blocks 12        # the whole encoder
pytest benchmarks/bench_pruning_encoder.py --benchmark-enable --benchmark-group-by=group --benchmark-sort=min

Random weights. "sam": the image encoder of SAM ViT-B at 1024 pixels, by default two windowed blocks and a global one,
with the windows nearest to a click in the middle. "vit": timm's, whole, by the length of their tokens. The ideal is the
time of all tokens in the same run times the share of the multiplications, patches and neck among them.
"""

import argparse
import contextlib
import functools
from importlib.metadata import version

import pytest
from harness import heading, interleaved, line

import fastprompt as fp

torch = pytest.importorskip("torch")

WINDOWS = (25, 20, 16, 11, 6)  # of 25
VITS = {  # pixels, blocks, at
    "vit_small_patch16_224": (512, 12, 3),
    "vit_base_patch16_224": (1024, 4, 1),
}
KEEPS = (1.0, 0.65, 0.45)


def picture(size):
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))


@functools.cache
def sam(blocks, kind):
    """``kind``: windows that stay, "sdpa" (transformers) or "dense" (accelerated, not pruned)."""
    pytest.importorskip("transformers")
    from transformers import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamVisionEncoder

    model = SamVisionEncoder(SamVisionConfig(num_hidden_layers=blocks, global_attn_indexes=list(range(2, blocks, 3))))
    g = torch.Generator().manual_seed(0)
    for name, p in model.eval().named_parameters():
        p.data = torch.randn(p.shape, generator=g) * (0.3 if "rel" in name else 0.05 if p.dim() == 1 else 768**-0.5)
    if kind == "sdpa":
        return model
    prune = None if kind == "dense" else fp.Prune(keep=kind / 25, at=0, score="prompt")
    return fp.accelerate(model, prune=prune)


def click():
    return fp.prompt(points=[[512, 512]])


def sam_call(blocks, kind):
    model, x = sam(blocks, kind), picture(1024)

    def call():
        with click() if isinstance(kind, int) else contextlib.nullcontext():
            return model(x).last_hidden_state

    return call


def sam_work(blocks, windows):
    """Tokens and multiplications with the windows that this click keeps, which are not all of one size."""
    from fastprompt.nn.parts.pruned import convolution_weights, linear_weights

    model, outside = sam(blocks, windows), 4096 * convolution_weights(sam(blocks, windows))
    with click():
        kept = model.select(model.patch_embed(picture(1024)))
    tokens = kept.tokens.shape[1]
    inside = sum((part.stop - part.start) * height * width for part, (height, width) in kept.windows)
    layers = (tokens * linear_weights(x) + 2 * 768 * (inside if x.window_size else tokens**2) for x in model.layers)
    return tokens, outside + sum(layers)


def sam_case(blocks):
    calls = {n: sam_call(blocks, n) for n in ("sdpa", "dense", *WINDOWS)}
    all_tokens, work = sam_work(blocks, 25)
    notes, base = {}, calls["sdpa"]()
    for n in WINDOWS:
        tokens, part = sam_work(blocks, n)
        notes[n] = {"tokens": tokens / all_tokens, "ideal": part / work}
    for n in ("dense", 25):
        notes.setdefault(n, {})["error"] = float((calls[n]() - base).abs().max() / base.abs().max())
    return calls, notes


@functools.cache
def vit(name, keep):
    timm = pytest.importorskip("timm")
    size, depth, at = VITS[name]
    torch.manual_seed(0)
    model = timm.create_model(name, img_size=size, num_classes=0, depth=depth).eval()
    return fp.accelerate(model, prune=fp.Prune(keep=keep, at=at)) if keep else model


def vit_case(name):
    x = picture(VITS[name][0])
    calls = {keep or "host": functools.partial(vit(name, keep), x) for keep in (0, *KEEPS)}
    notes = {}
    for keep in KEEPS:
        found = fp.report(vit(name, keep)).pruned[""]
        notes[keep] = {"tokens": found.tokens[-1] / found.tokens[0], "ideal": found.share}
    notes[1.0]["error"] = float((calls[1.0]() - calls["host"]()).abs().max())
    return calls, notes


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["sdpa", "dense", *WINDOWS])
@torch.no_grad()
def test_sam_period(benchmark, kind, threads):
    torch.set_num_threads(threads)
    benchmark.group = f"SAM ViT-B, 2 windowed + 1 global block, {threads} threads"
    benchmark.extra_info.update(version=version("transformers"), threads=threads)
    if isinstance(kind, int):
        (every, work), (tokens, part) = sam_work(3, 25), sam_work(3, kind)
        benchmark.extra_info.update(windows=kind, tokens=tokens / every, flop_ideal=part / work)
    got = benchmark.pedantic(sam_call(3, kind), rounds=3, warmup_rounds=1)
    if kind in ("dense", 25):
        want = sam_call(3, "sdpa")()
        assert float((got - want).abs().max() / want.abs().max()) <= 1e-5


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("keep", [0, *KEEPS])
@pytest.mark.parametrize("name", VITS)
@torch.no_grad()
def test_vit(benchmark, name, keep, threads):
    torch.set_num_threads(threads)
    benchmark.group = f"{name}, {threads} threads"
    benchmark.extra_info.update(version=version("timm"), threads=threads, keep=keep)
    if keep:
        benchmark.extra_info["flop_ideal"] = fp.report(vit(name, keep)).pruned[""].share
    got = benchmark.pedantic(vit(name, keep), (picture(VITS[name][0]),), rounds=3, warmup_rounds=1)
    if keep == 1:
        assert torch.equal(got, vit(name, 0)(picture(VITS[name][0])))


@torch.no_grad()
def table(title, calls, notes, threads, rounds, base):
    torch.set_num_threads(threads)
    times = interleaved(calls, rounds, threads)
    heading(title, threads, rounds)
    whole = min(times[base])
    for kind, spent in times.items():
        note, text = notes.get(kind, {}), ""
        if "ideal" in note:
            over = 100 * (min(spent) / whole / note["ideal"] - 1)
            text = f"tokens {note['tokens']:5.3f}  ideal {note['ideal']:5.3f}  over it {over:+5.1f} %"
        line(kind, spent, times[base], text + (f"  error {note['error']:.1e}" if "error" in note else ""), digits=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", default=["sam", "vit"], help="sam, vit")
    parser.add_argument("--blocks", type=int, default=3, help="of SAM, every third of them global (3)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    for threads in options.threads:
        if "sam" in options.kinds:
            with torch.no_grad():
                calls, notes = sam_case(options.blocks)
            name = f"SAM ViT-B, 1024 px, {options.blocks} blocks, transformers {version('transformers')}"
            table(name, calls, notes, threads, options.rounds, 25)
        for name in VITS if "vit" in options.kinds else ():
            with torch.no_grad():
                calls, notes = vit_case(name)
            table(f"{name}, {VITS[name]}, timm {version('timm')}", calls, notes, threads, options.rounds, "host")
