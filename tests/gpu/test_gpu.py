"""The launchers without a GPU say so; with one (``-m gpu``) see test_gpu_geodesic.py, and the Triton kernels here."""

import ctypes
import struct

import pytest
from ptx.build import ROOT, nvcc
from test_geodesic_cuda import pictures, problem

torch = pytest.importorskip("torch", reason="torch is not installed")
HAS_GPU = torch.cuda.is_available()
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="there is no CUDA device")]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """csrc/geodesic/cuda_*.cu as a shared library; loading it needs no driver."""
    target = tmp_path_factory.mktemp("cuda") / "launch.so"
    sources = [f"csrc/geodesic/cuda_{method}.cu" for method in ("raster", "raster_volume", "exact")] + [
        "tests/ptx/launch.cu"
    ]
    warnings = nvcc(
        "-shared", "-cudart", "static", "-Xcompiler", "-fPIC,-Wall,-Wextra", "-fmad=false",
        "-gencode", "arch=compute_75,code=compute_75", "-o", str(target), *(str(ROOT / s) for s in sources),
    )  # fmt: skip
    assert "warning" not in warnings
    loaded = ctypes.CDLL(str(target))
    loaded.workspace.restype = loaded.size_of_arguments.restype = ctypes.c_int64
    loaded.launch.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    return loaded


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU, and no memory behind these addresses")
@pytest.mark.parametrize("pixels", [(70, 200), (9, 20, 30)], ids=str)
@pytest.mark.parametrize("method", ["raster", "exact"])
def test_launchers_without_a_gpu(rng, library, method, pixels):
    arguments, _, _, _ = problem(method, *pictures(rng, 2, 1, 3, *pixels))
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


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=needs_gpu)])
def test_triton_on_a_gpu(run_cases, device):
    pytest.importorskip("triton", reason="triton is not installed")
    run_cases("triton_cases.py", FASTPROMPT_TEST_DEVICE=device)
