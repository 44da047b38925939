"""csrc/geodesic/cuda_gradient.cu, executed as PTX, against the gradient of the CPU."""

import math
import re

import numpy as np
import pytest
from ptx import Fault, Kernel, Module
from ptx.build import cuda_module, cuda_ptx
from test_geodesic_cuda import METRICS, pictures, problem

import fastprompt as fp

torch = pytest.importorskip("torch", reason="torch is not installed")
SOURCE = "csrc/geodesic/cuda_gradient.cu"


def entry(module, metric, volume):
    return next(n for n in module.entries if f"MetricE{METRICS.index(metric)}ELb{int(volume)}E" in n)


def run(image, start, distances, grad, kernel=None, *, order=None, blocks=2, **options):
    """(dL/dI, dL/dstart) as one launch computes them."""
    arguments, out, _, _ = problem("exact", image, start, **options)
    out[:] = distances
    volume, metric = image.ndim == 5, options.get("metric", "fastgeodis")
    kernel = kernel or Kernel(module := cuda_module(SOURCE, 80, "-fmad=false"), entry(module, metric, volume))
    workspace = np.full(4 + 3 * out.size + (out.size + 3) // 4, -1, np.int32)
    workspace[:4] = 0  # by the launcher
    grad_image, grad_start = np.full_like(image, np.nan), np.full_like(out, np.nan)
    layout, *fields = arguments
    fields[4] = workspace
    grad.flags.writeable = out.flags.writeable = False
    fields = (layout + "PPP", *fields, grad, grad_image, grad_start)
    kernel.launch((blocks,), (256,), [fields], order=order, check_blocks=True)
    return grad_image, grad_start


def cpu(image, start, grad, **options):
    """Distances, (dL/dI, dL/dstart); the start is v (1 - map), whose derivative by the map is -v."""
    i, s = torch.tensor(image, requires_grad=True), torch.tensor(start, requires_grad=True)
    d = fp.geodesic_distance(i, s, dims=image.ndim - 2, **options)
    d.backward(torch.tensor(grad))
    return d.detach().numpy(), (i.grad.numpy(), s.grad.numpy() / -options["v"])


def case(rng, *size, flat=False):
    image, start = pictures(rng, *size)
    if flat:  # plateaus, along which a path costs nothing
        image = np.round(image).astype(np.float32)
    soft = np.clip(start + 0.3 * rng.random(start.shape, dtype=np.float32), 0, 1)
    return image, soft, rng.normal(size=start.shape).astype(np.float32)


CASES = {
    "picture": ((1, 2, 1, 9, 17), {"lam": 0.6}),
    "sets": ((2, 1, 2, 7, 9), {"lam": 0.6}),
    "plateaus": ((1, 1, 1, 9, 33), {"lam": 1.0, "flat": True}),
    "geodistk": ((1, 2, 1, 6, 9), {"lam": 0.6, "metric": "geodistk", "spacing": (0.5, 1.5)}),
    "geodistk_fm": ((1, 2, 1, 6, 9), {"lam": 0.6, "metric": "geodistk_fm", "flat": True}),
    "barriers, limit": ((1, 1, 1, 9, 9), {"lam": 0.6, "barrier": True, "limit": 0.5}),
    "volume": ((1, 2, 1, 4, 5, 6), {"lam": 0.6, "spacing": (2.0, 1.0, 0.5)}),
    "volume, plateaus": ((1, 1, 2, 4, 5, 6), {"lam": 1.0, "flat": True}),
}


def both(rng, size, options, **launch):
    options = dict(options)
    image, start, grad = case(rng, *size, flat=options.pop("flat", False))
    theirs = {"v": 3.0, "lam": options["lam"], "spacing": options.get("spacing", 1), "max_distance": math.inf}
    theirs["metric"] = options.get("metric", "fastgeodis")
    if "limit" in options:
        theirs["max_distance"] = options["limit"]
    if options.pop("barrier", False):
        options["barrier"] = (rng.random((size[0], *size[3:])) < 0.2).astype(np.uint8)
        theirs["barriers"] = torch.tensor(options["barrier"])
    distances, expected = cpu(image, start, grad, **theirs)
    return run(image, start, distances, grad, v=3.0, **options, **launch), expected


@pytest.mark.parametrize(("size", "options"), CASES.values(), ids=CASES)
def test_gradient_of_the_cpu(rng, size, options):
    got, expected = both(rng, size, options)
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6 * np.abs(theirs).max(), rtol=0)


def test_same_bits_in_any_order_of_blocks():
    """Plateaus, so that levels take rounds; paths from both ends of the picture."""
    results = [
        both(np.random.default_rng(0), *CASES["plateaus"], order=order, blocks=blocks)[0]
        for order, blocks in [(None, 1), ("reverse", 2), (1, 2)]
    ]
    for other in results[1:]:
        assert all(np.array_equal(x, y) for x, y in zip(results[0], other, strict=True))


def altered(pattern, text):
    source, count = re.subn(pattern, text, cuda_ptx(SOURCE, 80, "-fmad=false"))
    assert count
    module = Module(source)
    return Kernel(module, entry(module, "fastgeodis", False))


BUGS = {
    "nobody waits for other blocks": (r"ld\.acquire\.gpu\.global\.s32 (%r\d+), \[[^;]*;", r"mov.b32 \1, 2147483647;"),
    "a child counts twice": (r"(atom\.global\.add\.u32\s+%r\d+, \[%rd\d+\]), -1;", r"\1, -2;"),
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
def test_planted_bugs(bug):
    kernel = altered(*bug)
    found = []
    for order in ("forward", "reverse"):
        try:
            got, expected = both(np.random.default_rng(0), *CASES["plateaus"], kernel=kernel, order=order, blocks=2)
            found.append(not all(np.allclose(x, y, atol=1e-4) for x, y in zip(got, expected, strict=True)))
        except Fault:
            found.append(True)
    assert any(found)
