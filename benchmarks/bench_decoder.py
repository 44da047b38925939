"""SAM's mask decoder, image embedding given: ours beside transformers, torch.compile, ONNX Runtime and OpenVINO.

python benchmarks/bench_decoder.py --threads 1 2 --prompts 1 16 64   # interleaved, one table for each
pytest benchmarks/bench_decoder.py --benchmark-enable --benchmark-group-by=group --benchmark-sort=min

Random weights of SAM's sizes, logits of standard deviation 1. Peers that are not installed are left out.
"""

import argparse
import copy
import functools
import io
import warnings
from importlib.metadata import version

import pytest
from harness import against, compared, computing, installed

import fastprompt as fp

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

SPARSE = {1: 2, 10: 11}  # tokens of a prompt: its points, and one of padding


@functools.cache
@torch.no_grad()
def decoder():
    from transformers import SamConfig
    from transformers.models.sam.modeling_sam import SamMaskDecoder

    config = SamConfig().mask_decoder_config
    config._attn_implementation = "sdpa"
    module, generator = SamMaskDecoder(config).eval().requires_grad_(False), torch.Generator().manual_seed(0)
    for name, p in module.named_parameters():
        std = 0.5 if "token" in name.split(".")[0] else 0.05 if p.dim() == 1 else p[0].numel() ** -0.5
        p.copy_(torch.randn(p.shape, generator=generator) * std + (p.dim() == 1 and name.endswith("weight")))
    return module


@functools.cache
def inputs(prompts, points):
    g = torch.Generator().manual_seed(1)
    image = torch.randn(1, 256, 64, 64, generator=g) * 0.3
    position = torch.nn.functional.normalize(torch.randn(1, 256, 64, 64, generator=g), dim=1) * 11.3
    dense = (torch.randn(1, 256, 1, 1, generator=g) * 0.1).expand(1, 256, 64, 64)
    return image, position, torch.randn(1, prompts, SPARSE[points], 256, generator=g), dense


def host(arguments, threads):
    module = decoder()

    def call():
        with fp.disabled():
            return module(*arguments, True)[0]

    return call


def ours(arguments, threads, precision="highest", isa="best"):
    module = fp.accelerate(copy.deepcopy(fp.restore(decoder())))

    def call():
        with computing(precision, isa):
            return module(*arguments, True)[0]

    return call


def compiled(arguments, threads):
    module = torch.compile(fp.restore(copy.deepcopy(decoder())), dynamic=False)
    module(*arguments, True)
    return lambda: module(*arguments, True)[0]


@functools.cache
def onnx(points):
    """Exported from the host, with any number of prompts."""
    file = io.BytesIO()
    module = fp.restore(copy.deepcopy(decoder()))
    module.config._attn_implementation = "eager"
    torch.onnx.export(
        Wrapper(module), inputs(3, points), file, dynamo=False, opset_version=17,
        input_names=["image", "position", "sparse", "dense"], output_names=["masks"],
        dynamic_axes={"sparse": {1: "prompts"}, "masks": {1: "prompts"}},
    )  # fmt: skip
    return file.getvalue()


class Wrapper(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *arguments):
        return self.module(*arguments, True)[0]


def onnxruntime(arguments, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(onnx(points_of(arguments)), options, providers=["CPUExecutionProvider"])
    feed = dict(zip(("image", "position", "sparse", "dense"), (x.contiguous().numpy() for x in arguments), strict=True))
    return lambda: session.run(None, feed)[0]


def openvino(precision, arguments, threads):
    import openvino

    core = openvino.Core()
    model = core.read_model(io.BytesIO(onnx(points_of(arguments))))
    model.reshape({k: list(x.shape) for k, x in zip(("image", "position", "sparse", "dense"), arguments, strict=True)})
    config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    request = core.compile_model(model, "CPU", config).create_infer_request()
    feed = [x.contiguous().numpy() for x in arguments]
    return lambda: request.infer(feed, share_inputs=True)[0]


def points_of(arguments):
    return next(k for k, n in SPARSE.items() if n == arguments[2].shape[2])


PEERS = {  # name: package, how to make it, largest error that is no defect
    "fastprompt fp32": ("fastprompt", ours, 2e-5),
    "  high": ("fastprompt", functools.partial(ours, precision="high"), 2e-4),
    "  medium": ("fastprompt", functools.partial(ours, precision="medium"), 5e-2),
    "  fp32 with AVX2": ("fastprompt", functools.partial(ours, isa="avx2"), 2e-5),
    "transformers sdpa": ("transformers", host, 0),
    "torch.compile": ("torch", compiled, 2e-5),
    "ONNX Runtime": ("onnxruntime", onnxruntime, 2e-5),
    "OpenVINO f32": ("openvino", functools.partial(openvino, "f32"), 2e-5),
    "OpenVINO bf16": ("openvino", functools.partial(openvino, "bf16"), 0.3),
}


def make(name, arguments, threads):
    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peers
        return PEERS[name][1](arguments, threads)


def error(got, want):
    return float((torch.as_tensor(got) - want).abs().max())


@pytest.mark.filterwarnings("ignore")  # of the peers
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("prompts", [1, 16])
@pytest.mark.parametrize("name", [n for n in PEERS if n != "torch.compile"])  # which takes a minute to set up
@torch.no_grad()
def test_decoder(benchmark, name, prompts, threads):
    if not installed(PEERS[name][0]):
        pytest.skip(f"{PEERS[name][0]} is not installed")
    arguments = inputs(prompts, 1)
    benchmark.group = f"{prompts} prompts, {threads} threads"
    benchmark.extra_info.update(version=version(PEERS[name][0]), prompts=prompts, threads=threads)
    call = make(name, arguments, threads)
    want = host(arguments, threads)()
    assert error(benchmark(call), want) <= PEERS[name][2]


@torch.no_grad()
def table(prompts, points, threads, rounds):
    arguments = inputs(prompts, points)
    calls = {name: make(name, arguments, threads) for name in PEERS if installed(PEERS[name][0])}
    want = host(arguments, threads)()
    errors = {name: error(call(), want) for name, call in calls.items()}
    compared(f"{prompts} prompts of {points} points", calls, PEERS, errors, threads, rounds, digits=2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for flag, values in (("--threads", [1, 2]), ("--prompts", [1, 16]), ("--points", [1])):
        parser.add_argument(flag, type=int, nargs="+", default=values)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--against", nargs="+", help="only peers whose name contains one of these")
    options = parser.parse_args()
    PEERS = against(PEERS, options.against)
    for threads in options.threads:
        for prompts in options.prompts:
            for points in options.points:
                table(prompts, points, threads, options.rounds if prompts == 1 else 5 if prompts < 64 else 3)
