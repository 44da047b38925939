"""Executes all that a launcher of csrc/geodesic/cuda_*.cu launches, in its order, with the grids that it computes."""

import ctypes
import functools
import struct
import tempfile
from pathlib import Path

import numpy as np

from .build import ROOT, nvcc
from .kernel import Kernel

SOURCES = [f"csrc/geodesic/cuda_{name}.cu" for name in ("raster", "raster_volume", "exact")]
TOLD = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint), ctypes.POINTER(ctypes.c_uint), ctypes.POINTER(ctypes.c_void_p)
)
ADDRESSES = [(1 << 40) + (n << 33) for n in range(5)]  # of the arrays of a call


@functools.cache
def library():
    """The launchers, with our own runtime."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "launch.so"
        sources = (str(ROOT / s) for s in [*SOURCES, "tests/ptx/launch.cu", "tests/ptx/runtime.cpp"])
        options = ["-shared", "-cudart", "none", "-Xcompiler", "-fPIC", "-Xlinker", "-Bsymbolic"]
        nvcc(*options, "-gencode", "arch=compute_75,code=compute_75", "-o", str(target), *sources)
        loaded = ctypes.CDLL(str(target))
    loaded.workspace.restype = loaded.size_of_arguments.restype = ctypes.c_int64
    loaded.workspace.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    loaded.launch.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    loaded.listen.argtypes = [TOLD, ctypes.c_int]
    return loaded


def packed(layout, fields):
    return struct.pack(layout, *fields).ljust(library().size_of_arguments(), b"\0")


def launches(method, given, module, blocks):
    """(kernel, grid, threads, bytes of each argument) of every launch, on a device with room for so many blocks."""
    found = []

    def told(name, grid, block, arguments):
        # The file's number in the names of an anonymous namespace is not the same in PTX and library.
        start = name.decode().index("raster_")
        entry = next(n for n in module.entries if n.endswith(name.decode()[start:]))
        kernel = Kernel(module, entry)
        sizes = [variable.nbytes for variable, _ in kernel.program.parameters]
        data = [ctypes.string_at(arguments[n], size) for n, size in enumerate(sizes)]
        found.append((kernel, tuple(grid[:3]), tuple(block[:3]), data))

    failed, callback, text = [], TOLD(lambda *args: guarded(told, failed, *args)), ctypes.create_string_buffer(500)
    library().listen(callback, blocks)
    assert library().launch(method.encode(), given, None, text, 500) == 0, text.value.decode()
    if failed:
        raise failed[0]
    return found


def guarded(function, failed, *arguments):
    """ctypes only prints what a callback raises."""
    try:
        function(*arguments)
    except Exception as error:
        failed.append(error)


def run(method, layout, fields, module, *, blocks=10_000, check_blocks=True, order=None):
    """``layout`` and ``fields`` of a GeodesicCuda, whose first five are arrays, the last of them the workspace, or 0.
    Changes the arrays; the number of launches."""
    arrays = [None if isinstance(field, int) else field for field in fields[:5]]
    addresses = [0 if array is None else address for array, address in zip(arrays, ADDRESSES, strict=True)]
    memory = {address: array for address, array in zip(addresses, arrays, strict=True) if array is not None}
    found = launches(method, packed(layout, (*addresses, *fields[5:])), module, blocks)
    for kernel, grid, threads, data in found:
        kernel.launch(grid, threads, data, memory=memory, check_blocks=check_blocks, order=order)
    return len(found)


def workspace(method, layout, fields):
    """Of a call, full of what an earlier one may have left: words of the first sweep."""
    size = library().workspace(method.encode(), packed(layout, (0, 0, 0, 0, 0, *fields[5:])))
    return np.full(size, 1, np.int32)
