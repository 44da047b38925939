"""The geodesic operators in torch: registration, shapes, gradient."""

import math
from typing import Any

import torch
from torch import Tensor

from fastprompt import _C
from fastprompt._runtime import current_backend
from fastprompt.ops import _cuda_geodesic, geodesic
from fastprompt.ops._grid import Options
from fastprompt.ops._library import define

_SETTINGS = (
    "Tensor image, Tensor start, Tensor? walls, str kind, str metric, str method, int iterations, float lam, "
    "float step_weight, float[] spacing, float v, float limit"
)


def solve(image: Tensor, start: Tensor, walls: Tensor | None, kind: str, o: Options) -> Tensor:
    """Distances (B, K, D, H, W) for ``image`` (B, C, D, H, W) and ``start`` (B, K, D, H, W)."""
    if torch.is_grad_enabled() and (image.requires_grad or start.requires_grad):
        check_differentiable(start, o)
    settings = (kind, o.metric, o.method, o.iterations, o.lam, o.step_weight, list(o.spacing), o.v, o.limit)
    return _distance(image, start, walls, *settings)


def check_differentiable(start: Tensor, o: Options) -> None:
    if o.method != "exact":
        raise ValueError(f"method {o.method!r} has no gradient: use method='exact', or detach image and seeds")
    if start.requires_grad and math.isinf(o.v):
        raise ValueError("v must be finite where seeds require a gradient, got inf: D is not continuous in the seeds")


def options(settings: tuple[Any, ...]) -> tuple[str, Options]:
    kind, metric, method, iterations, lam, step_weight, spacing, v, limit = settings
    return kind, Options(metric, method, iterations, lam, step_weight, tuple(spacing), v, limit)


def _fake(image: Tensor, start: Tensor, walls: Tensor | None, *settings: Any) -> Tensor:
    return start.new_empty(start.shape, dtype=torch.float32)


def _cpu(image: Tensor, start: Tensor, walls: Tensor | None, *settings: Any) -> Tensor:
    if current_backend() == "reference":
        from fastprompt.reference import geodesic as reference

        i, s, w = (None if x is None else x.float().numpy() for x in (image, start, walls))
        return torch.from_numpy(reference.solve(i, s, w, *options(settings)))
    out = _fake(image, start, walls)
    geodesic.launch(image, start, walls, out, *options(settings))
    return out


def _gpu(image: Tensor, start: Tensor, walls: Tensor | None, *settings: Any) -> Tensor:
    if current_backend() == "reference":
        return _cpu(image.cpu(), start.cpu(), None if walls is None else walls.cpu(), *settings).to(start.device)
    return _cuda_geodesic.distance(image, start, walls, *options(settings))


def _backward_fake(grad: Tensor, image: Tensor, start: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    batch, sets, *pixels = start.shape
    sides = 2 if rest[1].startswith("signed_") else 1
    new = start.new_empty
    return new(image.shape, dtype=torch.float32), new((batch, sets * sides, *pixels), dtype=torch.float32)


def _backward_cpu(
    grad: Tensor, image: Tensor, start: Tensor, walls: Tensor | None, *settings: Any
) -> tuple[Tensor, Tensor]:
    grad_image, grad_start = _backward_fake(grad, image, start, walls, *settings)
    grad = grad.to(torch.float32).contiguous()  # keep the name: its address is in use
    fields = geodesic.arguments(image, start, walls, *options(settings))
    _C.geodesic_distance_backward(grad.data_ptr(), grad_image.data_ptr(), grad_start.data_ptr(), *fields, 0)
    return grad_image, grad_start


def _backward_gpu(
    grad: Tensor, image: Tensor, start: Tensor, walls: Tensor | None, *settings: Any
) -> tuple[Tensor, Tensor]:
    return _cuda_geodesic.gradient(grad, image, start, walls, *options(settings))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.settings = inputs[3:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    image, start, walls = ctx.saved_tensors
    kind, o = options(ctx.settings)
    grad_image, grad_start = _distance_backward(grad, image, start, walls, *ctx.settings)
    return (
        grad_image.to(image.dtype) if image.is_floating_point() else None,
        _map_gradient(grad_start, kind, o.v).to(start.dtype) if start.is_floating_point() else None,
        *[None] * (1 + len(ctx.settings)),
    )


def _map_gradient(grad_start: Tensor, kind: str, v: float) -> Tensor:
    """dL/dmap from dL/dstart: start = v·map (cost), or v·(1 - map); the complement has the other sign."""
    if math.isinf(v):
        return torch.zeros_like(grad_start[:, :: 2 if kind.startswith("signed_") else 1])
    slope = v if kind.endswith("cost") else -v
    if kind.startswith("signed_"):
        return slope * (grad_start[:, ::2] - grad_start[:, 1::2])
    return slope * grad_start


_distance_backward = define(
    f"geodesic_distance_backward(Tensor grad, {_SETTINGS}) -> (Tensor, Tensor)",
    cpu=_backward_cpu,
    fake=_backward_fake,
    gpu=_backward_gpu,
)
_distance = define(
    f"geodesic_distance({_SETTINGS}) -> Tensor",
    cpu=_cpu,
    fake=_fake,
    gpu=_gpu,
    backward=_backward,
    setup_context=_setup,
)
