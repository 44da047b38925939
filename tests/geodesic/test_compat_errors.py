"""Wrong calls of the drop-ins for FastGeodis and GeodisTK."""

import numpy as np
import pytest

from fastprompt.compat import geodistk as ours_gtk

torch = pytest.importorskip("torch", reason="fastprompt.compat.fastgeodis works on torch tensors")
from fastprompt.compat import fastgeodis as ours  # noqa: E402

SIZES = [2.0, 1.0, 0.5]
PLANE = torch.zeros(1, 1, 8, 9)
CUBE = torch.zeros(1, 1, 4, 8, 9)
WRONG = {
    "image_3_axes": ("generalised_geodesic2d", (PLANE[0], PLANE, 1e10, 0.5), ValueError, "image must have 4 axes"),
    "mask_5_axes": ("geodesic2d_pixelqueue", (PLANE, CUBE, 0.5), ValueError, "mask must have 4 axes"),
    "volume_4_axes": ("GSF3d", (PLANE, CUBE, 1.0, SIZES, 1e10, 0.5, 2), ValueError, "image must have 5 axes"),
    "batch_2": (
        "generalised_geodesic2d",
        (PLANE, PLANE.repeat(2, 1, 1, 1), 1e10, 0.5),
        ValueError,
        "mask must .* batch",
    ),
    "sizes_differ": ("geodesic2d_fastmarch", (PLANE, PLANE[..., :5], 0.5), ValueError, r"mask must have .* \(8, 9\)"),
    "image_double": (
        "generalised_geodesic2d",
        (PLANE.double(), PLANE, 1e10, 0.5),
        RuntimeError,
        "image must be float32",
    ),
    "mask_double": ("GSF2d", (PLANE, PLANE.double(), 0.0, 1e10, 0.5, 2), RuntimeError, "mask must be float32"),
    "seed_int": ("geodesic2d_pixelqueue", (PLANE, PLANE.int(), 0.5), RuntimeError, "mask must be float32"),
    "no_tensor": (
        "generalised_geodesic2d",
        (PLANE.numpy(), PLANE, 1e10, 0.5),
        TypeError,
        "image must be a torch tensor",
    ),
    "two_sizes": ("generalised_geodesic3d", (CUBE, CUBE, [1, 1], 1e10, 0.5), ValueError, "spacing must be .* got 2"),
    "one_size": ("geodesic3d_pixelqueue", (CUBE, CUBE, 1.0, 0.5), TypeError, "spacing must be a sequence of 3"),
    "size_zero": ("geodesic3d_fastmarch", (CUBE, CUBE, [1, 0, 1], 0.5), ValueError, "spacing must be positive"),
    "lamb_2": (
        "generalised_geodesic2d",
        (PLANE, PLANE, 1e10, 2.0),
        ValueError,
        "lamb must be between 0 and 1, got 2.0",
    ),
    "lamb_nan": ("GSF2d_fastmarch", (PLANE, PLANE, 1.0, float("nan")), ValueError, "lamb must be between 0 and 1"),
    "lamb_none": ("geodesic2d_pixelqueue", (PLANE, PLANE, None), TypeError, "lamb must be a number"),
    "v_negative": ("generalised_geodesic2d", (PLANE, PLANE, -1.0, 0.5), ValueError, "v must be between 0 and inf"),
    "iter_2**31": (
        "generalised_geodesic2d",
        (PLANE, PLANE, 1e10, 0.5, 2**31),
        ValueError,
        r"iter must be at most 10000, got 2147483648",
    ),
    "iter_float": ("generalised_geodesic2d", (PLANE, PLANE, 1e10, 0.5, 2.0), TypeError, "integer"),
    "no_march_seed": ("geodesic2d_fastmarch", (PLANE, PLANE + 1, 0.5), ValueError, "needs a pixel with mask == 0"),
    "only_march_seeds": (
        "signed_geodesic2d_fastmarch",
        (PLANE, PLANE, 0.5),
        ValueError,
        "needs a pixel with mask == 0",
    ),
    "image_elsewhere": (
        "GSF2d",
        (PLANE.to("meta"), PLANE, 1.0, 1e10, 0.5, 2),
        RuntimeError,
        "image must be on the CPU",
    ),
    "mask_elsewhere": ("GSF2d", (PLANE, PLANE.to("meta"), 1.0, 1e10, 0.5, 2), ValueError, "mask must be on the CPU"),
    "queue_elsewhere": (
        "geodesic2d_pixelqueue",
        (PLANE.to("meta"), PLANE, 0.5),
        ValueError,
        "image must be on the CPU",
    ),
    "image_gradient": (
        "generalised_geodesic2d",
        (PLANE.clone().requires_grad_(), PLANE, 1e10, 0.5),
        RuntimeError,
        r"image requires a gradient.*image\.detach",
    ),
    "mask_gradient": (
        "geodesic2d_pixelqueue",
        (PLANE, PLANE.clone().requires_grad_(), 0.5),
        RuntimeError,
        r"mask\.detach",
    ),
    "gtk_axes": ("geodesic2d_fast_marching", (np.zeros(9), np.zeros(9)), ValueError, r"image must be \(H, W\)"),
    "gtk_sizes": ("geodesic2d_fast_marching", (np.zeros((8, 9)), np.zeros((9, 8))), ValueError, "seeds must have"),
    "gtk_spacing": (
        "geodesic3d_fast_marching",
        (np.zeros((2, 8, 9)), np.zeros((2, 8, 9)), [1, 1]),
        ValueError,
        "spacing must hold 3",
    ),
    "gtk_infinite": (
        "geodesic2d_raster_scan",
        (np.zeros((8, 9)), np.zeros((8, 9)), 0.5, float("inf")),
        ValueError,
        "iteration must be between .* got inf",
    ),
    "gtk_masked": (
        "geodesic2d_fast_marching",
        (np.ma.array(np.zeros((8, 9)), mask=True), np.zeros((8, 9))),
        TypeError,
        "image must not be a masked array",
    ),
    "gtk_lamb": ("geodesic2d_raster_scan", (np.zeros((8, 9)), np.zeros((8, 9)), 1.5, 2), ValueError, "lam must be"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    function, arguments, error, match = WRONG[name]
    with pytest.raises(error, match=match):
        getattr(ours if function in ours.__all__ else ours_gtk, function)(*arguments)


def test_geodistk_is_positional_only():
    with pytest.raises(TypeError, match="positional"):
        ours_gtk.geodesic2d_fast_marching(image=np.zeros((2, 2)), seeds=np.ones((2, 2)))
