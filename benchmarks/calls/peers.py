"""How a host is called by each peer: a name, the package that it needs, and how a call of it is made."""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

import fastprompt as fp


@dataclass
class Job:
    """What a child process works on."""

    host: str
    peer: str
    precision: str
    threads: int
    small: bool
    cache: str


OURS = "fastprompt"
# By name: the package, and the precisions in which the peer differs from itself; torch's own switch is set for all.
PEERS = {
    OURS: ("fastprompt", ("highest", "high", "medium")),
    "eager": ("torch", ("highest", "high", "medium")),
    "sdpa": ("torch", ("highest", "high", "medium")),
    "bf16 autocast": ("torch", ("medium",)),
    "torch.compile": ("torch", ("highest", "high", "medium")),
    "ONNX Runtime": ("onnxruntime", ("highest", "high", "medium")),
    "OpenVINO f32": ("openvino", ("highest", "high", "medium")),
    "OpenVINO bf16": ("openvino", ("medium",)),
}
COMPILED = ["vision_encoder", "image_encoder", "memory_attention", "memory_encoder", "mask_decoder", "sam_mask_decoder"]


def chosen(host, names, precision):
    """The peers of a host in this precision: the reference, ours, and of the rest those of ``names`` (None: all)."""
    able = [*host.kinds, *(name for name in PEERS if name not in ("eager", "sdpa"))]
    if not any(call.plain for call in host.calls.values()):
        able = [name for name in able if not is_export(name)]
    able = [name for name in able if precision in PEERS[name][1]]
    return [name for name in able if name in (host.kinds[0], OURS) or names is None or name in names]


def is_export(name):
    return name.startswith(("ONNX", "OpenVINO"))


def prepared(job, host):
    """The model as this peer has it."""
    if "bf16" in job.peer and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise NotImplementedError("no bfloat16 on this CPU: one call would take minutes")
    torch.set_num_threads(job.threads)
    torch.set_float32_matmul_precision(job.precision)
    exports = is_export(job.peer)
    model = host.build(job.peer if job.peer in host.kinds else host.kinds[0] if exports else host.kinds[-1], job.small)
    if job.peer == OURS:
        fp.accelerate(inner(model))
    return model


def inner(model):
    """The module of a predictor."""
    return model if isinstance(model, torch.nn.Module) else model.model


def made(job, call, name, model, folder):
    """A function that does the call once."""
    if is_export(job.peer):
        module, inputs = call.plain(model)
        path = exported(job, name, module, inputs)
        feeds = [x.numpy() for x in inputs]
        return onnxruntime(path, feeds, job.threads) if job.peer == "ONNX Runtime" else openvino(path, feeds, job)
    if job.peer == "torch.compile" and call.plain:
        module, inputs = call.plain(model)
        module = torch.compile(module, dynamic=False)
        return lambda: module(*inputs)
    if job.peer == "torch.compile":  # of a video: what is compiled there
        for part in COMPILED:
            if hasattr(model, part):
                getattr(model, part).compile(dynamic=False)
    run = call.make(model) if call.plain else call.make(model, folder)
    if job.peer != "bf16 autocast":
        return run

    def cast():
        with torch.autocast("cpu", torch.bfloat16):
            return run()

    return cast


def exported(job, name, module, inputs):
    """The file of a call, made once; by torch's older exporter, if that can: its files are no slower."""
    known = "-".join([job.host, name, str(job.small), *(version(p) for p in ("torch", "onnx"))])
    path = Path(job.cache) / f"{hashlib.sha256(known.encode()).hexdigest()[:12]}.onnx"
    if not path.exists():
        half, names = path.with_suffix(".part"), [f"x{n}" for n in range(len(inputs))]
        with torch.no_grad():
            try:
                torch.onnx.export(module, tuple(inputs), half, dynamo=False, opset_version=17, input_names=names)
            except Exception:
                torch.onnx.export(
                    module, tuple(inputs), half, dynamo=True, input_names=names, external_data=False, verbose=False
                )
        half.rename(path)
    return path


def onnxruntime(path, feeds, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    feed = {f"x{n}": x for n, x in enumerate(feeds) if f"x{n}" in wanted}
    return lambda: session.run(None, feed)


def openvino(path, feeds, job):
    import openvino

    core = openvino.Core()
    hint = job.peer.split()[1]
    config = {"INFERENCE_NUM_THREADS": job.threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    request = core.compile_model(core.read_model(path), "CPU", config).create_infer_request()
    names = {name for port in request.model_inputs for name in port.names}
    feed = {f"x{n}": x for n, x in enumerate(feeds) if f"x{n}" in names}
    return lambda: list(request.infer(feed, share_inputs=True).values())
