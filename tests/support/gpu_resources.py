"""What each GPU kernel takes of each architecture, as ptxas and cuobjdump say: docs/gpu_resources.md.

python tests/support/gpu_resources.py             # prints the table
python tests/support/gpu_resources.py --write     # `make gpu-table`
"""

import contextlib
import functools
import importlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest.mock
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TABLE = ROOT / "docs/gpu_resources.md"
ARCHS = [75, 80, 87, 89, 90, 100, 120]
HEADER = """# What the GPU kernels take

Written by `make gpu-table`, checked by `tests/gpu/test_gpu_resources.py`. Occupancy is computed from the columns before it.
Spills are bytes per thread. Wide loads are the instructions of the machine code that read 128 bits a thread (LDG.E.128
and, into shared memory, LDGSTS.E.128); the other geodesic kernels read single pixels by way of shared memory.

{versions}

| kernel | sm | threads | registers | spills | shared bytes | blocks per SM | occupancy | wide loads |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


class Row(NamedTuple):
    kernel: str
    sm: int
    threads: int
    registers: int
    spills: int
    shared: int
    wide_loads: int

    def line(self):
        blocks = resident_blocks(self)
        share = blocks * self.threads / LIMITS[self.sm][0]
        cells = [self.kernel, self.sm, self.threads, self.registers, self.spills, self.shared]
        return f"| {' | '.join(map(str, cells))} | {blocks} | {share:.0%} | {self.wide_loads} |"


# Per multiprocessor: threads, KiB of shared memory, blocks.
LIMITS = {75: (1024, 64, 16), 80: (2048, 164, 32), 86: (1536, 100, 16), 87: (1536, 164, 16), 89: (1536, 100, 24),
          90: (2048, 228, 32), 100: (2048, 228, 32), 120: (1536, 100, 24)}  # fmt: skip


def resident_blocks(row):
    """Blocks that one multiprocessor holds: registers go by 256 to a warp, warps by four, shared memory by 128 bytes."""
    threads, shared, blocks = LIMITS[row.sm]
    warps, own = -(-row.threads // 32), 0 if row.sm < 80 else 1024  # bytes of shared memory that the system takes
    by_registers = 65536 // (-(-row.registers * 32 // 256) * 256) // 4 * 4 // warps
    unit = 256 if row.sm < 80 else 128
    by_shared = shared * 1024 // max(unit, -(-(row.shared + own) // unit) * unit)
    return min(threads // (32 * warps), blocks, by_registers, by_shared)


def families():
    """The modules beside this one that know the kernels of a family: ``launches(record, arch)``, ``cuda_rows(arch)``."""
    sys.path.insert(0, str(HERE))
    return [importlib.import_module(path.stem) for path in sorted(HERE.glob("gpu_resources_*.py"))]


# ---------------------------------------------------------------- CUDA C++


def cuda_rows(arch):
    for module in families():
        if hasattr(module, "cuda_rows"):
            yield from module.cuda_rows(arch)
    for method in ("raster", "raster_volume", "exact", "gradient"):
        with tempfile.TemporaryDirectory() as folder:
            cubin = Path(folder) / "k.cubin"
            source = ROOT / f"csrc/geodesic/cuda_{method}.cu"
            options = ["-std=c++17", f"-I{ROOT / 'csrc'}", "-fmad=false", f"-arch=sm_{arch}"]
            run("nvcc", "-cubin", *options, "-o", cubin, source)
            for name, usage, code in kernels_of(cubin):
                what, threads = geodesic_kernel(method, name)
                yield row(what, arch, threads, usage, 0, code)


def geodesic_kernel(method, name):
    """(what the table calls it, threads of a block) of a kernel in csrc/geodesic/cuda_{method}.cu."""
    if "turn" in name:
        return f"geodesic raster, {'turn to the result' if 'Lb1E' in name else 'turn'}", 256
    metric = ("fastgeodis", "geodistk", "geodistk_fm")[int(re.search(r"MetricE(\d)", name)[1])]
    if "costs" in name:
        return f"geodesic raster costs, {metric}", 256
    volume = "Lb1E" in name or method == "raster_volume"
    threads = {"raster": 32, "raster_volume": 384, "exact": (256, 512)[volume], "gradient": 256}[method]
    return f"geodesic {method.removesuffix('_volume')}{' of volumes' if volume else ''}, {metric}", threads


# ---------------------------------------------------------------- Triton


class Recorder:
    """Stands for a Triton kernel in its launcher, and notes how it would be launched."""

    def __init__(self, kernel, launches):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        return lambda *args, **constants: self.launches.append((self.kernel, args, constants))


def record(modules, calls):
    """{name: (kernel, arguments, constants and options)} of what ``calls()`` launches; it returns the names in order."""
    with contextlib.ExitStack() as stack:
        launches = []
        for module in modules:
            for name in [n for n in vars(module) if n.endswith("_kernel")]:
                kernel = getattr(module, name)  # modules share some
                recorder = kernel if isinstance(kernel, Recorder) else Recorder(kernel, launches)
                stack.enter_context(unittest.mock.patch.object(module, name, recorder))
        names = calls()
    return dict(zip(names, launches, strict=True))


def triton_launches(arch):
    """{name: (kernel, arguments, constants and options)} of common sizes, as the launchers have them on sm_``arch``."""
    return {name: launch for module in families() for name, launch in module.launches(record, arch).items()}


def triton_rows(arch):
    from ptx.build import compile_launch

    for name, (kernel, args, constants) in triton_launches(arch).items():
        compiled = compile_launch(kernel, args, constants, arch)
        with tempfile.TemporaryDirectory() as folder:
            cubin = Path(folder) / "k.cubin"
            cubin.write_bytes(compiled.asm["cubin"])
            ((_, usage, code),) = kernels_of(cubin)
        yield row(name, arch, 32 * compiled.metadata.num_warps, usage, compiled.metadata.shared, code)


# ---------------------------------------------------------------- tools


def run(*command):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True).stdout


@functools.cache
def cuobjdump():
    import triton

    return Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


def kernels_of(cubin):
    """(name, resources, machine code) of every kernel in a cubin."""
    found = re.findall(r"Function ([\w$]+):\s*\n\s*(REG.*)", run(cuobjdump(), "-res-usage", cubin))
    code = dict(
        re.findall(r"Function : ([\w$]+)\n(.*?)(?=Function : |\Z)", run(cuobjdump(), "-sass", cubin), re.DOTALL)
    )
    return [(name, {k: int(v) for k, v in re.findall(r"(\w+):(\d+)", usage)}, code[name]) for name, usage in found]


def row(name, arch, threads, usage, dynamic, code):
    spills = usage["STACK"] + usage["LOCAL"]
    static = max(0, usage["SHARED"] - (1024 if arch >= 90 else 0))  # cuobjdump adds what the system takes, if any
    wide = len(re.findall(r"\bLDG(?:STS)?\.E\.(?:\w+\.)*128", code))
    return Row(name, arch, threads, usage["REG"], spills, static + dynamic, wide)


def versions():
    """The line of the table that says which compilers made it."""
    nvcc = re.search(r"V([0-9.]+)", run("nvcc", "--version"))[1] if shutil.which("nvcc") else "none"
    try:
        import triton
    except ImportError:
        return f"nvcc {nvcc}, Triton none"
    return f"nvcc {nvcc}, Triton {triton.__version__}"


def rows(archs):
    for arch in archs:
        yield from cuda_rows(arch)
        if arch >= 80:  # sm_75 has no bfloat16, and 64 KiB of shared memory are too little for the attention's tiles
            yield from triton_rows(arch)


def committed():
    """(versions, the lines) of the table in docs."""
    lines = TABLE.read_text().splitlines()
    made_by = next(line for line in lines if line.startswith("nvcc "))
    return made_by, [line for line in lines if re.match(r"\| .*\| \d+ \|", line)]


def main(arguments):
    text = HEADER.format(versions=versions())
    for found in sorted(rows(ARCHS)):
        text += found.line() + "\n"
    if "--write" in arguments:
        TABLE.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(sys.argv[1:])
