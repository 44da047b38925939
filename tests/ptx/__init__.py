"""Runs PTX on the CPU: tests what nvcc and Triton really emit, on a machine without a GPU.

    from ptx import Kernel

    kernel = Kernel(open("saxpy.ptx").read(), "saxpy")  # nvcc -ptx -arch=sm_80 saxpy.cu
    kernel.launch((4,), (256,), [1000, 2.0, x, y])      # NumPy arrays, changed in place

All threads of a batch of blocks execute one PTX instruction as one NumPy operation. Every thread has its own program
counter and the smallest one runs first, so branches meet again; barriers and warp-synchronous instructions wait for
the threads they name. `order=` runs blocks or warps in another order and interleaving.

A `Fault` tells the instruction, block and thread of

- an access out of bounds (4 KiB of nothing follow every array), a misaligned one, a write to a read-only array;
- two warps touching shared memory with no barrier between (also `cp.async`, whose data arrive only at their wait), and
  with `check_blocks=True` two blocks touching one element, one of them writing. Accesses that are volatile, relaxed,
  acquire or release are exempt;
- a shuffle or vote that names a lane which is not there, or not the calling one;
- a barrier that not all threads reach, or different barriers in one block; a deadlock;
- any instruction, modifier, type or operand that is not understood: it is refused, not guessed.

Not supported: wgmma, tcgen05, TMA, mbarrier, clusters, textures, wmma, carry chains, indirect calls, recursion, f64 fma,
`grid.sync()` of cooperative groups (a hand-written barrier of all blocks works if they fit into one batch). printf
prints nothing.

Not like a GPU: approximate functions (ex2, lg2, sin, tanh, rsqrt, ...) are as exact as NumPy's; an mma sums in float32
in any order; lanes of a warp move together, so a missing __syncwarp is not seen; memory is sequentially consistent; no
time is measured. fma rounds once, .ftz flushes.
"""

from .kernel import Kernel
from .source import Module
from .values import Fault

__all__ = ["Fault", "Kernel", "Module"]
