"""What the kernels of csrc/geodesic are asked. Pixels have three axes; arrays may have any strides, on a GPU none."""

from typing import Any

from fastprompt import _C
from fastprompt.ops._operator import Asked


def fields(
    image: Any,  # (B, C, D, H, W)
    start: Any,  # (B, K, D, H, W)
    walls: Any,  # (B, 1, D, H, W) or None
    kind: str,
    metric: str,
    method: str,
    iterations: int,
    lam: float,
    step_weight: float,
    spacing: Any,
    v: float,
    limit: float,
) -> dict[str, Any]:
    """Of the C++ struct ``Geodesic``, but for results and threads."""
    return {
        "image": image,
        "start": start,
        "barrier": walls,
        "volume": len(spacing) == 3,
        "metric": metric,
        "method": method,
        "start_kind": kind.removeprefix("signed_"),
        "two_sided": kind.startswith("signed_"),
        "iterations": iterations,
        "lam": lam,
        "step_weight": step_weight,
        "spacing": spacing if len(spacing) == 3 else (1.0, *spacing),
        "v": v,
        "limit": limit,
    }


def distance(*args: Any) -> Asked:
    *given, out = args
    return _C.geodesic_distance, dict(**fields(*given), out=out)


def distance_backward(grad: Any, *args: Any) -> Asked:
    *given, grad_image, grad_start = args
    grad = grad.float().contiguous()
    results = {"grad_image": grad_image, "grad_start": grad_start}
    return _C.geodesic_distance_backward, dict(grad=grad, **fields(*given), **results)


def euclidean(mask: Any, spacing: Any, out: Any) -> Asked:
    return _C.euclidean_distance_transform, dict(mask=mask, spacing=tuple(spacing), out=out)
