"""``fastprompt.export.tensorrt``: an engine from an ONNX file, or why there is none, before TensorRT is asked."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastprompt._choices import choice
from fastprompt.export._onnx.precision import cast_model
from fastprompt.export._tensorrt import model as lowering
from fastprompt.export._tensorrt import profiles
from fastprompt.export._tensorrt.plugins import Library

TARGETS = {
    "tensorrt": ("tensorrt", "pip install tensorrt"),
    "tensorrt-rtx": ("tensorrt_rtx_libs", "pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings"),
}
PRECISIONS = ("float32", "tf32", "float16", "bfloat16")
CAPABILITIES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")  # that TensorRT-RTX 1.7 builds for


class Built(NamedTuple):
    """What :func:`tensorrt` has built; ``print`` it."""

    path: str
    size: int  # bytes
    target: str
    version: str
    precision: str
    capabilities: tuple[str, ...]
    profile: dict[str, profiles.Range]  # by axis
    inputs: dict[str, tuple[str | int, ...]]  # axes of each: a name or a fixed size
    nodes: list[str]
    notes: list[str]

    def fits(self, **shapes: Sequence[int]) -> None:
        """ValueError unless the engine takes inputs of these shapes: ``built.fits(points=(70, 3, 2))``."""
        for name, shape in shapes.items():
            if name not in self.inputs:
                raise ValueError(f"{name} is no input of this engine: {', '.join(self.inputs)}")
            axes = self.inputs[name]
            if len(axes) != len(shape):
                raise ValueError(f"{name} must have {len(axes)} axes, got shape {tuple(shape)}")
            for axis, size in zip(axes, shape, strict=True):
                low, _, high = self.profile[axis] if isinstance(axis, str) else (axis, axis, axis)
                if not low <= size <= high:
                    raise ValueError(
                        f"axis {axis} of {name} must be {low} to {high}, as this engine was built, got {size}"
                    )

    def __str__(self) -> str:
        lines = [
            f"engine      {self.path}, {self.size / 2**20:.1f} MB",
            f"built with  {self.target} {self.version} for {', '.join(self.capabilities) or 'this GPU'}",
            f"precision   {self.precision}"
            + ("" if "32" in self.precision[-3:] else "; LayerNorm and softmax float32"),
        ]
        lines += [f"axis        {name} {sizes}" for name, sizes in self.profile.items()]
        lines += [f"nodes       {text}" for text in self.nodes]
        return "\n".join(lines + [f"note        {text}" for text in self.notes])


def tensorrt(
    onnx: Any,
    engine: Any,
    *,
    profile: str = "",
    precision: str = "float32",
    target: str | None = None,
    capabilities: str | Sequence[str] = (),
    plugins: Any = None,
    workspace: int = 0,
    timeout: float | None = None,
) -> Built:
    r"""Build an engine of TensorRT or TensorRT-RTX from an ONNX file, with profiles for all its dynamic axes.

    Every node of ours becomes a plugin, where ``plugins`` has one, or the standard ONNX that it means. The build runs
    in a process of its own. TensorRT builds for the GPU of this machine; TensorRT-RTX builds without one as well.

    Args:
        onnx: path of a file of :func:`onnx`, any flavor, or of any other ONNX file; or a ``ModelProto``.
        engine: path of the engine that is written.
        profile: smallest, usual and largest size of each dynamic axis, ``"prompts=1:8:64,points=1:3:10"``; one number
            for all three. Axes that it does not name: batch 1:1:4, prompts 1:8:64, points 1:3:10; any other must be
            named. An axis without a name is called ``input.axis``.
        precision: "float32"; "tf32", products with 10 bits; "float16" or "bfloat16", products in it, and LayerNorm,
            softmax, sums and coordinates in float32. Inputs and outputs keep their types.
        target: "tensorrt" or "tensorrt-rtx"; default: the one that is installed.
        capabilities: of TensorRT-RTX, "sm_86", "sm_89", "sm_120" ...: GPUs to build for; default: this machine's.
        plugins: path of ``libfastprompt_tensorrt.so`` (docs/tensorrt.md), which goes into the engine; of TensorRT only.
        workspace: bytes that the kernels may take at a time; 0: TensorRT's default.
        timeout: seconds; default: none.

    Returns:
        :class:`Built`. ``built.fits(points=points.shape)`` says before a call whether the engine takes it.

    Raises:
        ValueError: naming the argument, what it was and what is expected: an axis that is not the model's, an opset
            that is too old, a dtype that TensorRT does not have, a TopK over its limit, a node with neither plugin nor
            form.
        ImportError: neither TensorRT nor TensorRT-RTX is installed.
        RuntimeError: TensorRT refuses the model, with its messages.

    Example:
        >>> import fastprompt as fp
        >>> print(fp.export.tensorrt("decoder.onnx", "decoder.plan", profile="prompts=1:1:16"))  # doctest: +SKIP
    """
    import onnx as onnx_package

    target = check(precision, target)
    model = onnx if isinstance(onnx, onnx_package.ModelProto) else onnx_package.load(onnx)
    names = wanted(capabilities, target, precision)
    if plugins is not None and target == "tensorrt-rtx":
        raise ValueError("plugins are for TensorRT only: TensorRT-RTX takes none")
    library = Library(plugins, model, precision)
    lowering.check(model)
    found = profiles.ranges(model, profile)
    annotated = library.annotated(found)
    lowering.check_pruning(annotated, found, library.why_not)
    lowered, lines = lowering.lowered(annotated, library.why_not)
    lowering.check(lowered)
    if precision in ("float16", "bfloat16"):
        lowered = cast_model(lowered, precision, library.halves)
    job = {
        "engine": os.fspath(engine),
        "target": target,
        "shapes": profiles.shapes(model, found),
        "tf32": precision == "tf32",
        "workspace": workspace,
        "capabilities": [name.upper().replace("_", "") for name in names],
        "plugins": [] if plugins is None else [os.fspath(plugins)],
    }
    result = build(lowered, job, timeout)
    inputs = {
        v.name: tuple(d.dim_param or (d.dim_value if d.HasField("dim_value") else f"{v.name}.{k}") for k, d in
                      enumerate(v.type.tensor_type.shape.dim))
        for v in model.graph.input
    }  # fmt: skip
    size, notes = os.path.getsize(engine), lowering.notes(lowered)
    return Built(os.fspath(engine), size, target, result["version"], precision, names, found, inputs, lines, notes)


def check(precision: str, target: str | None) -> str:
    """The target that is meant."""
    choice("precision", precision, PRECISIONS)
    choice("target", target, (*TARGETS, None))
    candidates = TARGETS if target is None else {target: TARGETS[target]}
    for name, (module, _) in candidates.items():
        if installed(module) or (name == "tensorrt-rtx" and installed("tensorrt_rtx")):
            return name
    ways = ", or ".join(way for _, way in candidates.values())
    raise ImportError(f"{' or '.join(candidates)} is not installed: {ways}")


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def wanted(capabilities: str | Sequence[str], target: str, precision: str) -> tuple[str, ...]:
    names = (capabilities,) if isinstance(capabilities, str) else tuple(capabilities)
    if names and target == "tensorrt":
        raise ValueError("capabilities are for TensorRT-RTX only: TensorRT builds for the GPU of this machine")
    for name in names:
        if name not in CAPABILITIES:
            raise ValueError(f"capabilities must be of {', '.join(CAPABILITIES)}, got {name!r}")
    if "sm_75" in names and precision != "float16":
        raise ValueError(
            f"precision must be 'float16' for sm_75 (TensorRT-RTX has no other products), got {precision!r}"
        )
    return names


def build(model: Any, job: dict[str, Any], timeout: float | None) -> dict[str, Any]:
    """What the other process found; RuntimeError with TensorRT's messages."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        done = subprocess.run(
            [sys.executable, "-m", "fastprompt.export._tensorrt.build"],
            input=json.dumps({**job, "onnx": str(path)}),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    last = done.stdout.strip().split("\n")[-1]
    result: dict[str, Any] = json.loads(last) if last.startswith("{") else {}
    if done.returncode or "error" in result:
        log = "\n".join(line for line in (done.stdout + done.stderr).split("\n") if line and line != last)
        why = result.get("error", f"the build ended with code {done.returncode}")
        raise RuntimeError(f"{job['target']} refuses the model: {why}\n{log}".strip())
    return result


__all__ = ["Built", "tensorrt"]
