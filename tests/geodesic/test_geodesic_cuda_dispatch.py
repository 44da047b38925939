"""What a CUDA tensor meets on its way to csrc/geodesic/cuda_*.cu: the functions that torch calls for it, given CPU tensors
here, with a binding that executes the PTX on the memory that it is given."""

import ctypes
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from ptx import Kernel  # noqa: E402
from ptx.build import cuda_module  # noqa: E402
from test_geodesic_cuda import METRICS, problem, run, same_bits  # noqa: E402

import fastprompt as fp  # noqa: E402
from fastprompt import _C, _gpu  # noqa: E402
from fastprompt.ops._library import GPU  # noqa: E402
from fastprompt.ops.geodesic import operators as _torch_geodesic  # noqa: E402, F401 - registers what is in GPU
from fastprompt.ops.geodesic.grid import check_options  # noqa: E402


def array(address, shape, dtype=np.float32):
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape) if address else None


def given(fields):
    """(arguments of test_geodesic_cuda.problem, metric and options) of the fields of a call."""
    views, (batch, channels, maps, nz, ny, nx), volume = fields[:3], fields[3], fields[4]
    metric, method, kind, two_sided, iterations, lam, _, spacing, v, limit = fields[5:15]
    pixels = (nz, ny, nx) if volume else (ny, nx)
    shapes = (batch, channels, *pixels), (batch, maps, *pixels), (batch, *pixels)
    image, start, walls = (array(view[0], s, t) for view, s, t in zip(views, shapes, "ffB", strict=True))
    assert [view[1] for view in views] == [0, 0, 3]
    options = {
        "metric": METRICS[metric], "kind": ("cost", "seed", "nonzero")[kind], "barrier": walls, "lam": lam,
        "iterations": iterations, "spacing": spacing, "v": v, "limit": limit, "two_sided": two_sided,
    }  # fmt: skip
    return ("raster", None, "exact")[method], image, start, options


def launch(workspace, stream, *fields):
    method, image, start, options = given(fields)
    out = run(method, image.copy(), start.copy(), **options)
    array(fields[-1], out.shape)[:] = out


def launch_gradient(grad, grad_image, grad_start, workspace, stream, *fields):
    _, image, start, options = given(fields)
    arguments, out, _, _ = problem("exact", image.copy(), start.copy(), **options)
    out[:] = array(fields[-1], out.shape)
    module = cuda_module("csrc/geodesic/cuda_gradient.cu", 80, "-fmad=false")
    name = next(n for n in module.entries if f"MetricE{fields[5]}ELb{int(fields[4])}E" in n)
    layout, *values = arguments
    values[4] = np.zeros(4 + 3 * out.size + (out.size + 3) // 4, np.int32)
    results = array(grad_image, image.shape), array(grad_start, out.shape)
    values = (layout + "PPP", *values, array(grad, start.shape), *results)
    Kernel(module, name).launch((2,), (256,), [values])


@pytest.fixture
def on_ptx(monkeypatch):
    monkeypatch.setattr(_gpu, "reason", lambda backend: None)
    monkeypatch.setattr(_gpu, "stream", lambda: 0)
    for name, function in {
        "geodesic_distance_cuda": launch,
        "geodesic_distance_cuda_workspace": lambda *fields: 1,
        "geodesic_distance_backward_cuda": launch_gradient,
        "geodesic_distance_backward_cuda_workspace": lambda *fields: 1,
    }.items():
        monkeypatch.setattr(_C, name, function, raising=False)


def call(name, tensors, kind, **options):
    o = check_options(tensors[-3][:, :, 0] if len(options.get("spacing", (1, 1))) == 2 else tensors[-3], **options)
    settings = (kind, o.metric, o.method, o.iterations, o.lam, o.step_weight, list(o.spacing), o.v, o.limit)
    return GPU[name](*tensors, *settings)


CASES = {
    "raster": ("seed", {"method": "raster", "lam": 0.7}, torch.float32),
    "exact, signed": ("signed_seed", {"lam": 0.7, "v": 9.0}, torch.float16),
    "exact, signed mask": ("signed_nonzero", {"lam": 0.7, "metric": "geodistk"}, torch.uint8),
    "volume": ("seed", {"method": "raster", "iterations": 1, "spacing": (1, 2, 0.5)}, torch.bfloat16),
}


@pytest.mark.parametrize(("kind", "options", "dtype"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("walls", [False, True])
def test_distance(on_ptx, kind, options, dtype, walls):
    torch.manual_seed(0)
    depth = 3 if "spacing" in options else 1
    image = (200 * torch.rand(2, 5, depth, 6, 2)).to(dtype).permute(0, 4, 2, 1, 3)
    start = torch.rand(2, 2, depth, 5, 6).round() if "nonzero" in kind else torch.rand(2, 2, depth, 5, 6)
    start = start.bool() if "nonzero" in kind else start.to(torch.float16)
    barriers = torch.rand(2, 1, depth, 5, 6) < 0.2 if walls else None
    got = call("geodesic_distance", (image, start, barriers), kind, **options)
    function = fp.signed_geodesic_distance if "signed" in kind else fp.geodesic_distance
    squeeze = (lambda x: x) if depth > 1 else (lambda x: None if x is None else x[:, :, 0])
    flat = None if barriers is None else barriers[:, 0] if depth > 1 else barriers[:, 0, 0]
    expected = function(squeeze(image), squeeze(start), barriers=flat, dims=3 if depth > 1 else 2, **options)
    same_bits(squeeze(got).numpy(), expected.numpy())


@pytest.mark.parametrize("kind", ["seed", "signed_seed"])
def test_gradient(on_ptx, kind):
    torch.manual_seed(0)
    image, start = torch.rand(1, 2, 1, 5, 6), torch.rand(1, 2, 1, 5, 6)
    grad = torch.rand(1, 2, 1, 5, 6)
    got = call("geodesic_distance_backward", (grad, image, start, None), kind, v=3.0)
    o = check_options(image[:, :, 0], v=3.0)
    settings = (kind, o.metric, o.method, o.iterations, o.lam, o.step_weight, list(o.spacing), o.v, o.limit)
    expected = torch.ops.fastprompt.geodesic_distance_backward(grad, image, start, None, *settings)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_reference(on_ptx):
    image, start = torch.rand(1, 1, 1, 4, 5), torch.eye(4, 5)[None, None, None]
    with fp.backend("reference"):
        got = call("geodesic_distance", (image, start, None), "seed")
    torch.testing.assert_close(got, call("geodesic_distance", (image, start, None), "seed"))


def test_refusals(on_ptx, monkeypatch):
    tensors = torch.rand(1, 1, 1, 4, 5), torch.rand(1, 1, 1, 4, 5), None
    with pytest.raises(ValueError, match=r"method must be one of exact, raster .* got 'toivanen'"):
        call("geodesic_distance", tensors, "seed", method="toivanen")
    monkeypatch.setattr(_gpu, "reason", lambda backend: "this build has no CUDA kernels")
    with pytest.raises(ValueError, match="this build has no CUDA kernels; build with nvcc"):
        call("geodesic_distance", tensors, "seed")
