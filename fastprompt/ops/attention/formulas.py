"""Attention in torch: formulas, for gradients and for what no kernel takes, and the kernels for a GPU."""

import torch
from torch import Tensor

from fastprompt._later import Later

kernels = Later("fastprompt.kernels.attention")
Maybe = Tensor | None


def tokens(image: Tensor, prompts: int) -> Tensor:
    """(B', C, ...) as (B, C, N)."""
    return image.flatten(2).repeat_interleave(prompts // image.shape[0], 0)


def hide(logits: Tensor, lengths: Maybe) -> Tensor:
    """-inf where the prompt token, the axis before the last, does not exist."""
    if lengths is None:
        return logits
    gone = torch.arange(logits.shape[2], device=logits.device) >= lengths[:, None]
    return logits.masked_fill(gone[:, None, :, None], -torch.inf)


def prompt_to_image(
    image: Tensor, position: Maybe, query: Tensor, key_weight: Maybe, value_weight: Maybe, bias: Maybe, lengths: Maybe
) -> Tensor:
    """What the kernel computes: (B, H, T, C) absorbed, (B, H, T, width) projected."""
    x = tokens(image, query.shape[0]).to(query.dtype)[:, None]
    key = x if position is None else x + position.flatten(2)[:, None]
    if key_weight is not None and value_weight is not None:
        heads = query.shape[1]
        key = key_weight.unflatten(0, (heads, -1)) @ key
        x = value_weight.unflatten(0, (heads, -1)) @ x
    logits = query @ key
    if bias is not None:
        logits = logits + bias.flatten(2)[:, None]
    if not logits.shape[-1]:
        raise ValueError("prompt_to_image: image must have pixels, got none")
    peak = logits.amax(-1, keepdim=True).detach()
    weight = torch.exp(logits - torch.where(peak.isfinite(), peak, 0))
    out = weight @ x.transpose(2, 3) / weight.sum(-1, keepdim=True).clamp(min=1e-38)
    if lengths is not None:
        out = out * exists(lengths, query.shape[2])
    return out


def exists(lengths: Tensor, tokens: int) -> Tensor:
    """(B, 1, T, 1): which prompt tokens there are."""
    return (torch.arange(tokens, device=lengths.device) < lengths[:, None])[:, None, :, None]


def image_to_prompt(
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
    x = tokens(image, key.shape[0]).to(key.dtype)
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


def prompt_to_image_gpu(
    image: Tensor, position: Maybe, query: Tensor, key_weight: Maybe, value_weight: Maybe, bias: Maybe, lengths: Maybe
) -> Tensor:
    """Always absorbed: the image has many tokens, and a GPU many more products to spare than bytes."""
    heads = query.shape[1]
    rows = query if key_weight is None else query @ key_weight.unflatten(0, (heads, -1))
    out: Tensor = kernels.prompt_to_image(image, position, rows, bias)
    if value_weight is not None:
        out = out @ value_weight.unflatten(0, (heads, -1)).transpose(1, 2)
    return out if lengths is None else out * exists(lengths, query.shape[2])


def image_to_prompt_gpu(
    image: Tensor, position: Maybe, key: Tensor, bias: Tensor, value: Tensor, query_weight: Maybe, out_weight: Maybe,
    out_bias: Tensor, norm_weight: Maybe, norm_bias: Maybe, lengths: Maybe, residual: bool, eps: float,
) -> Tensor:  # fmt: skip
    heads = key.shape[1]
    if query_weight is not None and out_weight is not None:
        key = key @ query_weight.unflatten(0, (heads, -1))
        value = value @ out_weight.unflatten(1, (heads, -1)).permute(1, 2, 0)
    norm = None if norm_weight is None or norm_bias is None else torch.stack([norm_weight, norm_bias]).float()
    out: Tensor = kernels.image_to_prompt(image, position, key, bias, value, out_bias, norm, lengths, residual, eps)
    return out
