"""The attention of SAM's image encoder (ViT-B: 12 heads of 64), with its linear layers: ours beside transformers.

python benchmarks/bench_encoder_attention.py --threads 1 2              # interleaved, one table for each
python benchmarks/bench_encoder_attention.py --memory                   # peak of the resident memory, call by call
pytest benchmarks/bench_encoder_attention.py --benchmark-enable --benchmark-group-by=group --benchmark-sort=min

Random weights; "core" is the operator alone, "gradient" the module forward and backward.
"""

import argparse
import functools
import resource
import subprocess
import sys
from importlib.metadata import version

import pytest
from harness import heading, interleaved, line

import fastprompt as fp

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

SHAPES = {"global": (1, 64, 64), "windows": (25, 14, 14)}  # images, rows, columns
HEADS, WIDTH = 12, 64


@functools.cache
def module(kind, size):
    from transformers import SamVisionConfig
    from transformers.models.sam import modeling_sam

    config = SamVisionConfig(hidden_size=HEADS * WIDTH, num_attention_heads=HEADS, image_size=16 * size)
    name = {"eager": "SamVisionAttention"}.get(kind, "SamVisionSdpaAttention")
    host = getattr(modeling_sam, name)(config, 0 if size == 64 else size).eval()
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in host.named_parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (0.05 if p.dim() == 1 else 0.3 if "rel" in name else 768**-0.5))
    return fp.accelerate(host) if kind == "fastprompt" else host


@functools.cache
def tokens(shape):
    return torch.randn(*SHAPES[shape], HEADS * WIDTH, generator=torch.Generator().manual_seed(1))


def forward(kind, shape):
    layer, x = module(kind, SHAPES[shape][1]), tokens(shape)

    def call():
        with torch.no_grad():
            return layer(x)[0]

    return call


def in_place():
    """The windows of a 64 x 64 grid: ours where they lie, the host's between partition and its undoing."""
    layer, host = module("fastprompt", 14), module("sdpa", 14)
    x = torch.randn(1, 4096, HEADS * WIDTH, generator=torch.Generator().manual_seed(1))

    def ours():
        q, k, v = layer.qkv(x).unflatten(2, (3, HEADS, WIDTH)).unbind(2)
        padding = tuple(layer.qkv.bias.view(3, HEADS, WIDTH)[1:])
        tables = layer.rel_pos_h, layer.rel_pos_w
        out = fp.relative_position_attention(q, k, v, *tables, size=(64, 64), window=14, padding=padding)
        return layer.proj(out)

    def theirs(layer):
        cut = torch.nn.functional.pad(x.view(1, 64, 64, -1), (0, 0, 0, 6, 0, 6))
        cut = cut.view(1, 5, 14, 5, 14, -1).transpose(2, 3).reshape(25, 14, 14, -1)
        out = layer(cut)[0].view(1, 5, 5, 14, 14, -1).transpose(2, 3).reshape(1, 70, 70, -1)
        return out[:, :64, :64].reshape(1, 4096, -1)

    calls = {"fastprompt": ours, "sdpa": lambda: theirs(host), "eager": lambda: theirs(module("eager", 14))}
    return {kind: torch.no_grad()(call) for kind, call in calls.items()}


def gradient(kind, shape):
    layer, x = module(kind, SHAPES[shape][1]), tokens(shape)

    def call():
        return torch.autograd.grad(layer(x)[0].square().sum(), list(layer.parameters()))[0]

    return call


def core(shape):
    images, height, width = SHAPES[shape]
    g = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(images, height * width, 3, HEADS, WIDTH, generator=g).unbind(2)
    rel_h, rel_w = (torch.randn(2 * n - 1, WIDTH, generator=g) * 0.3 for n in (height, width))
    return lambda: fp.relative_position_attention(q, k, v, rel_h, rel_w, size=(height, width))


PEERS = ("fastprompt", "sdpa", "eager")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", PEERS)
def test_attention(benchmark, kind, shape, threads):
    torch.set_num_threads(threads)
    benchmark.group = f"{shape}, {threads} threads"
    benchmark.extra_info.update(version=version("transformers"), shape=shape, threads=threads)
    want = forward("eager", shape)()
    assert error(benchmark(forward(kind, shape)), want) <= 1e-5


def error(got, want):
    """Relative to the largest value."""
    return float((got - want).abs().max() / want.abs().max())


def table(what, shape, threads, rounds, kinds):
    torch.set_num_threads(threads)
    what, shape = ("windows in place", "windows") if shape == "in place" else (what, shape)
    if what == "windows in place":
        calls = in_place()
    else:
        calls = {kind: {"forward": forward, "gradient": gradient}[what](kind, shape) for kind in kinds}
    want = calls[kinds[-1]]()
    errors = {kind: error(call(), want) for kind, call in calls.items()}
    if what == "forward":
        calls["core"] = core(shape)
    times = interleaved(calls, rounds, threads)
    heading(f"{what}, {shape}", threads, rounds)
    for kind, spent in times.items():
        rate = f"{operations(shape) / min(spent) / 1e6:.0f} GFLOP/s"
        line(kind, spent, times["fastprompt"], f"max error {errors[kind]:.1e}" if kind in errors else rate, digits=1)


def operations(shape):
    images, height, width = SHAPES[shape]
    return 4 * images * HEADS * (height * width) ** 2 * WIDTH


def memory(kind, shape):
    """In a process of its own: how much higher the peak is after the call."""
    call = forward(kind, shape)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{shape:8s} {kind:12s} peak + {(after - before) / 1024:7.0f} MB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shapes", nargs="+", default=[*SHAPES, "in place"], choices=[*SHAPES, "in place"])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--gradient", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        memory(*options.one)
    elif options.memory:
        for shape in SHAPES:
            for kind in PEERS:
                subprocess.run([sys.executable, __file__, "--one", kind, shape], check=True)
    else:
        for threads in options.threads:
            for shape in options.shapes:
                table("gradient" if options.gradient else "forward", shape, threads, options.rounds, PEERS)
