"""What a CUDA tensor meets on its way to csrc/geodesic/cuda_*.cu: the functions that torch calls for it, given CPU tensors
here, with a binding that executes the PTX on the memory that it is given."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from ptx import Kernel  # noqa: E402
from ptx.build import cuda_module  # noqa: E402
from test_geodesic_cuda import METRICS, problem, run, same_bits  # noqa: E402

import fastprompt as fp  # noqa: E402
from fastprompt import _C, _gpu  # noqa: E402
from fastprompt.ops._operator import OPERATORS  # noqa: E402
from fastprompt.ops.geodesic.grid import check_options  # noqa: E402


def plane(x, volume):
    return x if volume else x[:, :, 0]


def given(fields):
    """(arguments of test_geodesic_cuda.problem, metric and options) of the fields of a call."""
    arrays = [None if fields[name] is None else fields[name].numpy() for name in ("image", "start", "barrier")]
    assert all(x is None or x.flags.c_contiguous for x in arrays)
    assert [x.dtype.name for x in arrays[:2]] == ["float32"] * 2
    image, start, walls = (None if x is None else plane(x, fields["volume"]) for x in arrays)
    options = {name: fields[name] for name in ("metric", "lam", "iterations", "spacing", "v", "limit", "two_sided")}
    return fields["method"], image, start, {**options, "kind": fields["start_kind"], "barrier": walls}


def launch(*, workspace, stream, out, **fields):
    method, image, start, options = given(fields)
    found = run(method, image.copy(), start.copy(), **options)
    out.numpy()[:] = found.reshape(out.shape)


def launch_gradient(*, grad, distances, grad_image, grad_start, workspace, stream, **fields):
    _, image, start, options = given(fields)
    arguments, out, _, _ = problem("exact", image.copy(), start.copy(), **options)
    out[:] = distances.numpy().reshape(out.shape)
    module = cuda_module("csrc/geodesic/cuda_gradient.cu", 80, "-fmad=false")
    metric = METRICS.index(fields["metric"])
    name = next(n for n in module.entries if f"MetricE{metric}ELb{int(fields['volume'])}E" in n)
    layout, *values = arguments
    values[4] = np.zeros(4 + 3 * out.size + (out.size + 3) // 4, np.int32)
    arrays = [x.numpy().reshape(like.shape) for x, like in ((grad, start), (grad_image, image), (grad_start, out))]
    values = (layout + "PPP", *values, *arrays)
    Kernel(module, name).launch((2,), (256,), [values])


@pytest.fixture
def on_ptx(monkeypatch):
    monkeypatch.setattr(_gpu, "reason", lambda backend: None)
    monkeypatch.setattr(_gpu, "stream", lambda: 0)
    for name, function in {
        "geodesic_distance_cuda": launch,
        "geodesic_distance_cuda_workspace": lambda **fields: 1,
        "geodesic_distance_backward_cuda": launch_gradient,
        "geodesic_distance_backward_cuda_workspace": lambda **fields: 1,
    }.items():
        monkeypatch.setattr(_C, name, function, raising=False)


def call(name, tensors, kind, **options):
    o = check_options(tensors[-3][:, :, 0] if len(options.get("spacing", (1, 1))) == 2 else tensors[-3], **options)
    settings = (kind, o.metric, o.method, o.iterations, o.lam, o.step_weight, list(o.spacing), o.v, o.limit)
    return OPERATORS[name].on_gpu(*tensors, *settings)


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
