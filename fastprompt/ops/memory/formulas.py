"""Memory reads and their gradient in torch, with blocks of the weights in memory, never all."""

import torch
from torch import Tensor

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
