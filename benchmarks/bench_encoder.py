"""SAM's image encoder (ViT-B, 64 x 64 tokens): ours beside transformers, torch.compile, ONNX Runtime and OpenVINO.

python benchmarks/bench_encoder.py --threads 1 2     # interleaved: two windowed layers and a global one, a quarter
python benchmarks/bench_encoder.py --whole           # patch embedding, 12 layers and neck
pytest benchmarks/bench_encoder.py --benchmark-enable --benchmark-group-by=group --benchmark-sort=min

Random weights; the error is the largest difference from the eager host in float64 over the largest value.
"""

import argparse
import copy
import functools
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest
from harness import against, compared, computing, installed

import fastprompt as fp

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@functools.cache
@torch.no_grad()
def host(kind="sdpa", whole=False):
    """Layers 1, 2 and 3 (the last is global), or the encoder."""
    from transformers import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamVisionLayer, SamVisionModel

    config = SamVisionConfig(global_attn_indexes=[2, 5, 8, 11])
    config._attn_implementation = kind
    windows = (config.window_size, config.window_size, 0)
    model = (
        Encoder(SamVisionModel(config)) if whole else torch.nn.Sequential(*(SamVisionLayer(config, n) for n in windows))
    )
    g = torch.Generator().manual_seed(0)
    for name, p in model.named_parameters():
        norm = p.dim() == 1 and name.endswith("weight")
        std = 0.3 if "rel_pos" in name else 0.05 if p.dim() == 1 else p[0].numel() ** -0.5
        p.copy_(torch.randn(p.shape, generator=g) * std + norm)
    return model.eval().requires_grad_(False)


class Encoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x).last_hidden_state


@functools.cache
def pixels(whole=False):
    shape = (1, 3, 1024, 1024) if whole else (1, 64, 64, 768)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def transformers(kind, threads, whole, half=False):
    module, x = host(kind, whole), pixels(whole)

    def call():
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return module(x)

    return call


def ours(threads, whole, precision="highest", isa="best"):
    module, x = fp.accelerate(copy.deepcopy(host("sdpa", whole))), pixels(whole)

    def call():
        with computing(precision, isa):
            return module(x)

    return call


def compiled(threads, whole):
    module, x = torch.compile(copy.deepcopy(host("sdpa", whole)), dynamic=False), pixels(whole)
    module(x)
    return lambda: module(x)


@functools.cache
def onnx(whole):
    path = Path(tempfile.mkdtemp()) / "encoder.onnx"
    module = copy.deepcopy(host("eager", whole))
    torch.onnx.export(module, pixels(whole), path, dynamo=False, opset_version=17, input_names=["x"])
    return path


def onnxruntime(threads, whole):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(onnx(whole), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": pixels(whole).numpy()})[0]


def openvino(precision, threads, whole):
    import openvino

    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    request = core.compile_model(core.read_model(onnx(whole)), "CPU", config).create_infer_request()
    return lambda: request.infer([pixels(whole).numpy()], share_inputs=True)[0]


PEERS = {  # name: package, how to make it, largest error that is no defect
    "fastprompt fp32": ("fastprompt", ours, 1e-5),
    "  high": ("fastprompt", functools.partial(ours, precision="high"), 5e-5),
    "  medium": ("fastprompt", functools.partial(ours, precision="medium"), 2e-2),
    "  fp32 with AVX2": ("fastprompt", functools.partial(ours, isa="avx2"), 1e-5),
    "transformers eager": ("transformers", functools.partial(transformers, "eager"), 1e-5),
    "transformers sdpa": ("transformers", functools.partial(transformers, "sdpa"), 1e-5),
    "  bf16 autocast": ("transformers", functools.partial(transformers, "sdpa", half=True), 5e-2),
    "torch.compile": ("torch", compiled, 1e-5),
    "ONNX Runtime": ("onnxruntime", onnxruntime, 1e-5),
    "OpenVINO f32": ("openvino", functools.partial(openvino, "f32"), 1e-5),
    "OpenVINO bf16": ("openvino", functools.partial(openvino, "bf16"), 5e-2),
}


def make(name, threads, whole):
    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peers
        return PEERS[name][1](threads, whole)


@functools.cache
@torch.no_grad()
def wanted(whole):
    return copy.deepcopy(host("eager", whole)).double()(pixels(whole).double())


def error(got, whole):
    want = wanted(whole)
    return float((torch.as_tensor(got) - want).abs().max() / want.abs().max())


@pytest.mark.filterwarnings("ignore")  # of the peers
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", [n for n in PEERS if n != "torch.compile"])  # which takes minutes to set up
@torch.no_grad()
def test_encoder(benchmark, name, threads):
    if not installed(PEERS[name][0]):
        pytest.skip(f"{PEERS[name][0]} is not installed")
    benchmark.group = f"three layers, {threads} threads"
    benchmark.extra_info.update(version=version(PEERS[name][0]), threads=threads)
    assert error(benchmark(make(name, threads, False)), False) <= PEERS[name][2]


@torch.no_grad()
def table(threads, whole, rounds):
    calls = {name: make(name, threads, whole) for name in PEERS if installed(PEERS[name][0])}
    errors = {name: error(call(), whole) for name, call in calls.items()}
    compared("encoder" if whole else "three layers", calls, PEERS, errors, threads, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--against", nargs="+", help="only peers whose name contains one of these")
    options = parser.parse_args()
    PEERS = against(PEERS, options.against)
    for threads in options.threads:
        table(threads, options.whole, options.rounds)
