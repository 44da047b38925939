"""The launchers: without a GPU they say so, with one (``-m gpu``) they give what the executed PTX gives."""

import ctypes
import itertools
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ptx.build import ROOT, nvcc
from test_geodesic_cuda import OPTIONS, cpu, pictures, problem, same_bits

torch = pytest.importorskip("torch", reason="torch is not installed")
HAS_GPU = torch.cuda.is_available()
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="there is no CUDA device")]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """csrc/geodesic/cuda_*.cu as a shared library; loading it needs no driver."""
    target = tmp_path_factory.mktemp("cuda") / "launch.so"
    sources = [f"csrc/geodesic/cuda_{method}.cu" for method in ("raster", "exact")] + ["tests/ptx/launch.cu"]
    warnings = nvcc(
        "-shared", "-cudart", "static", "-Xcompiler", "-fPIC,-Wall,-Wextra", "-fmad=false",
        "-gencode", "arch=compute_75,code=compute_75", "-o", str(target), *(str(ROOT / s) for s in sources),
    )  # fmt: skip
    assert "warning" not in warnings
    loaded = ctypes.CDLL(str(target))
    loaded.workspace.restype = loaded.size_of_arguments.restype = ctypes.c_int64
    loaded.launch.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    return loaded


def packed(arguments):
    """The bytes of the struct; arrays become their addresses."""
    layout, *fields = arguments
    return struct.pack(layout, *(f.data_ptr() if hasattr(f, "data_ptr") else f for f in fields))


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU, and no memory behind these addresses")
@pytest.mark.parametrize("method", ["raster", "exact"])
def test_launchers_without_a_gpu(rng, library, method):
    arguments, _, _, _ = problem(method, *pictures(rng, 2, 1, 3, 70, 200))
    layout, *fields = arguments
    fields[:5] = [0] * 5
    given = struct.pack(layout, *fields)
    assert len(given) <= library.size_of_arguments() < len(given) + 8, "the layout that all tests use"
    given = given.ljust(library.size_of_arguments(), b"\0")
    assert library.workspace(method.encode(), given) == arguments[5].size
    text = ctypes.create_string_buffer(500)
    assert library.launch(method.encode(), given, None, text, 500) > 0
    assert f"geodesic_{method}_cuda: cudaError" in text.value.decode()
    fields[5] = 0
    empty = struct.pack(layout, *fields).ljust(library.size_of_arguments(), b"\0")
    assert library.launch(method.encode(), empty, None, text, 500) == 0, "an empty batch launches nothing"


def on_gpu(library, method, image, start, **options):
    arguments, _, _, _ = problem(method, image, start, **options)
    arguments = [torch.from_numpy(a.copy()).cuda() if isinstance(a, np.ndarray) else a for a in arguments]
    arguments[5].fill_(-7)  # the launcher clears what it needs
    stream = torch.cuda.current_stream().cuda_stream
    given = packed(arguments).ljust(library.size_of_arguments(), b"\0")
    text = ctypes.create_string_buffer(500)
    assert library.launch(method.encode(), given, stream, text, 500) == 0, text.value.decode()
    return arguments[4].cpu().numpy()


@pytest.mark.parametrize("method", [pytest.param(m, marks=needs_gpu) for m in ("raster", "exact")])
def test_geodesic_on_a_gpu(rng, library, method):
    for size, options in itertools.product([(1, 1, 1, 17, 35), (2, 3, 2, 333, 517)], OPTIONS.values()):
        image, start = pictures(rng, *size)
        if options.get("barrier") is not None:
            options = options | {"barrier": (rng.random((size[0], *size[3:])) < 0.2).astype(np.uint8)}
        for _ in range(3):
            same_bits(on_gpu(library, method, image, start, **options), cpu(method, image, start, **options))


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=needs_gpu)])
def test_triton_on_a_gpu(monkeypatch, device):
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setenv("FASTPROMPT_TEST_DEVICE", device)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("triton_cases.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
