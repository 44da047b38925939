"""The operators of distances: shapes, kernels, gradient."""

from typing import Any

from fastprompt._later import Later
from fastprompt.ops._operator import Gradient, Operator
from fastprompt.ops.geodesic import call
from fastprompt.ops.geodesic.grid import check_settings, check_sizes

gpu, reference = Later("fastprompt.ops.geodesic.gpu"), Later("fastprompt.reference.geodesic")

ARGUMENTS = (
    "Tensor image, Tensor start, Tensor? walls, str kind, str metric, str method, int iterations, float lam, "
    "float step_weight, float[] spacing, float v, float limit"
)


def of_pixels(image: Any, start: Any, walls: Any, kind: str, *settings: Any) -> str:
    check_settings(*settings)
    pixels = "z y x" if len(settings[5]) == 3 else "1 y x"
    return (
        f"image picture: batch _ {pixels}, start picture: batch sets {pixels}, walls bytes: batch 1 {pixels}, "
        f"grad float: batch sets {pixels}"
    )


def sides(kind: str) -> int:
    return 2 if kind.startswith("signed_") else 1


def of_gradient(grad: Any, image: Any, start: Any, walls: Any, kind: str, *rest: Any) -> Any:
    batch, sets, *pixels = start.shape
    return [(image.shape, "float32"), ((batch, sets * sides(kind), *pixels), "float32")]


def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.settings = inputs[3:]


def backward(ctx: Any, grad: Any) -> tuple[Any, ...]:
    image, start, walls = ctx.saved_tensors
    kind, v = ctx.settings[0], ctx.settings[7]
    grad_image, grad_start = distance_backward(grad, image, start, walls, *ctx.settings)
    return (
        grad_image.to(image.dtype) if image.is_floating_point() else None,
        of_map(grad_start, kind, v).to(start.dtype) if start.is_floating_point() else None,
        *[None] * (1 + len(ctx.settings)),
    )


def of_map(grad_start: Any, kind: str, v: float) -> Any:
    """dL/dmap from dL/dstart: start = v·map (cost), or v·(1 - map); the complement has the other sign."""
    two = kind.startswith("signed_")
    if v == float("inf"):
        return grad_start[:, :: 2 if two else 1] * 0
    slope = v if kind.endswith("cost") else -v
    return slope * (grad_start[:, ::2] - grad_start[:, 1::2] if two else grad_start)


distance_backward = Operator(
    f"geodesic_distance_backward(Tensor grad, {ARGUMENTS}) -> (Tensor, Tensor)",
    axes=lambda grad, *rest: of_pixels(*rest),
    out=of_gradient,
    call=call.distance_backward,
    gpu=gpu.distance_backward,
)
distance = Operator(
    f"geodesic_distance({ARGUMENTS}) -> Tensor",
    axes=lambda *args: of_pixels(*args).rpartition(",")[0],
    out=lambda image, start, *rest: (start.shape, "float32"),
    call=call.distance,
    reference=reference.solve,
    gpu=gpu.distance,
    gradient=Gradient(backward, setup),
)
transform = Operator(
    "euclidean_distance_transform(Tensor mask, float[] spacing) -> Tensor",
    axes=lambda mask, spacing: f"mask bytes: _ 1 _ _ _, spacing: {len(check_sizes(spacing, (3,)))}",
    out=lambda mask, spacing: (mask.shape, "float32"),
    call=call.euclidean,
    reference=reference.euclidean,
    gpu=gpu.euclidean,
)
