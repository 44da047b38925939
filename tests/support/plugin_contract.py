"""A node as a plugin in TensorRT-lean's registry: what the host found, and the launches, executed."""

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import plugin_host
from ptx import Kernel

from fastprompt.export._kernels.plans import SEPARATOR
from fastprompt.export._tensorrt.plugins import WITH_PTX

NUMBERS = {"float32": 0, "float16": 1, "int32": 3, "bool": 4, "uint8": 4, "bfloat16": 7, "int64": 8}  # of TensorRT
DTYPES = {0: np.float32, 1: np.float16, 3: np.int32, 4: np.bool_, 7: np.uint16, 8: np.int64}


def field(name, value):
    kind = {int: "int", float: "float", list: "floats", str: "text"}[type(value)]
    if kind == "floats" and all(isinstance(x, int) for x in value):
        kind = "ints"
    return f"field {name} {kind} {' '.join(map(str, value)) if isinstance(value, list) else value}"


def ask(name, version, fields, inputs, with_driver=True, files=()):
    """Lines of the host. ``files``: names and texts of long fields."""
    lines = [f"plugin {name} {version}", *(field(k, v) for k, v in fields.items() if v != [])]
    with tempfile.TemporaryDirectory() as folder:
        for n, (key, text) in enumerate(files):
            path = Path(folder) / str(n)
            path.write_text(text)
            lines.append(f"field {key} file {path}")
        lines += [f"input {kind} {' '.join(map(str, shape))}" for kind, shape in inputs]
        environment = dict(os.environ)
        environment["LD_LIBRARY_PATH"] = str(plugin_host.driver()) if with_driver else ""
        done = subprocess.run(
            [plugin_host.host(), plugin_host.library()], input="\n".join(lines) + "\n", capture_output=True, text=True,
            env=environment, check=False,
        )  # fmt: skip
    assert "FAIL" not in done.stdout, done.stdout
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout.splitlines()


def of_kind(lines, word):
    return [line.split()[1:] for line in lines if line.split()[0] == word]


def described(inputs):
    return [(NUMBERS[x.dtype.name], x.shape) for x in inputs]


def geodesic(inputs, attributes, **options):
    """Lines of the host for GeodesicDistance: start as float32 and walls as bool, as the exported node's casts give them."""
    image, start, walls = inputs
    given = [image, start.astype(np.float32), walls.astype(np.bool_)]
    return ask("GeodesicDistance", "1", attributes, described(given), **options)


def carried(name, plan, inputs, **options):
    """Lines of the host for a node that brings its kernels."""
    files = [("plan", plan.text), ("ptx", plan.ptx)]
    return ask(name, WITH_PTX, {}, described(inputs), files=files, **options)


def executed(lines, plan, inputs):
    """The outputs that the recorded launches compute."""
    outputs = [np.full([int(n) for n in shape], 99, DTYPES[int(kind)]) for kind, *shape in of_kind(lines, "output")]
    workspace = np.full(int(of_kind(lines, "workspace")[0][0]), 255, np.uint8)
    buffers = {(1 + n) << 32: x for n, x in enumerate(inputs)} | {(101 + n) << 32: x for n, x in enumerate(outputs)}
    kernels = {k.name: k for k in map(Kernel, plan.ptx.split(SEPARATOR))}
    for launch, (name, *rest) in zip(plan.launches, of_kind(lines, "launch"), strict=True):
        numbers = [int(x) for x in rest]
        pairs = zip(launch.arguments, numbers[5:], strict=True)
        arguments = [as_float(x) if text[0] == "f" else argument(x, buffers, workspace) for text, x in pairs]
        kernels[name].launch(numbers[:3], numbers[3], arguments, numbers[4], check_blocks=True)
    return outputs


def as_float(bits):
    return float(np.uint32(bits).view(np.float32))


def argument(value, buffers, workspace):
    """An array for an address, a number for a number."""
    base = 1000 << 32
    if base <= value < base + workspace.size:
        return workspace[value - base :]
    return buffers.get(value, value)
