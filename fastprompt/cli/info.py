"""Versions, threads, instruction set, and every backend with the reason if it is off."""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
from typing import Any

from fastprompt import _gpu
from fastprompt._text import table

# Distributions under which a package may be installed, the plain one first.
PACKAGES = {
    "numpy": ("numpy",),
    "torch": ("torch",),
    "triton": ("triton", "triton-windows", "pytorch-triton"),
    "onnx": ("onnx",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11"),
}
VARIABLES = ("FASTPROMPT_BACKEND", "FASTPROMPT_ISA", "OMP_NUM_THREADS")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")


def run(options: argparse.Namespace) -> int:
    facts = gather()
    print(json.dumps(facts, indent=2) if options.json else text(facts))
    return 0


def gather() -> dict[str, Any]:
    """Everything that a problem report needs; imports none of the optional packages."""
    import fastprompt as fp
    from fastprompt import _C

    return {
        "versions": {"fastprompt": fp.__version__, "python": platform.python_version(), **versions()},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": fp.get_num_threads(),
        "isa": _C.isa(),
        "best_isa": _C.best_isa(),
        "bf16": _C.bf16(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "backends": backends(),
        "operators": operators(),
    }


def versions() -> dict[str, str | None]:
    return {package: version(*names) for package, names in PACKAGES.items()}


def version(*names: str) -> str | None:
    """The installed version of the first of these distributions, without importing it."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def backends() -> dict[str, dict[str, Any]]:
    """Each backend: available, and where it is off the reason and the fix."""
    on: dict[str, Any] = {"available": True, "reason": None, "fix": None}
    states = {"cpu": on, "reference": on}
    for name in _gpu.BACKENDS:
        why = _gpu.reason(name)
        states[name] = on if why is None else {"available": False, "reason": why, "fix": _gpu.fix(name)}
    return states


def operators() -> dict[str, list[str]]:
    """The backends of every public function."""
    from fastprompt._selftest import WITHOUT_KERNEL, operators

    return {name: ["numpy"] if name in WITHOUT_KERNEL else ["cpu", "reference"] for name in operators()}


def text(facts: dict[str, Any]) -> str:
    threads = f"{facts['threads']} (cores: {facts['cores']})"
    best = "the best here" if facts["isa"] == facts["best_isa"] else f"the best here is {facts['best_isa']}"
    machine = [("platform", facts["platform"]), ("threads", threads), ("instructions", f"{facts['isa']} ({best})")]
    machine.append(("bfloat16", facts["bf16"]))
    machine += list(facts["environment"].items())
    states = []
    for name, state in facts["backends"].items():
        states.append((name, "on" if state["available"] else "off", state["reason"] or ""))
        if state["fix"]:
            states.append(("", "", f"fix: {state['fix']}"))
    parts: dict[str, list[Any]] = {
        "versions": [(name, number or "not installed") for name, number in facts["versions"].items()],
        "machine": machine,
        "backends": states,
        "operators": [(name, ", ".join(kinds)) for name, kinds in facts["operators"].items()],
    }
    return "\n\n".join(f"{title}\n{table(rows)}" for title, rows in parts.items())
