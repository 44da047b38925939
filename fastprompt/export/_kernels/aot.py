"""Triton kernels as PTX, compiled ahead of time and without a GPU, as an engine's plugin launches them."""

import re
from typing import Any, NamedTuple

ARCH = 80  # the PTX of sm_80 is compiled by the driver of every newer GPU; that of sm_90 (sm_90a) is not
PTX_VERSION = 80  # which drivers of CUDA 12.0 and newer know


class Kernel(NamedTuple):
    name: str
    ptx: str
    threads: int
    shared: int  # bytes


def compiled(
    function: Any, types: str, constants: dict[str, Any], warps: int, stages: int = 2, arch: int = ARCH
) -> Kernel:
    """``types``: "*fp32 i32 i32!" in the order of the arguments that are no constants; those with "!" are multiples of
    16, and pointers are aligned to 16 bytes."""
    try:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource
    except ImportError:
        raise ImportError("kernels of a plugin are compiled with triton: pip install triton") from None
    given = iter(types.split())
    signature = {name: "constexpr" if name in constants else next(given) for name in function.arg_names}
    aligned = [n for n, kind in enumerate(signature.values()) if kind[0] == "*" or kind[-1] == "!"]
    signature = {name: kind.removesuffix("!") for name, kind in signature.items()}
    source = ASTSource(
        fn=function, signature=signature, constexprs=constants, attrs={(n,): [["tt.divisibility", 16]] for n in aligned}
    )
    options = {"num_warps": warps, "num_stages": stages, "ptx_version": PTX_VERSION}
    made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    scratch = getattr(made.metadata, "global_scratch_size", 0)
    if scratch:
        raise ValueError(
            f"{made.metadata.name} needs {scratch} bytes of Triton's own scratch memory: no plugin has them"
        )
    count = sum(kind != "constexpr" for kind in signature.values())
    text = without_hidden_parameters(without_lines(made.asm["ptx"]), made.metadata.name, count)
    return Kernel(made.metadata.name, text, 32 * warps, made.metadata.shared)


def without_lines(ptx: str) -> str:
    """No source lines: they hold paths of the machine that compiled."""
    kept = re.sub(r"\n\t\.section\t\.debug_\w+\s*\{.*?\}", "", ptx, flags=re.DOTALL)
    return "\n".join(line for line in kept.split("\n") if not re.match(r"\s*(\.(loc|file)\s|//)", line))


def without_hidden_parameters(ptx: str, name: str, count: int) -> str:
    """Triton's launcher passes two pointers behind the arguments; others do not, and no kernel of ours reads them."""
    declared = re.findall(rf"\.param [^,)]*\b{name}_param_\d+", ptx)
    for text in declared[count:]:
        parameter = text.split()[-1]
        if len(re.findall(rf"\b{parameter}\b", ptx)) != 1:
            raise ValueError(f"{name} reads {parameter}, which only Triton's own launcher gives")
        ptx = re.sub(rf",\s*{re.escape(text)}", "", ptx)
    return ptx


def in_order(ptx: str, name: str, order: list[int]) -> str:
    """The parameters of a kernel declared in another order; its code reads them by name."""
    declared = re.findall(rf"\.param [^,)]*\b{name}_param_\d+", ptx)
    assert sorted(order) == list(range(len(declared))), (order, len(declared))
    first, last = ptx.index(declared[0]), ptx.index(declared[-1]) + len(declared[-1])
    return ptx[:first] + ",\n\t".join(declared[n] for n in order) + ptx[last:]
