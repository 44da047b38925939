"""Relative position in torch: formulas, for gradients and for what no kernel takes, and the kernels for a GPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt import _gpu
from fastprompt._later import Later

kernels, backward_kernels = (Later(f"fastprompt.kernels.encoder_relative{part}") for part in ("", "_backward"))
grid_kernels = Later("fastprompt.kernels.encoder_grid")

Maybe = Tensor | None
Pair = list[int] | tuple[int, int]
LARGEST = 2**31 - 1  # offsets inside an image have 32 bits on a GPU


def attention(
    q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, coordinates: Maybe, pad_key: Maybe,
    pad_value: Maybe, size: Pair, window: Pair, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As it reads, window by window; lists count as :func:`within` says."""
    if not window[0]:
        return on_a_grid(q, k, v, rel_h, rel_w, within(places(coordinates, size, q.device), size), size, scale)
    paddings = None, pad_key, pad_value
    q, k, v = (partition(x, size, window, padding) for x, padding in zip((q, k, v), paddings, strict=True))
    out, log_weight = on_a_grid(q, k, v, rel_h, rel_w, places(None, window, q.device), window, scale)
    whole = united(log_weight.transpose(1, 2)[..., None], size, window)[..., 0].transpose(1, 2)
    return united(out, size, window), whole


def on_a_grid(
    q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, coordinates: Tensor, size: Pair, scale: float
) -> tuple[Tensor, Tensor]:
    """In any dtype."""
    logits, far = scale * torch.einsum("bqhd,bkhd->bhqk", q, k), []
    for axis, rel in enumerate((rel_h, rel_w)):
        at = coordinates[..., axis].long()
        distance = at[:, :, None] - at[:, None] + size[axis] - 1
        products = torch.einsum("bqhd,rd->bhqr", q, rel)
        far.append(products.gather(3, distance[:, None].expand(len(q), q.shape[2], -1, -1)))
    logits = logits + far[0] + far[1]
    return torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v), logits.logsumexp(-1)


def gradient(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, coordinates: Maybe, out: Tensor,
    log_weight: Tensor, size: Pair, scale: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Differentiable itself, where it is asked for."""
    given = q, k, v, rel_h, rel_w
    again = torch.is_grad_enabled() and any(x.requires_grad for x in (grad, *given))
    with torch.enable_grad():
        leaves = [x.view_as(x) if x.requires_grad and again else x.detach().requires_grad_() for x in given]
        everything: Any = (*leaves, within(places(coordinates, size, q.device), size), size, scale)
        return torch.autograd.grad(on_a_grid(*everything)[0], leaves, grad, create_graph=again)


def places(coordinates: Maybe, size: Pair, device: torch.device | None = None) -> Tensor:
    if coordinates is not None:
        return coordinates
    return torch.cartesian_prod(*(torch.arange(n, device=device) for n in size)).view(1, -1, 2)


def within(coordinates: Tensor, size: Pair) -> Tensor:
    """The nearest places inside the grid, as the kernels for a GPU take them: an error would wait for it."""
    return torch.stack([coordinates[..., axis].clamp(0, n - 1) for axis, n in enumerate(size)], -1)


# ---------------------------------------------------------------- windows


def counts(size: Pair, window: Pair) -> tuple[int, ...]:
    return tuple(-(-n // m) for n, m in zip(size, window, strict=True))


def partition(x: Tensor, size: Pair, window: Pair, padding: Maybe) -> Tensor:
    """(B, h w, …) as (B windows, window, …); positions outside the grid are ``padding``, or zero."""
    (rows, columns), (height, width), (h, w) = counts(size, window), size, window
    beyond = (0, 0, 0, 0, 0, columns * w - width, 0, rows * h - height)
    whole = F.pad(x.unflatten(1, (height, width)), beyond)
    if padding is not None:
        outside = F.pad(x.new_zeros(1, height, width, 1, 1), beyond, value=1.0)
        whole = whole + outside * padding
    return whole.unflatten(2, (columns, w)).unflatten(1, (rows, h)).transpose(2, 3).flatten(3, 4).flatten(0, 2)


def united(out: Tensor, size: Pair, window: Pair) -> Tensor:
    """The grid of its windows, which :func:`partition` has cut."""
    rows, columns = counts(size, window)
    cut = out.unflatten(0, (-1, rows, columns)).unflatten(3, tuple(window)).transpose(2, 3)
    return cut.flatten(3, 4).flatten(1, 2)[:, : size[0], : size[1]].flatten(1, 2)


def grid_attention(
    q: Tensor, k: Tensor, v: Tensor, pad_key: Maybe, pad_value: Maybe, size: Pair, window: Pair, pool: int, scale: float
) -> Tensor:
    cell = window if window[0] else size
    paddings = None, pad_key, pad_value
    q, k, v = (partition(x, size, cell, padding) for x, padding in zip((q, k, v), paddings, strict=True))
    down, across = (n // pool for n in cell)
    q = q.unflatten(1, (down, pool, across, pool)).amax((2, 4)).flatten(1, 2)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)
    return united(out, [n // pool for n in size], (down, across))


# ---------------------------------------------------------------- on a GPU


def attention_gpu(
    q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, coordinates: Maybe, pad_key: Maybe,
    pad_value: Maybe, size: Pair, window: Pair, scale: float,
) -> Any:  # fmt: skip
    if q.numel() == 0:
        return q.new_empty(q.shape), q.new_empty(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32)
    rows = alike(window if window[0] else size, q, k, v)
    given = (*rows, rel_h, rel_w, in_grid(coordinates), pad_key, pad_value)
    return kernels.attention(*given, pair(size), pair(window), scale, *target(q))


def gradient_gpu(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, coordinates: Maybe, out: Tensor,
    log_weight: Tensor, size: Pair, scale: float,
) -> Any:  # fmt: skip
    """None for a list on a grid whose places the kernels cannot tell from each other."""
    if q.numel() == 0:
        return tuple(torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (q, k, v, rel_h, rel_w))
    arch, precision = target(q)
    if coordinates is not None and not backward_kernels.takes_lists(arch, pair(size)):
        return None
    rows, tables = alike(size, q, k, v), (rel_h.contiguous(), rel_w.contiguous())
    made = in_grid(coordinates), out.contiguous(), log_weight
    return backward_kernels.gradient(grad.contiguous(), *rows, *tables, *made, pair(size), scale, arch, precision)


def grid_attention_gpu(
    q: Tensor, k: Tensor, v: Tensor, pad_key: Maybe, pad_value: Maybe, size: Pair, window: Pair, pool: int, scale: float
) -> Maybe:
    """None in float64."""
    if q.dtype == torch.float64:
        return None
    if q.numel() == 0:
        return q.new_empty(q.shape[0], q.shape[1] // pool**2, *q.shape[2:])
    rows = alike(window if window[0] else size, q, k.to(q.dtype), v.to(q.dtype))
    padding = (None if x is None else x.to(q.dtype).contiguous() for x in (pad_key, pad_value))
    out: Tensor = grid_kernels.attention(*rows, *padding, pair(size), pair(window), pool, scale, *target(q))
    return out


def pair(numbers: Pair) -> tuple[int, int]:
    return numbers[0], numbers[1]


def alike(cell: Pair, *rows: Tensor) -> tuple[Tensor, ...]:
    """q, k, v with the same strides, as the kernels take them."""
    first = rows[0]
    if any(x.stride() != first.stride() for x in rows) or first.stride(-1) != 1:
        rows = tuple(x.contiguous() for x in rows)
    if first.shape[1] * max(rows[0].stride(1), first.shape[2] * first.shape[3], sum(cell)) > LARGEST:
        raise ValueError(f"q must hold fewer than 2^31 numbers an image on a GPU, got shape {tuple(first.shape)}")
    return rows


def in_grid(coordinates: Maybe) -> Maybe:
    """As the kernels read it: what lies outside they move into the grid."""
    return None if coordinates is None else coordinates.to(torch.int32).contiguous()


def target(x: Tensor) -> tuple[int, str]:
    """Architecture, and how float32 is multiplied."""
    major, minor = torch.cuda.get_device_capability(x.device) if x.is_cuda else (8, 0)
    return 10 * major + minor, _gpu.products(x)
