"""Relative-position attention in torch: registration, shapes, gradient."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt import _C, _gpu
from fastprompt._runtime import current_backend, get_num_threads
from fastprompt.ops._arrays import address, addresses, plain_floats
from fastprompt.ops._library import define
from fastprompt.ops.encoder import relative as relative_position
from fastprompt.ops.encoder.relative import Call

Maybe = Tensor | None
Pair = list[int]


def attend(call: Call) -> Tensor:
    """(B, N, heads, width)."""
    tensors, size, window = call[:8], list(call.size), list(call.window)
    if window[0] and torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors):
        return by_windows(call)
    out: Tensor = _attention(*tensors, size, window, call.scale)[0]
    return out


def by_windows(call: Call) -> Tensor:
    """The same with every window as an image of its own, for the gradient: autograd undoes the partition."""
    parts = [partition(x, call, p) for x, p in zip(call[:3], (None, call.pad_key, call.pad_value), strict=True)]
    fields = (*parts, call.rel_h, call.rel_w, None, None, None)
    out: Tensor = _attention(*fields, list(call.window), [0, 0], call.scale)[0]
    return united(out, call)


def united(out: Tensor, call: Call) -> Tensor:
    """The grid of its windows, which :func:`partition` has cut."""
    rows, columns = counts(call)
    whole = out.unflatten(0, (-1, rows, columns)).unflatten(3, call.window).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return whole[:, : call.size[0], : call.size[1]].flatten(1, 2)


def counts(call: Call) -> tuple[int, ...]:
    return tuple(-(-n // m) for n, m in zip(call.size, call.window, strict=True))


def partition(x: Tensor, call: Call, padding: Maybe) -> Tensor:
    (rows, columns), (height, width), (h, w) = counts(call), call.size, call.window
    beyond = (0, 0, 0, 0, 0, columns * w - width, 0, rows * h - height)
    whole = F.pad(x.unflatten(1, call.size), beyond)
    if padding is not None:
        outside = F.pad(x.new_zeros(1, height, width, 1, 1), beyond, value=1.0)
        whole = whole + outside * padding
    return whole.unflatten(2, (columns, w)).unflatten(1, (rows, h)).transpose(2, 3).flatten(3, 4).flatten(0, 2)


def formula(
    q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, coordinates: Tensor, size: Pair, scale: float
) -> Tensor:
    """As it reads, in any dtype: the gradient of the backend "reference", and the oracle of ours."""
    weight = logits(q, k, rel_h, rel_w, coordinates, size, scale).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", weight, v)


def logits(q: Tensor, k: Tensor, rel_h: Tensor, rel_w: Tensor, coordinates: Tensor, size: Pair, scale: float) -> Tensor:
    far = []
    for axis, rel in enumerate((rel_h, rel_w)):
        at = coordinates[..., axis].long()
        distance = at[:, :, None] - at[:, None] + size[axis] - 1
        products = torch.einsum("bqhd,rd->bhqr", q, rel)
        far.append(products.gather(3, distance[:, None].expand(len(q), q.shape[2], -1, -1)))
    return scale * torch.einsum("bqhd,bkhd->bhqk", q, k) + far[0] + far[1]


def places(coordinates: Maybe, size: Pair, device: torch.device | None = None) -> Tensor:
    if coordinates is not None:
        return coordinates
    return torch.cartesian_prod(*(torch.arange(n, device=device) for n in size)).view(1, -1, 2)


def checked(coordinates: Maybe, size: Pair) -> Maybe:
    if coordinates is None:
        return None
    relative_position.inside(coordinates, size)
    return coordinates.to(torch.int32).contiguous()


def _fake(q: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32)


def _cpu(
    q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, coordinates: Maybe, pad_key: Maybe,
    pad_value: Maybe, size: Pair, window: Pair, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    dtype = q.dtype
    q, k, v = map(relative_position.floats, (q, k, v))
    rel_h, rel_w, pad_key, pad_value = map(plain_floats, (rel_h, rel_w, pad_key, pad_value))
    out, log_weight = _fake(q)
    rest: Any = (checked(coordinates, size), pad_key, pad_value, size, window, scale)
    if current_backend() == "reference":
        from fastprompt.reference import encoder as reference

        arrays: Any = [x.numpy() if isinstance(x, Tensor) else x for x in (q, k, v, rel_h, rel_w, *rest)]
        if not window[0]:  # which has no gradient
            log_weight = logits(q, k, rel_h, rel_w, places(coordinates, size), size, scale).logsumexp(-1)
        return torch.from_numpy(reference.relative_position(*arrays)).contiguous().to(dtype), log_weight
    relative_position.launch((q, k, v, rel_h, rel_w, *rest), out, log_weight)
    return out.to(dtype), log_weight


LARGEST = 2**31 - 1  # offsets inside an image have 32 bits


def _on_gpu(
    q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, coordinates: Maybe, pad_key: Maybe,
    pad_value: Maybe, size: Pair, window: Pair, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    call = Call(q, k, v, rel_h, rel_w, coordinates, pad_key, pad_value, pair(size), pair(window), scale, q.shape[-1])
    if current_backend() == "reference":
        return reference_on_gpu(call)
    if q.numel() == 0:
        return _fake(q)
    given = (*alike(call.cell, q, k, v), rel_h, rel_w, in_grid(coordinates), pad_key, pad_value)
    return _gpu.kernels("encoder_relative").attention(*given, call.size, call.window, scale, *target(q))


def within(coordinates: Tensor, size: tuple[int, int]) -> Tensor:
    """The nearest places inside the grid, as the kernels take them: an error would wait for the GPU."""
    return torch.stack([coordinates[..., axis].clamp(0, n - 1) for axis, n in enumerate(size)], -1)


def pair(numbers: Pair) -> tuple[int, int]:
    return numbers[0], numbers[1]


def reference_on_gpu(call: Call) -> tuple[Tensor, Tensor]:
    """The formula in float32, window by window; of windows no ``log_weight``, which only the gradient asks for."""
    floats: Any = {name: x.float() for name, x in call._asdict().items() if isinstance(x, Tensor)}
    plain = call._replace(**floats)
    at = within(places(call.coordinates, list(call.cell), call.q.device), call.cell)
    q, k, v = plain[:3]
    if call.window[0]:
        paddings = None, plain.pad_key, plain.pad_value
        q, k, v = (partition(x, call, padding) for x, padding in zip((q, k, v), paddings, strict=True))
    table: Any = (plain.rel_h, plain.rel_w, at, call.cell, call.scale)
    out, log_weight = formula(q, k, v, *table), _fake(call.q)[1]
    if call.window[0]:
        out = united(out, call)
    else:
        log_weight.copy_(logits(q, k, *table).logsumexp(-1))
    return out.to(call.q.dtype).contiguous(), log_weight


def alike(cell: tuple[int, int], *rows: Tensor) -> tuple[Tensor, ...]:
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


def _backward_fake(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, *rest: Any) -> Any:
    return tuple(x.new_empty(x.shape) for x in (q, k, v, rel_h, rel_w))


def _backward_cpu(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, coordinates: Maybe, out: Tensor,
    log_weight: Tensor, size: Pair, scale: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    found = _backward_fake(grad, q, k, v, rel_h, rel_w)
    if current_backend() == "reference":
        return gradient_of_formula(grad, (q, k, v, rel_h, rel_w), places(coordinates, size), size, scale)
    q, k, v = map(relative_position.floats, (q, k, v))  # keep the names: their addresses are in use
    grad, out, log_weight = grad.contiguous(), out.contiguous(), log_weight.contiguous()
    call = (
        q,
        k,
        v,
        rel_h.contiguous(),
        rel_w.contiguous(),
        checked(coordinates, size),
        None,
        None,
        size,
        (0, 0),
        scale,
    )
    fields = relative_position.arguments(call)
    made = addresses(found)
    _C.relative_gradient(*fields, address(out), address(log_weight), address(grad), made, get_num_threads())
    return found


def gradient_of_formula(
    grad: Tensor, tensors: tuple[Tensor, ...], coordinates: Tensor, size: Pair, scale: float
) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        leaves: Any = [x.detach().float().requires_grad_() for x in tensors]
        arguments: Any = (*leaves, coordinates, size, scale)
        found = torch.autograd.grad(formula(*arguments), leaves, grad.float())
    return tuple(g.to(x.dtype).contiguous() for g, x in zip(found, tensors, strict=True))


def _backward_on_gpu(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, coordinates: Maybe, out: Tensor,
    log_weight: Tensor, size: Pair, scale: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    tensors, (arch, precision) = (q, k, v, rel_h, rel_w), target(q)
    if q.numel() == 0:
        return tuple(torch.zeros_like(x, memory_format=torch.contiguous_format) for x in tensors)
    kernels = None if current_backend() == "reference" else _gpu.kernels("encoder_relative_backward")
    if kernels is None or (coordinates is not None and not kernels.takes_lists(arch, pair(size))):
        at = within(places(coordinates, size, q.device), pair(size))
        return gradient_of_formula(grad, tensors, at, size, scale)
    rows = (
        *alike(pair(size), q, k, v),
        rel_h.contiguous(),
        rel_w.contiguous(),
        in_grid(coordinates),
        out.contiguous(),
        log_weight,
    )
    found: tuple[Tensor, ...] = kernels.gradient(grad.contiguous(), *rows, pair(size), scale, arch, precision)
    return found


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, rel_h, rel_w, coordinates, _, _, size, window, scale = inputs
    ctx.save_for_backward(q, k, v, rel_h, rel_w, coordinates, *output)
    ctx.settings = size, scale
    if window[0] and any(x is not None and x.requires_grad for x in inputs[:8]):
        raise NotImplementedError("relative_attention has a gradient without windows: see by_windows")


def _backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    q, k, v, rel_h, rel_w, coordinates, out, log_weight = ctx.saved_tensors
    size, scale = ctx.settings
    found = _attention_backward(grad.contiguous(), q, k, v, rel_h, rel_w, coordinates, out, log_weight, size, scale)
    return (*found, *[None] * 6)


_attention_backward = define(
    "relative_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor rel_h, Tensor rel_w, "
    "Tensor? coordinates, Tensor out, Tensor log_weight, int[] size, float scale) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    cpu=_backward_cpu,
    gpu=_backward_on_gpu,
    fake=_backward_fake,
)
_attention = define(
    "relative_attention(Tensor q, Tensor k, Tensor v, Tensor rel_h, Tensor rel_w, Tensor? coordinates, "
    "Tensor? pad_key, Tensor? pad_value, int[] size, int[] window, float scale) -> (Tensor, Tensor)",
    cpu=_cpu,
    gpu=_on_gpu,
    fake=_fake,
    backward=_backward,
    setup_context=_setup,
)
