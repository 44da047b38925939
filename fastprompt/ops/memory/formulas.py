"""Memory reads and their gradient in torch, with blocks of the weights in memory, never all, and on a GPU."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt._later import Later
from fastprompt.ops.encoder.formulas import LARGEST, target

kernels = Later("fastprompt.kernels.memory")

BLOCK = 256  # queries whose weights the gradient holds at a time


def heads_first(x: Tensor) -> Tensor:
    return x.transpose(1, 2)


def read(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """With the weights of some queries at a time: at most 64 MB of them in float32."""
    batch, queries, heads, _ = q.shape
    key, value, out, log_weight = heads_first(k), heads_first(v), [], []
    rows = max(1, (1 << 24) // max(1, batch * heads * k.shape[1]))
    for n in range(0, max(1, queries), rows):
        logits = scale * heads_first(q[:, n : n + rows]) @ key.transpose(2, 3)
        out.append(heads_first(logits.softmax(-1) @ value))
        log_weight.append(logits.logsumexp(-1))
    return torch.cat(out, 1), torch.cat(log_weight, 2)


def gradient(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_weight: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights again, from what the forward pass kept, for a block of queries at a time."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in (grad, q, k, v)):
        out, log_weight = read(q, k, v, scale)  # as functions of q, k and v, which are differentiated again
    key, value = heads_first(k), heads_first(v)
    q_grad, k_grad, v_grad = torch.empty_like(q), torch.zeros_like(key), torch.zeros_like(value)
    for n in range(0, q.shape[1], BLOCK):
        query, g, o = (heads_first(x[:, n : n + BLOCK]) for x in (q, grad, out))
        weight = (scale * query @ key.transpose(2, 3) - log_weight[:, :, n : n + BLOCK, None]).exp()
        v_grad += weight.transpose(2, 3) @ g
        logit_grad = scale * weight * (g @ value.transpose(2, 3) - (g * o).sum(-1, keepdim=True))
        k_grad += logit_grad.transpose(2, 3) @ query
        q_grad[:, n : n + BLOCK] = heads_first(logit_grad @ key)
    return q_grad, heads_first(k_grad), heads_first(v_grad)


# ---------------------------------------------------------------- with rotary positions


def turned_read(
    q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, key_cos: Tensor, key_sin: Tensor, unturned: int,
    scale: float,
) -> Tensor:  # fmt: skip
    """The read is the operator, which has a gradient of its own."""
    turned = k.shape[1] - unturned
    times = turned // key_cos.shape[0] if unturned < k.shape[1] else 0
    head = turn(k[:, :turned], key_cos.repeat(times, 1), key_sin.repeat(times, 1))
    out: Tensor = torch.ops.fastprompt.memory_read(turn(q, cos, sin), torch.cat([head, k[:, turned:]], 1), v, scale)[0]
    return out


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    pairs = x.unflatten(-1, (-1, 2))
    swapped = torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(-2)
    return x * cos[:, None] + swapped * sin[:, None]


# ---------------------------------------------------------------- on a GPU


def read_gpu(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor] | None:
    """None for what the kernels do not take: float64, and nothing to read."""
    if q.dtype == torch.float64 or 0 in (q.numel(), k.numel(), v.numel()):
        return None
    rows = plain(q, k.to(q.dtype), v.to(q.dtype))
    out, log_weight = kernels.read(*rows, scale, *target(q))
    return out, log_weight.to(q.dtype)


def turned_read_gpu(
    q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, key_cos: Tensor, key_sin: Tensor, unturned: int,
    scale: float,
) -> Tensor | None:  # fmt: skip
    if q.dtype == torch.float64 or 0 in (q.numel(), k.numel(), v.numel()):
        return None
    query, key, value = plain(q, k.to(q.dtype), v.to(q.dtype))
    tables = [x.contiguous() for x in (cos, sin, key_cos, key_sin)]
    query, key = kernels.turned(query, key, tables, unturned)
    out: Tensor = kernels.read(query, key, value, scale, *target(q))[0]
    return out


def projected_read_gpu(
    q: Tensor, source: Tensor, value: Tensor, linear: list[Tensor], cos: Tensor, sin: Tensor, key_cos: Tensor,
    key_sin: Tensor, size: list[int], unturned: int, scale: float,
) -> Tensor:  # fmt: skip
    """The keys are in memory here: cuBLAS makes them at its limit."""
    key = F.linear(source, *linear)
    one_head = (x[:, :, None] for x in (q, key, value))
    return torch.ops.fastprompt.turned_memory_read(*one_head, cos, sin, key_cos, key_sin, unturned, scale)[:, :, 0]


def plain(*rows: Tensor) -> list[Tensor]:
    """With whole rows, as the kernels read them."""
    for x in rows:
        if x.shape[1] * max(x.stride(1), x.shape[2] * x.shape[3]) > LARGEST:
            raise ValueError(f"q, k, v must hold fewer than 2^31 numbers an image on a GPU, got {tuple(x.shape)}")
    return [x if x.stride(-1) == 1 else x.contiguous() for x in rows]
