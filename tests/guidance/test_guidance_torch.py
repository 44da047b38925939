"""The guidance operators in torch: registration, compile, export. Wrong calls of the whole family."""

import math
import types

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
from fastprompt.ops._operator import OPERATORS  # noqa: E402

POINTS, LABELS = torch.tensor([[[3.0, 4.5], [8, 2], [-1, -1]]]), torch.tensor([[1, 0, 1]])
REGION = torch.arange(12 * 10).view(1, 10, 12) // 17


def test_opcheck():
    ops, check = torch.ops.fastprompt, torch.library.opcheck
    check(ops.click_map.default, (POINTS, LABELS, [1, 0], [10, 12], 0, [25.0, 4.0], math.inf, 1.0, False, math.inf))
    check(ops.click_map.default, (POINTS, LABELS, [1], [10, 12], 1, [1.0], 5.0, 5.0, True, 1e6))
    check(ops.box_map.default, (torch.rand(2, 3, 4) * 9, [10, 12], True, 128.0, 0.0, 255.0))
    check(ops.polygon_mask.default, (torch.rand(2, 5, 2).double() * 9, [0, 3, 5], [10, 12], True, False))
    check(ops.scribble_map.default, (torch.rand(5, 2).double() * 9, [0, 3, 5], LABELS[0, :2], [1, 0], [10, 12], 1.5))
    check(ops.superpixel_map.default, (REGION, POINTS, LABELS, [1, 0], 255.0))
    check(ops.proposal_vote_map.default, (torch.rand(1, 4, 10, 12) > 0.5, POINTS, LABELS, [1, 0]))
    check(ops.prompt_unified_encoding.default, (POINTS, LABELS, None, [10, 12], 3.0, True, 1.0, False))
    check(ops.prompt_unified_encoding.default, (POINTS, LABELS, POINTS * 2, [10, 12], 3.0, True, 1.0, True))


def everything(points, labels, boxes, vertices, region, matrix, token):
    size = (10, 12)
    return (
        fp.click_map(points, labels, size=size, encoding="gaussian", sigma=[1, 3]),
        fp.click_map(points, labels, size=size, rounding="ritm_cython"),
        fp.box_map(boxes, size=size) + fp.box_distance_map(boxes, size=size),
        fp.polygon_mask(vertices, size=size),
        fp.polygon_mask(vertices, size=size, boundary=True, rule="non_zero"),
        fp.scribble_map([vertices[0], vertices[1]], labels[0, :2], size=size),
        fp.superpixel_map(region, points, labels),
        fp.proposal_vote_map(region[:, None] > 2, points, labels),
        fp.prompt_unified_encoding(points, labels, size=size),
        fp.fourier_position_encoding(matrix, size=size, points=points, labels=labels, not_a_point=token),
    )


def arguments():
    g = torch.Generator().manual_seed(0)
    boxes, vertices = torch.rand(1, 2, 4, generator=g) * 9, torch.rand(2, 6, 2, generator=g) * 9
    return POINTS, LABELS, boxes, vertices, REGION, torch.randn(2, 8, generator=g), torch.randn(16, generator=g)


def test_compile():
    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*arguments()), everything(*arguments()), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


def test_compile_may_be_the_first_call(fresh_python):
    """Operators register with torch at their first call, which torch.compile could not trace."""
    code = "import torch, fastprompt as fp; f = torch.compile(lambda p: fp.click_map(p, size=(3, 4)), fullgraph=True, "
    code += "backend='aot_eager'); assert f(torch.ones(1, 2)).shape == (1, 3, 4)"
    fresh_python(code)


def test_export():
    class Module(torch.nn.Module):
        def forward(self, *x):
            return everything(*x)

    exported = torch.export.export(Module(), arguments())
    for name in ("click_map", "box_map", "polygon_mask", "scribble_map", "superpixel_map", "proposal_vote_map"):
        assert f"fastprompt.{name}" in str(exported.graph)
    for got, want in zip(exported.module()(*arguments()), everything(*arguments()), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


def test_export_with_any_number_of_clicks():
    class Module(torch.nn.Module):
        def forward(self, points, labels):
            return fp.click_map(points, labels, size=(10, 12), encoding="tanh")

    clicks = torch.export.Dim("clicks", min=2, max=100)
    exported = torch.export.export(Module(), (POINTS, LABELS), dynamic_shapes=({1: clicks}, {1: clicks})).module()
    points, labels = torch.rand(1, 9, 2) * 10, torch.arange(9)[None] % 2
    assert torch.equal(exported(points, labels), Module()(points, labels))


# ---------------------------------------------------------------- wrong calls

P, K, S = np.zeros((3, 2)), np.ones(3, int), {"size": (5, 6)}
MATRIX = np.zeros((2, 4))
TOKEN = np.zeros(8)


def clicked(**options):
    return lambda: fp.click_map(P, K, **(S | options))


WRONG = {
    "points_axes": (lambda: fp.click_map(np.zeros((1, 1, 1, 2)), **S), ValueError, r"points must be \(\[B,\] N, 2\) of x, y"),
    "points_three": (lambda: fp.click_map(np.zeros((4, 3)), **S), ValueError, r"points must .* got shape \(4, 3\)"),
    "points_text": (lambda: fp.click_map(np.array([["a", "b"]]), **S), TypeError, "points must hold real numbers"),
    "points_ragged": (lambda: fp.click_map([np.zeros((2, 2)), np.zeros((3, 3))], **S), ValueError, r"points\[1\] must be \(N, 2\)"),
    "points_no_array": (lambda: fp.click_map([[[1, 2], [3]]], **S), TypeError, "points must be an array of numbers"),
    "points_one": (lambda: fp.click_map([3, 4], **S), ValueError, r"points must be \(\[B,\] N, 2\) of x, y, got shape \(2,\)"),
    "points_mixed": (lambda: fp.click_map([P, torch.zeros(2, 2)], **S), TypeError, "must both be NumPy arrays or both"),
    "points_gradient": (lambda: fp.click_map(torch.zeros(2, 2, requires_grad=True), **S), ValueError, "points must not require a gradient"),
    "points_device": (lambda: fp.click_map(torch.zeros(2, 2, device="meta"), torch.zeros(2, dtype=int), **S), ValueError, "labels must be on the device of points"),
    "labels_shape": (lambda: fp.click_map(P, np.ones(4, int), **S), ValueError, r"labels must have one label a point, shape \(3,\), got \(4,\)"),
    "labels_floats": (lambda: fp.click_map(P, np.full(3, 0.5), **S), ValueError, "labels must hold integers, got 0.5 of float64"),
    "labels_kind": (lambda: fp.click_map(P, torch.ones(3, dtype=int), **S), TypeError, "points and labels must both be"),
    "labels_sets": (lambda: fp.click_map([P, P], [K], **S), ValueError, "labels must be one array for each of the 2 sets"),
    "labels_in_a_set": (lambda: fp.click_map([P, P], [K, K[:2]], **S), ValueError, r"labels\[1\] must have one label a point"),
    "size_one": (clicked(size=5), ValueError, r"size must be two integers \(height, width\), got 5"),
    "size_negative": (clicked(size=(5, -1)), ValueError, "size must be two integers"),
    "size_floats": (clicked(size=(5.0, 6.0)), ValueError, "size must be two integers"),
    "encoding": (clicked(encoding="disc"), ValueError, "encoding must be one of disk, euclidean, tanh, gaussian, got 'disc'"),
    "radius_of_gaussian": (clicked(encoding="gaussian", radius=3), ValueError, "radius is an option of encoding disk and tanh, not of 'gaussian'"),
    "sigma_of_disk": (clicked(sigma=3), ValueError, "sigma is an option of encoding gaussian, not of 'disk'"),
    "clip_of_tanh": (clicked(encoding="tanh", clip=3), ValueError, "clip is an option of encoding euclidean"),
    "normalize_of_disk": (clicked(normalize="minmax"), ValueError, "normalize is an option of encoding euclidean and gaussian"),
    "normalize": (clicked(encoding="euclidean", normalize="max"), ValueError, "normalize must be one of clip, minmax, None, got 'max'"),
    "normalize_gaussian": (clicked(encoding="gaussian", normalize="clip"), ValueError, "normalize must be None or 'minmax' with"),
    "normalize_no_clip": (clicked(encoding="euclidean", normalize="clip"), ValueError, "normalize='clip' divides by clip, which is not given"),
    "radius_negative": (clicked(radius=-1), ValueError, "radius must be between 0 and 1e.09, got -1"),
    "radius_nan": (clicked(radius=math.nan), ValueError, "radius must be between"),
    "radius_text": (clicked(radius="big"), TypeError, "radius must be a number, got 'big'"),
    "radius_none": (clicked(radius=[]), ValueError, "radius must be a number or a sequence of at least one"),
    "radius_of_tanh_zero": (clicked(encoding="tanh", radius=0), ValueError, "radius must be between 1e-09"),
    "sigma_zero": (clicked(encoding="gaussian", sigma=[3, 0]), ValueError, "sigma must be between 1e-09"),
    "sigma_unit": (clicked(encoding="gaussian", sigma_unit="px"), ValueError, "sigma_unit must be one of std, fwhm, relative, None, got 'px'"),
    "clip_zero": (clicked(encoding="euclidean", clip=0), ValueError, "clip must be between"),
    "channels": (clicked(channels=()), ValueError, "channels must be a sequence of labels"),
    "channels_floats": (clicked(channels=(1.5,)), ValueError, "channels must be a sequence of labels"),
    "channels_alone": (lambda: fp.click_map(P, channels=(1, 0), **S), ValueError, "channels needs labels"),
    "rounding": (clicked(rounding="nearest"), ValueError, "rounding must be one of ritm_cython, None, got 'nearest'"),
    "boxes": (lambda: fp.box_map(np.zeros((2, 5)), **S), ValueError, r"boxes must be \(\[\[B,\] N,\] 4\) of x0, y0, x1, y1"),
    "boxes_gradient": (lambda: fp.box_map(torch.zeros(4, requires_grad=True), **S), ValueError, "boxes must not require a gradient"),
    "box_clip": (lambda: fp.box_distance_map(np.zeros(4), clip=255, **S), ValueError, r"clip must be \(least, largest\) or None, got 255"),
    "box_clip_order": (lambda: fp.box_distance_map(np.zeros(4), clip=(5, 2), **S), ValueError, r"clip\[1\] must be between 5"),
    "box_offset": (lambda: fp.box_distance_map(np.zeros(4), offset=math.nan, **S), ValueError, "offset must be between"),
    "strokes": (lambda: fp.scribble_map(P, **S), TypeError, r"strokes must be a list of arrays \(N, 2\), got ndarray"),
    "stroke": (lambda: fp.scribble_map([P, np.zeros(2)], **S), ValueError, r"strokes\[1\] must be \(N, 2\)"),
    "stroke_nan": (lambda: fp.scribble_map([P + math.nan], **S), ValueError, r"strokes must be finite and at most 1e.09, got nan"),
    "stroke_nan_torch": (lambda: fp.scribble_map([torch.full((2, 2), math.inf)], **S), ValueError, "strokes must be finite"),
    "stroke_labels": (lambda: fp.scribble_map([P], [1, 0], **S), ValueError, r"labels must have one label a stroke, shape \(1,\), got \(2,\)"),
    "stroke_labels_floats": (lambda: fp.scribble_map([P], [0.5], **S), ValueError, "labels must hold integers, got 0.5 of float64"),
    "thickness": (lambda: fp.scribble_map([P], thickness=0, **S), ValueError, "thickness must be between"),
    "compat": (lambda: fp.scribble_map([P], compat="ring", **S), ValueError, "compat must be one of mideepseg, None, got 'ring'"),
    "vertices": (lambda: fp.polygon_mask(np.zeros((3, 3)), **S), ValueError, r"vertices must be \(\[B,\] N, 2\) of x, y"),
    "vertices_inf": (lambda: fp.polygon_mask(np.array([[0, 0], [1, math.inf]]), **S), ValueError, "vertices must be finite and at most 1e.09, got inf"),
    "vertices_nan_torch": (lambda: fp.polygon_mask(torch.full((3, 2), math.nan), **S), ValueError, "vertices must be finite"),
    "rule": (lambda: fp.polygon_mask(P, rule="odd", **S), ValueError, "rule must be one of even_odd, non_zero, got 'odd'"),
    "superpixels_floats": (lambda: fp.superpixel_map(np.full((5, 6), 0.5), P), ValueError, "superpixels must hold integers, got 0.5"),
    "superpixels_negative": (lambda: fp.superpixel_map(np.full((5, 6), -3), P), ValueError, "superpixels must be between 0 and the number of pixels - 1 = 29, got -3"),
    "superpixels_many": (lambda: fp.superpixel_map(torch.full((5, 6), 30), torch.zeros(1, 2)), ValueError, "got 30"),
    "superpixels_batch": (lambda: fp.superpixel_map(np.zeros((2, 5, 6), int), P), ValueError, r"superpixels must be \(H, W\) with these points"),
    "click_outside": (lambda: fp.superpixel_map(np.zeros((5, 6), int), [[1, 1], [6, 2]]), ValueError, "points must lie in the image of 6 x 5 pixels, got 6, 2 in image 0"),
    "vote_outside": (lambda: fp.proposal_vote_map(torch.ones(1, 5, 6), torch.tensor([[2.0, -1]])), ValueError, "points must lie in the image of 6 x 5 pixels, got 2, -1"),
    "proposals": (lambda: fp.proposal_vote_map(np.ones((5, 6)), P), ValueError, r"proposals must be \(P, H, W\) with these points"),
    "proposals_batch": (lambda: fp.proposal_vote_map(np.ones((2, 3, 5, 6)), P[None], K[None]), ValueError, "proposals must have the batch size of points, 1, got 2"),
    "extents": (lambda: fp.prompt_unified_encoding(P, K, extents=P[:2], **S), ValueError, "extents must have the shape of points"),
    "vector_labels": (lambda: fp.prompt_unified_encoding(P, None, **S), ValueError, "labels must be given"),
    "vector_sigma": (lambda: fp.prompt_unified_encoding(P, K, sigma=0, **S), ValueError, "sigma must be between"),
    "matrix": (lambda: fp.fourier_position_encoding(np.zeros((3, 4)), points=P, **S), ValueError, r"matrix must be \(2, C / 2\) of floats"),
    "matrix_ints": (lambda: fp.fourier_position_encoding(np.zeros((2, 4), int), points=P, **S), ValueError, "matrix must be"),
    "fourier_nothing": (lambda: fp.fourier_position_encoding(MATRIX, **S), ValueError, "needs points or boxes"),
    "fourier_boxes": (lambda: fp.fourier_position_encoding(MATRIX, boxes=np.zeros(4), **S), ValueError, r"boxes must be \(..., M, 4\)"),
    "fourier_lead": (lambda: fp.fourier_position_encoding(MATRIX, points=P[None], boxes=np.zeros((2, 1, 4)), **S), ValueError, "boxes must have the leading axes of points"),
    "fourier_labels": (lambda: fp.fourier_position_encoding(MATRIX, points=P, labels=K, **S), ValueError, "labels and pad need not_a_point"),
    "fourier_pad": (lambda: fp.fourier_position_encoding(MATRIX, points=P, pad=True, **S), ValueError, "labels and pad need not_a_point"),
    "fourier_labels_alone": (lambda: fp.fourier_position_encoding(MATRIX, boxes=np.zeros((1, 4)), labels=K, not_a_point=TOKEN, **S), ValueError, "labels needs points"),
    "fourier_embeddings": (lambda: fp.fourier_position_encoding(MATRIX, points=P, embeddings=np.zeros((3, 8)), **S), ValueError, r"embeddings must have shape \(4, 8\)"),
    "fourier_size": (lambda: fp.fourier_position_encoding(MATRIX, points=P, size=(0, 4)), ValueError, "size must be two positive integers"),
}  # fmt: skip


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_wrong_calls(call):
    function, error, message = call
    with pytest.raises(error, match=message):
        function()


@pytest.mark.parametrize("name", ["click_map", "box_map"])
def test_a_gpu_writes_into_the_composed_map(monkeypatch, name):
    """Without a device: a result that only claims to lie there."""
    operator, calls = OPERATORS[name], []
    monkeypatch.setattr(operator, "gpu", lambda *args, out: calls.append((args, out)))
    out = types.SimpleNamespace(is_cuda=True, get_device=lambda: -1)
    operator.into(out, 1, 2)
    assert calls == [((1, 2), out)]


@pytest.mark.parametrize("name", ["reference", "auto"])
def test_reference_checks_too(name):
    with fp.backend(name), pytest.raises(ValueError, match="points must lie in the image of 6 x 5 pixels, got 6, 2"):
        fp.proposal_vote_map(np.ones((1, 5, 6)), [[6, 2]])
