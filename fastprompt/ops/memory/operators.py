"""The memory read in torch: registration, shapes, gradient."""

from typing import Any

import torch
from torch import Tensor

from fastprompt._runtime import current_backend
from fastprompt.ops._library import define
from fastprompt.ops.memory import reading as memory

BLOCK = 256  # queries whose weights the gradient holds at a time


def heads_first(x: Tensor) -> Tensor:
    return x.transpose(1, 2)


def _fake(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    batch, queries, heads, _ = q.shape
    return q.new_empty((batch, queries, heads, v.shape[3])), q.new_empty((batch, heads, queries))


def _cpu(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    if current_backend() == "reference":
        logits = scale * heads_first(q) @ heads_first(k).transpose(2, 3)
        out = heads_first(logits.softmax(-1) @ heads_first(v)).contiguous()
        return out, logits.logsumexp(-1)
    out, log_weight = _fake(q, k, v, scale)
    q, k, v = (x.contiguous() for x in (q, k, v))
    memory.launch(q, k, v, scale, out, log_weight)
    return out, log_weight


def _gpu(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The formula in torch operators, with the weights of some queries at a time: at most 64 MB of them in float32."""
    out, log_weight = _fake(q, k, v, scale)
    key, value = heads_first(k), heads_first(v)
    rows = max(1, (1 << 24) // max(1, q.shape[0] * q.shape[2] * k.shape[1]))
    for n in range(0, q.shape[1], rows):
        logits = scale * heads_first(q[:, n : n + rows]) @ key.transpose(2, 3)
        out[:, n : n + rows] = heads_first(logits.softmax(-1) @ value)
        log_weight[:, :, n : n + rows] = logits.logsumexp(-1)
    return out, log_weight


def _backward_fake(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_weight: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _backward_blocks(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_weight: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights again, from what the forward pass kept, for a block of queries at a time."""
    key, value = heads_first(k), heads_first(v)
    q_grad, k_grad, v_grad = torch.empty_like(q), torch.zeros_like(key), torch.zeros_like(value)
    for n in range(0, q.shape[1], BLOCK):
        query, g, o = (heads_first(x[:, n : n + BLOCK]) for x in (q, grad, out))
        weight = (scale * query @ key.transpose(2, 3) - log_weight[:, :, n : n + BLOCK, None]).exp()
        v_grad += weight.transpose(2, 3) @ g
        logit_grad = scale * weight * (g @ value.transpose(2, 3) - (g * o).sum(-1, keepdim=True))
        k_grad += logit_grad.transpose(2, 3) @ query
        q_grad[:, n : n + BLOCK] = heads_first(logit_grad @ key)
    return q_grad, heads_first(k_grad).contiguous(), heads_first(v_grad).contiguous()


_memory_read_backward = define(
    "memory_read_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor log_weight, float scale) "
    "-> (Tensor, Tensor, Tensor)",
    cpu=_backward_blocks,
    fake=_backward_fake,
    gpu=_backward_blocks,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], *output)
    ctx.mark_non_differentiable(output[1])
    ctx.scale = inputs[3]


def _backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    return (*_memory_read_backward(grad.contiguous(), *ctx.saved_tensors, ctx.scale), None)


memory_read = define(
    "memory_read(Tensor q, Tensor k, Tensor v, float scale) -> (Tensor, Tensor)",
    cpu=_cpu,
    fake=_fake,
    gpu=_gpu,
    backward=_backward,
    setup_context=_setup,
)
