"""Exported SAM models in ONNX Runtime and OpenVINO, with our kernels and without: the same file, the same session.

python benchmarks/bench_export.py --threads 1 2 --prompts 1 16   # decoder and encoder, interleaved, one table for each
pytest benchmarks/bench_export.py --benchmark-enable --benchmark-group-by=group --benchmark-sort=min

Random weights of SAM's sizes. Decoder: image known, P prompts of one point and one of padding; "new image": another one
at every call; "masks": with a mask prompt each. Encoder: ViT-B's width, two layers, one with windows and one without,
1024 x 1024 pixels. The targets: with ours at least twice as fast as the same runtime without, with 1 and 2 threads.
"""

import argparse
import functools
import io
import itertools
import os
import tempfile
import warnings
from importlib.metadata import version

import numpy as np
import pytest
from harness import heading, interleaved, line

import fastprompt as fp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@functools.cache
@torch.no_grad()
def sam():
    vision = transformers.SamVisionConfig(num_hidden_layers=2, global_attn_indexes=[1])
    torch.manual_seed(0)
    model = transformers.SamModel(transformers.SamConfig(vision_config=vision)).eval().requires_grad_(False)
    for name, p in model.named_parameters():
        std = 0.5 if "token" in name.split(".")[1] else 0.05 if p.dim() == 1 else p[0].numel() ** -0.5
        p.copy_(torch.randn(p.shape) * std + (p.dim() == 1 and name.endswith("weight")))
    return model


@functools.cache
def files(part):
    """The bytes of flavor portable and inlined, and the module that was exported."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for flavor in ("portable", "inlined"):
            path = os.path.join(folder, f"{flavor}.onnx")
            options = {"part": "encoder"} if part == "encoder" else {"mask_prompts": part == "masks"}
            fp.export.onnx(sam(), path, flavor=flavor, **options)
            with open(path, "rb") as file:
                found.append(file.read())
    return found


@functools.cache
def inputs(part, prompts):
    g = torch.Generator().manual_seed(1)
    if part == "encoder":
        return (torch.randn(1, 3, 1024, 1024, generator=g).numpy(),)
    labels = torch.ones(prompts, 2, dtype=torch.int64)
    labels[:, 1] = -1
    points = torch.rand(prompts, 2, 2, generator=g) * 1024
    found = [torch.randn(1, 256, 64, 64, generator=g) * 0.3, points, labels]
    if part == "masks":
        found += [torch.randn(prompts, 1, 256, 256, generator=g), torch.ones(prompts)]
    return tuple(x.numpy() for x in found)


def each_call(part, arrays):
    """What a call of the peers begins with: nothing, or another image."""
    if part != "new image":
        return lambda: None
    values = itertools.cycle((0.0, 1e-6))  # other bits, the same masks
    return lambda: arrays[0].flat.__setitem__(0, next(values))


def onnxruntime(registered, part, arrays, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if registered:
        fp.export.onnxruntime.register(options)
    session = onnxruntime.InferenceSession(files(part)[0], options, providers=["CPUExecutionProvider"])
    feed, begin = dict(zip((x.name for x in session.get_inputs()), arrays, strict=True)), each_call(part, arrays)
    return lambda: (begin(), session.run(None, feed)[0])[1]


def openvino(kind, part, arrays, threads):
    import openvino

    core = openvino.Core()
    for extension in fp.export.openvino_extension(kind) if kind else ():
        core.add_extension(extension)
    model = core.read_model(io.BytesIO(files(part)[0 if kind else 1]))
    model.reshape({x.any_name: list(a.shape) for x, a in zip(model.inputs, arrays, strict=True)})
    config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request, begin = core.compile_model(model, "CPU", config).create_infer_request(), each_call(part, arrays)
    return lambda: (begin(), request.infer(list(arrays), share_inputs=True)[0])[1]


PEERS = {  # name: package, how to make it
    "ONNX Runtime with ours": ("onnxruntime", functools.partial(onnxruntime, True)),
    "ONNX Runtime": ("onnxruntime", functools.partial(onnxruntime, False)),
    "OpenVINO with ours": ("openvino", functools.partial(openvino, "c++")),
    "OpenVINO with ours in Python": ("openvino", functools.partial(openvino, "python")),
    "OpenVINO": ("openvino", functools.partial(openvino, None)),
}
LIMIT = 1e-4  # largest difference, of the largest number


def make(name, part, prompts, threads):
    torch.set_num_threads(threads)
    fp.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter
        arrays = tuple(x.copy() for x in inputs(part, prompts))  # "new image" writes into them
        return PEERS[name][1](part, arrays, threads)


def error(got, want):
    return float(np.abs(got - want).max() / max(1, np.abs(want).max()))


@pytest.mark.filterwarnings("ignore")  # of the exporter
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("part", "prompts"), [("decoder", 1), ("decoder", 16), ("new image", 1), ("masks", 1), ("encoder", 1)]
)
@pytest.mark.parametrize("name", PEERS)
def test_export(benchmark, name, part, prompts, threads):
    pytest.importorskip(PEERS[name][0])
    benchmark.group = f"{part}, {prompts} prompts, {threads} threads"
    benchmark.extra_info.update(version=version(PEERS[name][0]), prompts=prompts, threads=threads)
    want = make("ONNX Runtime", part, prompts, threads)()
    assert error(benchmark(make(name, part, prompts, threads)), want) <= LIMIT


def table(part, prompts, threads, rounds):
    calls = {name: make(name, part, prompts, threads) for name in PEERS}
    want = {name: call() for name, call in calls.items()}
    errors = {name: error(x, want["ONNX Runtime"]) for name, x in want.items()}
    times = interleaved(calls, rounds, threads)
    heading(f"{part}, {prompts} prompts", threads, rounds)
    for name, spent in times.items():
        base = times[f"{name.partition(' with ours')[0]} with ours"]
        line(name, spent, base, f"{version(PEERS[name][0])}  max error {errors[name]:.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--parts", nargs="+", default=["decoder", "new image", "masks", "encoder"])
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    for threads in options.threads:
        for part in options.parts:
            for prompts in options.prompts if part in ("decoder", "masks") else [1]:
                table(part, prompts, threads, options.rounds if prompts == 1 else 4)
