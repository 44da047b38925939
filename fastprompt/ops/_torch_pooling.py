"""The pooling operators in torch: registration, shapes, gradients."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt import _gpu
from fastprompt._runtime import current_backend
from fastprompt.ops import conditioning, pooling, similarity
from fastprompt.ops import prior as prior_mask
from fastprompt.ops._library import define, define_with_formula

# ---------------------------------------------------------------- masked means


def resizing(mask: int, features: int, resize: int, align_corners: bool, like: Tensor) -> Tensor:
    """(features, mask): what a line of the mask weighs on the features' grid."""
    inputs, outputs = (features, mask) if resize == 0 else (mask, features)
    if resize == 2:
        eye = torch.eye(features, dtype=like.dtype, device=like.device)
        return eye.repeat_interleave(mask // features, 1) * features / mask
    eye = torch.eye(inputs, dtype=like.dtype, device=like.device)[None, None]
    matrix = F.interpolate(eye, (outputs, inputs), mode="bilinear", align_corners=align_corners)[0, 0]
    return matrix.T if resize == 0 else matrix


def masked_pool_formula(
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


def _masked_pool_gpu(features: Tensor, mask: Tensor, *options: Any) -> Tensor:
    from fastprompt.kernels import pooling as kernels

    if not kernels.fits(features, mask):
        return masked_pool_formula(features.float(), mask, *options)
    return kernels.masked_pool(features, mask, *options)


masked_pool = define_with_formula(
    "masked_pool",
    "Tensor features, Tensor mask, int resize, bool align_corners, bool background, float? threshold, float eps, "
    "float empty",
    formula=masked_pool_formula,
    launch=pooling.launch,
    shape=pooling.shape,
    gpu=_masked_pool_gpu,
)

# ---------------------------------------------------------------- similarity


def _cosines(features: Tensor, rows: Tensor, eps: float) -> Tensor:
    length = torch.linalg.vector_norm(rows, dim=2, keepdim=True).clamp(min=eps)
    return (rows / length) @ features / torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=eps)


def _denoised(cosine: Tensor, temperature: float, sharpest: float) -> Tensor:
    if sharpest <= 0:
        return cosine
    most = (temperature * cosine).softmax(1).nan_to_num(0.0).amax(2, keepdim=True)
    return cosine.masked_fill(most < sharpest, -100)


def similarity_formula(
    features: Tensor, rows: Tensor, scale: float, eps: float, temperature: float, kind: int, sharpest: float
) -> Tensor:
    cosine = _denoised(_cosines(features, rows, eps), temperature, sharpest)
    return (temperature * cosine).softmax(1) if kind == 1 else scale * cosine


def _similarity_gpu(
    features: Tensor, rows: Tensor, scale: float, eps: float, temperature: float, kind: int, sharpest: float
) -> Tensor:
    """Prompt denoising looks at all pixels before it decides on one: that is the formula's."""
    from fastprompt.kernels import similarity as kernels

    out = None
    if sharpest <= 0:
        out = kernels.similarity(features, rows, scale, eps, temperature, kind, _gpu.products(features))
    if out is None:
        wide = (features.float(), rows.float())
        if kind == 2:
            return _most_similar_formula(*wide, scale, eps, temperature, sharpest)
        return similarity_formula(*wide, scale, eps, temperature, kind, sharpest)
    return out


similarity_map = define_with_formula(
    "similarity_map",
    "Tensor features, Tensor rows, float scale, float eps, float temperature, int kind, float sharpest",
    formula=similarity_formula,
    launch=similarity.launch,
    shape=similarity.shape,
    gpu=_similarity_gpu,
)


def _most_similar_fake(
    features: Tensor, rows: Tensor, scale: float, eps: float, temperature: float, sharpest: float
) -> Tensor:
    return features.new_empty((features.shape[0], features.shape[2]), dtype=torch.int64)


def _most_similar_formula(
    features: Tensor, rows: Tensor, scale: float, eps: float, temperature: float, sharpest: float
) -> Tensor:
    cosine = _denoised(_cosines(features, rows, eps), temperature, sharpest)
    return cosine.nan_to_num(nan=-torch.inf).argmax(1)


def _most_similar_gpu(features: Tensor, rows: Tensor, *options: Any) -> Tensor:
    if current_backend() == "reference":
        return _most_similar_formula(features, rows, *options)
    scale, eps, temperature, sharpest = options
    return _similarity_gpu(features, rows, scale, eps, temperature, 2, sharpest)


def _most_similar_cpu(
    features: Tensor, rows: Tensor, scale: float, eps: float, temperature: float, sharpest: float
) -> Tensor:
    if current_backend() == "reference":
        return _most_similar_formula(features, rows, scale, eps, temperature, sharpest)
    out = _most_similar_fake(features, rows, scale, eps, temperature, sharpest)
    similarity.launch(features, rows, scale, eps, temperature, 2, sharpest, out)
    return out


similarity_argmax = define(
    "similarity_argmax(Tensor features, Tensor rows, float scale, float eps, float temperature, float sharpest) "
    "-> Tensor",
    cpu=_most_similar_cpu,
    fake=_most_similar_fake,
    gpu=_most_similar_gpu,
)

# ---------------------------------------------------------------- prior mask


def _prior_fake(query: Tensor, support: Tensor, mask: Tensor, eps: float) -> Tensor:
    return query.new_empty((support.shape[0], query.shape[2]), dtype=torch.float32)


def _prior_cpu(query: Tensor, support: Tensor, mask: Tensor, eps: float) -> Tensor:
    if current_backend() == "reference":
        from fastprompt.reference import pooling as reference

        most = torch.from_numpy(reference.most_similar(query.numpy(), support.numpy(), mask.numpy(), eps))
        return prior_mask.to_unit(most)
    out = _prior_fake(query, support, mask, eps)
    prior_mask.launch(query, support, mask, eps, out)
    return prior_mask.to_unit(out)


def _prior_gpu(query: Tensor, support: Tensor, mask: Tensor, eps: float) -> Tensor:
    from fastprompt.kernels import similarity as kernels

    out = None
    if current_backend() != "reference":
        support = support.to(query.dtype)
        out = kernels.prior(query, support, mask, eps, prior_mask.LEVEL_EPS, _gpu.products(query))
    if out is None:
        query = query.float().repeat_interleave(len(support) // max(1, len(query)), 0)
        masked = torch.where(mask[:, None] != 0, support.float() * mask[:, None], 0)
        lengths = (torch.linalg.vector_norm(x, dim=1) for x in (masked, query))
        length = next(lengths)[:, :, None] * next(lengths)[:, None]
        out = prior_mask.to_unit((masked.transpose(1, 2) @ query / (length + eps)).amax(1))
    return out


prior = define(
    "prior_similarity(Tensor query, Tensor support, Tensor mask, float eps) -> Tensor",
    cpu=_prior_cpu,
    fake=_prior_fake,
    gpu=_prior_gpu,
)

# ---------------------------------------------------------------- FiLM


def film_terms(x: Tensor, gamma: Tensor, beta: Tensor, last: bool) -> tuple[Tensor, Tensor, Tensor]:
    """beta, gamma and x, of axes that broadcast."""
    gamma, beta = ((v[:, None] if last else v[:, :, None]) for v in (gamma, beta))
    return beta, gamma, x


def film_formula(x: Tensor, gamma: Tensor, beta: Tensor, last: bool) -> Tensor:
    beta, gamma, x = film_terms(x, gamma, beta, last)
    return gamma * x + beta


film = define_with_formula(
    "film",
    "Tensor x, Tensor gamma, Tensor beta, bool last",
    formula=film_formula,
    launch=conditioning.launch,
    shape=conditioning.shape,
    gpu=lambda x, gamma, beta, last: torch.addcmul(*film_terms(x, gamma, beta, last)),
)
