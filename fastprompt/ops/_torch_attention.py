"""The attention kernels in torch: registration, shapes, gradient."""

from typing import Any

import torch
from torch import Tensor

from fastprompt._runtime import current_backend
from fastprompt.ops import attention
from fastprompt.ops._library import define

Maybe = Tensor | None

_TO_IMAGE = (
    "Tensor image, Tensor? position, Tensor query, Tensor? key_weight, Tensor? value_weight, Tensor? bias, "
    "Tensor? lengths"
)
_TO_PROMPT = (
    "Tensor image, Tensor? position, Tensor key, Tensor bias, Tensor value, Tensor? query_weight, Tensor? out_weight, "
    "Tensor out_bias, Tensor? norm_weight, Tensor? norm_bias, Tensor? lengths, bool residual, float eps"
)


def tokens(image: Tensor, prompts: int) -> Tensor:
    """(B', C, ...) as (B, C, N)."""
    return image.flatten(2).repeat_interleave(prompts // image.shape[0], 0)


def hide(logits: Tensor, lengths: Maybe) -> Tensor:
    """-inf where the prompt token, the axis before the last, does not exist."""
    if lengths is None:
        return logits
    gone = torch.arange(logits.shape[2], device=logits.device) >= lengths[:, None]
    return logits.masked_fill(gone[:, None, :, None], -torch.inf)


def prompt_to_image_formula(
    image: Tensor, position: Maybe, query: Tensor, key_weight: Maybe, value_weight: Maybe, bias: Maybe, lengths: Maybe
) -> Tensor:
    """What the kernel computes, for the gradient: (B, H, T, C) absorbed, (B, H, T, width) projected."""
    x = tokens(image, query.shape[0])[:, None]
    key = x if position is None else x + position.flatten(2)[:, None]
    if key_weight is not None and value_weight is not None:
        heads = query.shape[1]
        key = key_weight.unflatten(0, (heads, -1)) @ key
        x = value_weight.unflatten(0, (heads, -1)) @ x
    logits = query @ key
    if bias is not None:
        logits = logits + bias.flatten(2)[:, None]
    peak = logits.amax(-1, keepdim=True).detach()
    weight = torch.exp(logits - torch.where(peak.isfinite(), peak, 0))
    out = weight @ x.transpose(2, 3) / weight.sum(-1, keepdim=True).clamp(min=1e-38)
    if lengths is not None:
        exists = torch.arange(query.shape[2], device=query.device) < lengths[:, None]
        out = out * exists[:, None, :, None]
    return out


def image_to_prompt_formula(
    image: Tensor,
    position: Maybe,
    key: Tensor,
    bias: Tensor,
    value: Tensor,
    query_weight: Maybe,
    out_weight: Maybe,
    out_bias: Tensor,
    norm_weight: Maybe,
    norm_bias: Maybe,
    lengths: Maybe,
    residual: bool,
    eps: float,
) -> Tensor:
    x = tokens(image, key.shape[0])
    query = (x if position is None else x + position.flatten(2))[:, None]
    heads = key.shape[1]
    if query_weight is not None:
        query = query_weight.unflatten(0, (heads, -1)) @ query
    weight = hide(key @ query + bias[..., None], lengths).softmax(2)
    out = value.transpose(2, 3) @ weight
    out = out.sum(1) if out_weight is None else out_weight @ out.flatten(1, 2)
    out = out + out_bias[:, None]
    if residual:
        out = out + x
    if norm_weight is not None:
        out = torch.nn.functional.layer_norm(out.transpose(1, 2), out.shape[1:2], norm_weight, norm_bias, eps)
        out = out.transpose(1, 2)
    return out.reshape(key.shape[0], *image.shape[1:])


def _operator(name: str, schema: str, formula: Any, launch: Any, shape: Any) -> Any:
    """Kernel, fake, and a gradient that differentiates the formula, behind an operator of its own."""

    def fake(*args: Any) -> Tensor:
        return args[0].new_empty(shape(*args), dtype=torch.float32)

    def cpu(*args: Any) -> Tensor:
        if current_backend() == "reference" or not supported(args[0], args[2]):
            return formula(*args).contiguous()
        out = fake(*args)
        launch(*args, out)
        return out

    def backward_fake(grad: Tensor, needed: list[bool], *args: Any) -> list[Tensor]:
        return [torch.empty_like(x, memory_format=torch.contiguous_format) for x, n in zip(args, needed) if n]  # noqa: B905

    def backward_cpu(grad: Tensor, needed: list[bool], *args: Any) -> list[Tensor]:
        with torch.enable_grad():
            inputs = [x.detach().requires_grad_() if n else x for x, n in zip(args, needed)] + list(args[len(needed) :])  # noqa: B905
            wanted = [x for x, n in zip(inputs, needed) if n]  # noqa: B905
            found = torch.autograd.grad(formula(*inputs), wanted, grad, materialize_grads=True)
        return [g.contiguous() for g in found]

    arguments = [a.strip() for a in schema.split(",")]
    tensors = sum(a.startswith("Tensor") for a in arguments)
    backward_op = define(
        f"{name}_backward(Tensor grad, bool[] needed, {schema}) -> Tensor[]", cpu=backward_cpu, fake=backward_fake
    )

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.rest = inputs[tensors:]

    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        needed = [n and x is not None for n, x in zip(ctx.needs_input_grad[:tensors], saved, strict=True)]
        found = iter(backward_op(grad.contiguous(), needed, *saved, *ctx.rest))
        return (*(next(found) if n else None for n in needed), *[None] * len(ctx.rest))

    return define(f"{name}({schema}) -> Tensor", cpu=cpu, fake=fake, backward=backward, setup_context=setup)


def supported(image: Tensor, rows: Tensor) -> bool:
    """Whole vectors only: other widths take the formula."""
    return image.dtype == torch.float32 and image.shape[1] % attention.LANES == rows.shape[3] % attention.LANES == 0


prompt_to_image = _operator(
    "prompt_to_image",
    _TO_IMAGE,
    prompt_to_image_formula,
    attention.launch_prompt_to_image,
    lambda image, position, query, *rest: query.shape,
)
image_to_prompt = _operator(
    "image_to_prompt",
    _TO_PROMPT,
    image_to_prompt_formula,
    attention.launch_image_to_prompt,
    lambda image, position, key, *rest: (key.shape[0], *image.shape[1:]),
)
