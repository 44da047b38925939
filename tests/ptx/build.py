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
# Keywords of a Triton launch; the others are constants.
OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion", "launch_cooperative_grid")


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
    """A CompiledKernel for sm_``arch``. ``types``: "*fp32 i32", or a list that holds a tuple where an argument is one,
    in the order of the arguments that are not constants; a trailing "!" says divisible by 16, as pointers are always:
    without it loads are not vectorised."""
    triton = pytest.importorskip("triton", reason="triton is not installed")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    given = iter(types.split() if isinstance(types, str) else types)
    signature = {name: "constexpr" if name in constants else next(given) for name in function.arg_names}
    aligned = [path for path, kind in paths(signature.values()) if kind[0] == "*" or kind[-1] == "!"]
    signature = {name: plain(kind) for name, kind in signature.items()}
    source = ASTSource(
        fn=function,
        signature=signature,
        constexprs=constants,
        attrs={path: [["tt.divisibility", 16]] for path in aligned},
    )
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def paths(kinds):
    """(where, type) of every argument, and of every element of those that are tuples."""
    for i, kind in enumerate(kinds):
        yield from [((i,), kind)] if isinstance(kind, str) else [((i, j), inner) for j, inner in enumerate(kind)]


def plain(kind):
    return kind.removesuffix("!") if isinstance(kind, str) else tuple(map(plain, kind))


def compile_launch(kernel, args, constants, arch):
    """What ``kernel[grid](*args, **constants)`` would compile on sm_``arch``."""
    constants = dict(constants)
    options = {name: constants.pop(name) for name in OPTIONS if name in constants}
    return compile_triton(kernel, [type_of(a) for a in args], constants, arch, **options)


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
        each = [x for a in args for x in (a if isinstance(a, tuple) else (a,))]
        arrays = [array_of(x) if hasattr(x, "dtype") else x for x in each]
        self.count += run_triton(compiled, grid, arrays, **self.launch)


def type_of(argument):
    """Triton's name of an argument's type, a tuple of names for a tuple."""
    if isinstance(argument, tuple):
        return tuple(map(type_of, argument))
    if hasattr(argument, "dtype"):
        names = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "u8"}
        name = str(argument.dtype).removeprefix("torch.")
        return "*" + names.get(name, name.replace("int", "i"))
    if isinstance(argument, float):
        return "fp32"
    return "i32!" if argument % 16 == 0 else "i32"


def array_of(tensor):
    """The tensor's memory, of a view from its first element to its last; NumPy has no bfloat16."""
    import torch

    reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    tensor = tensor.as_strided((reach + 1 if tensor.numel() else 0,), (1,))
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
