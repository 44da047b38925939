"""What nvcc and Triton make of our kernels, without a GPU. A missing tool skips the test that asks for it."""

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from .kernel import Kernel
from .source import Module

ROOT = Path(__file__).parent.parent.parent


def nvcc(*arguments):
    """Runs nvcc; what it prints. Skips where it is not installed."""
    if not shutil.which("nvcc"):
        pytest.skip("nvcc is not installed")
    done = subprocess.run(["nvcc", "-std=c++17", f"-I{ROOT / 'csrc'}", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr + done.stdout


@functools.cache
def cuda_ptx(source, arch, *options):
    """The PTX of a .cu file, named from the root of the repository."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.ptx"
        nvcc("-ptx", f"-arch=sm_{arch}", *options, "-o", str(target), str(ROOT / source))
        return target.read_text()


@functools.cache
def cuda_module(source, arch, *options):
    return Module(cuda_ptx(source, arch, *options))


def compile_triton(function, types, constants, arch, **options):
    """A CompiledKernel for sm_``arch``. ``types``: "*fp32 i32" in the order of the arguments that are not constants;
    a trailing "!" says divisible by 16, as pointers are always: without it loads are not vectorised."""
    triton = pytest.importorskip("triton", reason="triton is not installed")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    given = iter(types.split())
    signature = {name: "constexpr" if name in constants else next(given) for name in function.arg_names}
    aligned = [i for i, kind in enumerate(signature.values()) if kind[0] == "*" or kind[-1] == "!"]
    signature = {name: kind.removesuffix("!") for name, kind in signature.items()}
    source = ASTSource(
        fn=function,
        signature=signature,
        constexprs=constants,
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def compile_launch(kernel, args, constants, arch):
    """What ``kernel[grid](*args, **constants)`` would compile on sm_``arch``."""
    constants = dict(constants)
    names = ("num_warps", "num_stages", "launch_cooperative_grid")
    options = {name: constants.pop(name) for name in names if name in constants}
    return compile_triton(kernel, " ".join(type_of(a) for a in args), constants, arch, **options)


def run_triton(compiled, grid, args, **options):
    """Executes a CompiledKernel; None stands for a null pointer."""
    kernel = Kernel(compiled.asm["ptx"])
    return kernel.launch(grid, 32 * compiled.metadata.num_warps, args, compiled.metadata.shared, **options)


class OnPtx:
    """Stands for a Triton kernel in its launcher: ``kernel[grid](*tensors and numbers, **constants)`` compiles it for
    sm_``arch`` and executes the PTX on the CPU tensors."""

    def __init__(self, kernel, arch, **launch):
        self.kernel, self.arch, self.launch, self.count = kernel, arch, launch, 0

    def __getitem__(self, grid):
        return lambda *args, **constants: self.run(grid, args, constants)

    def run(self, grid, args, constants):
        compiled = compile_launch(self.kernel, args, constants, self.arch)
        arrays = [array_of(a) if hasattr(a, "dtype") else a for a in args]
        self.count += run_triton(compiled, grid, arrays, **self.launch)


def type_of(argument):
    """Triton's name of an argument's type."""
    if hasattr(argument, "dtype"):
        names = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "u8"}
        name = str(argument.dtype).removeprefix("torch.")
        return "*" + names.get(name, name.replace("int", "i"))
    if isinstance(argument, float):
        return "fp32"
    return "i32!" if argument % 16 == 0 else "i32"


def array_of(tensor):
    """The tensor's memory; NumPy has no bfloat16."""
    import torch

    assert tensor.is_contiguous()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
