"""Pooling in torch: formulas, for gradients and for what no kernel takes, and the way to the kernels for a GPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt import _gpu
from fastprompt._later import Later
from fastprompt.ops.pooling.call import LEVEL_EPS

kernels, products = Later("fastprompt.kernels.pooling"), Later("fastprompt.kernels.pooling_similarity")


def resizing(mask: int, features: int, resize: int, align_corners: bool, like: Tensor) -> Tensor:
    """(features, mask): what a line of the mask weighs on the features' grid."""
    inputs, outputs = (features, mask) if resize == 0 else (mask, features)
    if resize == 2:
        eye = torch.eye(features, dtype=like.dtype, device=like.device)
        return eye.repeat_interleave(mask // features, 1) * features / mask
    eye = torch.eye(inputs, dtype=like.dtype, device=like.device)[None, None]
    matrix = F.interpolate(eye, (outputs, inputs), mode="bilinear", align_corners=align_corners)[0, 0]
    return matrix.T if resize == 0 else matrix


def masked_pool(
    features: Tensor,
    mask: Tensor,
    resize: int,
    align_corners: bool,
    background: bool,
    threshold: float | None,
    eps: float,
    empty: float,
) -> Tensor:
    mask = mask.to(features.dtype)
    rows, columns = (
        resizing(m, n, resize, align_corners, features)
        for m, n in zip(mask.shape[-2:], features.shape[-2:], strict=True)
    )
    weight = rows @ mask @ columns.T
    if background:
        weight = torch.cat([weight, rows.sum(1)[:, None] * columns.sum(1) - weight], 1)
    if threshold is not None:
        weight = (weight > threshold).to(features.dtype)
    weight = weight.flatten(2)
    area = weight.sum(-1, keepdim=True)
    total = weight @ features.flatten(2).transpose(1, 2)
    return torch.where(area == 0, empty, total / torch.where(area == 0, 1, area + eps))


def masked_pool_gpu(features: Tensor, mask: Tensor, *options: Any) -> Any:
    return kernels.masked_pool(features, mask, *options) if kernels.fits(features, mask) else None


def cosines(features: Tensor, rows: Tensor, eps: float) -> Tensor:
    length = torch.linalg.vector_norm(rows, dim=2, keepdim=True).clamp(min=eps)
    return (rows / length) @ features / torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=eps)


def denoised(cosine: Tensor, temperature: float, sharpest: float) -> Tensor:
    if sharpest <= 0:
        return cosine
    most = (temperature * cosine).softmax(1).nan_to_num(0.0).amax(2, keepdim=True)
    return cosine.masked_fill(most < sharpest, -100)


def similarity(
    features: Tensor, rows: Tensor, scale: float, eps: float, temperature: float, kind: int, sharpest: float
) -> Tensor:
    cosine = denoised(cosines(features, rows, eps), temperature, sharpest)
    return (temperature * cosine).softmax(1) if kind == 1 else scale * cosine


def most_similar(
    features: Tensor, rows: Tensor, scale: float, eps: float, temperature: float, sharpest: float
) -> Tensor:
    cosine = denoised(cosines(features, rows, eps), temperature, sharpest)
    return cosine.nan_to_num(nan=-torch.inf).argmax(1)


def similarity_gpu(
    features: Tensor, rows: Tensor, scale: float, eps: float, temperature: float, kind: int, sharpest: float
) -> Any:
    """Prompt denoising looks at all pixels before it decides on one: that is the formula's."""
    if sharpest > 0:
        return None
    return products.similarity(features, rows, scale, eps, temperature, kind, _gpu.products(features))


def prior(query: Tensor, support: Tensor, mask: Tensor, eps: float) -> Tensor:
    query = query.repeat_interleave(len(support) // max(1, len(query)), 0)
    masked = torch.where(mask[:, None] != 0, support * mask[:, None], 0)
    lengths = [torch.linalg.vector_norm(x, dim=1) for x in (masked, query)]
    length = lengths[0][:, :, None] * lengths[1][:, None]
    most = (masked.transpose(1, 2) @ query / (length + eps)).amax(1)
    low, high = most.amin(1, keepdim=True), most.amax(1, keepdim=True)
    return (most - low) / (high - low + LEVEL_EPS)


def prior_gpu(query: Tensor, support: Tensor, mask: Tensor, eps: float) -> Any:
    return products.prior(query, support.to(query.dtype), mask, eps, LEVEL_EPS, _gpu.products(query))


def film_terms(x: Tensor, gamma: Tensor, beta: Tensor, last: bool) -> tuple[Tensor, Tensor, Tensor]:
    """beta, gamma and x, of axes that broadcast."""
    gamma, beta = ((v[:, None] if last else v[:, :, None]) for v in (gamma, beta))
    return beta, gamma, x


def film(x: Tensor, gamma: Tensor, beta: Tensor, last: bool) -> Tensor:
    beta, gamma, x = film_terms(x, gamma, beta, last)
    return gamma * x + beta


def film_gpu(x: Tensor, gamma: Tensor, beta: Tensor, last: bool) -> Tensor:
    return torch.addcmul(*film_terms(x, gamma, beta, last))
