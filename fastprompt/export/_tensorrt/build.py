"""Parses and builds in a process of its own, because TensorRT's parser may end the process that it runs in:
``python -m fastprompt.export._tensorrt.build``, the job as JSON on stdin, the result as the last line of stdout."""

import ctypes
import importlib
import json
import sys
from pathlib import Path
from typing import Any

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


def load(target: str) -> Any:
    """The Python module of TensorRT or of TensorRT-RTX; the wheels of the latter carry another name."""
    try:
        return importlib.import_module(MODULES[target])
    except ImportError:
        if target != "tensorrt-rtx":
            raise
    libraries = importlib.import_module("tensorrt_rtx_libs")
    for name in ("tensorrt_rtx", "tensorrt_onnxparser_rtx"):
        path = next(Path(str(libraries.__file__)).parent.glob(f"*{name}.so.*"))
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)  # the bindings look their symbols up
    return importlib.import_module("tensorrt_rtx_bindings")


def parsed(trt: Any, builder: Any, logger: Any, path: str) -> Any:
    """The network, strongly typed: TensorRT keeps the types of the file."""
    flags = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flags is None else 1 << int(flags))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(path):
        raise RuntimeError("; ".join(said(parser.get_error(n)) for n in range(parser.num_errors)))
    return network


def said(error: Any) -> str:
    """The parser takes an operator that it does not know for a plugin that is missing."""
    place = f"{error.node_operator()} (node {error.node()} {error.node_name()})".replace(" )", ")")
    return f"unknown operator {place}" if "Plugin not found" in error.desc() else f"{place}: {error.desc()}"


def configured(trt: Any, builder: Any, job: dict[str, Any]) -> Any:
    config = builder.create_builder_config()
    if job["shapes"]:
        profile = builder.create_optimization_profile()
        for name, sizes in job["shapes"].items():
            profile.set_shape(name, *sizes)
        config.add_optimization_profile(profile)
    (config.set_flag if job["tf32"] else config.clear_flag)(trt.BuilderFlag.TF32)
    if job["workspace"]:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job["workspace"])
    if job["capabilities"]:
        config.num_compute_capabilities = len(job["capabilities"])
        for n, name in enumerate(job["capabilities"]):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), n)
    if job["plugins"]:
        config.plugins_to_serialize = job["plugins"]  # the engine carries the library
    return config


def main() -> None:
    job = json.load(sys.stdin)
    trt = load(job["target"])
    logger = trt.Logger(trt.Logger.WARNING)
    for path in job["plugins"]:
        if trt.get_plugin_registry().load_library(path) is None:
            raise RuntimeError(f"{path} is no plugin library of this TensorRT")
    builder = trt.Builder(logger)
    network = parsed(trt, builder, logger, job["onnx"])
    config = configured(trt, builder, job)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError("the engine could not be built; TensorRT's messages stand above")
    Path(job["engine"]).write_bytes(bytes(plan))
    print(json.dumps({"version": trt.__version__, "layers": network.num_layers}))


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        print(json.dumps({"error": str(error)}))
        sys.exit(1)
