"""SAM 2's memory attention, a whole call of the module: ours beside transformers and torch.compile.

python benchmarks/bench_memory.py --threads 1 2              # 4096 tokens, a bank of 7 frames and 64 pointers, 1 object
python benchmarks/bench_memory.py --objects 3 --rounds 3     # as transformers calls it, once for every object
pytest benchmarks/bench_memory.py --benchmark-enable --benchmark-group-by=group --benchmark-sort=min   # 1024 tokens

Random weights; the error is the largest difference from the eager host in float64 over the standard deviation.
"""

import argparse
import copy
import functools
import warnings
from importlib.metadata import version

import pytest
from harness import against, compared, computing, installed

import fastprompt as fp

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

FRAMES, POINTERS = 7, 64


@functools.cache
@torch.no_grad()
def host(kind, side):
    from transformers import Sam2VideoConfig
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoMemoryAttention

    config = Sam2VideoConfig()
    config._attn_implementation, config.memory_attention_rope_feat_sizes = kind, [side, side]
    module = Sam2VideoMemoryAttention(config).eval().requires_grad_(False)
    g = torch.Generator().manual_seed(0)
    for name, p in module.named_parameters():
        norm = p.dim() == 1 and name.endswith("weight")
        p.copy_(torch.randn(p.shape, generator=g) * (0.05 if p.dim() == 1 else p[0].numel() ** -0.5) + norm)
    return module


@functools.cache
def given(side, objects):
    """Of every object; they share the frame."""
    g = torch.Generator().manual_seed(1)
    tokens = side * side
    frame, places = (torch.randn(tokens, 1, 256, generator=g) for _ in range(2))
    bank = lambda: torch.randn(FRAMES * tokens + POINTERS, 1, 64, generator=g)  # noqa: E731
    return [(frame, bank(), places, bank(), POINTERS) for _ in range(objects)]


def frame_of(module, side, objects):
    """A frame of a video: what is known of its features is the last frame's at first."""

    def call():
        calls = [(x.clone(), memory, *rest) for x, memory, *rest in given(side, objects)[:1]]
        calls += [(calls[0][0], *rest) for _, *rest in given(side, objects)[1:]]
        return [module(*arguments) for arguments in calls][-1]

    return call


def transformers(kind, side, objects, half=False):
    call = frame_of(host(kind, side), side, objects)

    def autocast():
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return call()

    return autocast


def ours(side, objects, precision="highest"):
    call = frame_of(fp.accelerate(copy.deepcopy(host("sdpa", side))), side, objects)

    def computed():
        with computing(precision):
            return call()

    return computed


def compiled(side, objects):
    module = torch.compile(copy.deepcopy(host("sdpa", side)), dynamic=False)
    call = frame_of(module, side, objects)
    call()
    return call


ENGINE = fp._C.bf16() not in ("none", "plain")  # without one, every precision is float32
PEERS = {  # name: package, how to make it, largest error that is no defect
    "fastprompt fp32": ("fastprompt", ours, 1e-5),
    "  high": ("fastprompt", functools.partial(ours, precision="high"), 5e-5),
    "  medium": ("fastprompt", functools.partial(ours, precision="medium"), 5e-2),
    "transformers eager": ("transformers", functools.partial(transformers, "eager"), 1e-5),
    "transformers sdpa": ("transformers", functools.partial(transformers, "sdpa"), 1e-5),
    "  bf16 autocast": ("transformers", functools.partial(transformers, "sdpa", half=True), 1e-1),
    "torch.compile": ("torch", compiled, 1e-5),
}


PEERS = {name: peer for name, peer in PEERS.items() if ENGINE or name not in ("  high", "  medium")}


def make(name, threads, side, objects):
    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peers
        return PEERS[name][1](side, objects)


@functools.cache
@torch.no_grad()
def wanted(side, objects):
    """Without the matrix of weights: sdpa in float64."""
    features, *rest = given(side, objects)[-1]
    module = copy.deepcopy(host("sdpa", side)).double()
    return module(*(x.double() if isinstance(x, torch.Tensor) else x for x in (features, *rest)))


def error(got, side, objects):
    want = wanted(side, objects)
    return float((got - want).abs().max() / want.std())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", [n for n in PEERS if n != "torch.compile"])  # which takes minutes to set up
@torch.no_grad()
def test_memory_attention(benchmark, name, threads):
    benchmark.group = f"memory attention, 1024 tokens, {threads} threads"
    benchmark.extra_info.update(version=version(PEERS[name][0]), threads=threads)
    assert error(benchmark(make(name, threads, 32, 1)), 32, 1) <= PEERS[name][2]


@torch.no_grad()
def table(threads, side, objects, rounds):
    calls = {name: make(name, threads, side, objects) for name in PEERS if installed(PEERS[name][0])}
    errors = {name: error(call(), side, objects) for name, call in calls.items()}
    compared(f"memory attention, {side * side} tokens, objects = {objects}", calls, PEERS, errors, threads, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=64, help="of the frame, in tokens")
    parser.add_argument("--objects", type=int, nargs="+", default=[1])
    parser.add_argument("--against", nargs="+", help="only peers whose name contains one of these")
    options = parser.parse_args()
    PEERS = against(PEERS, options.against)
    for threads in options.threads:
        for objects in options.objects:
            table(threads, options.side, objects, options.rounds)
