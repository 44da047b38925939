"""The pooling operators in torch: registration, shapes, gradients."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt._runtime import current_backend
from fastprompt.ops import conditioning, pooling, prior, similarity
from fastprompt.ops._library import define, define_with_formula

# ---------------------------------------------------------------- masked means


def resizing(mask: int, features: int, resize: int, align_corners: bool, like: Tensor) -> Tensor:
    """(features, mask): what a line of the mask weighs on the features' grid."""
    inputs, outputs = (features, mask) if resize == 0 else (mask, features)
    if resize == 2:
        return torch.eye(features, dtype=like.dtype).repeat_interleave(mask // features, 1) * features / mask
    eye = torch.eye(inputs, dtype=like.dtype)[None, None]
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


masked_pool = define_with_formula(
    "masked_pool",
    "Tensor features, Tensor mask, int resize, bool align_corners, bool background, float? threshold, float eps, "
    "float empty",
    formula=masked_pool_formula,
    launch=pooling.launch,
    shape=pooling.shape,
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


similarity_map = define_with_formula(
    "similarity_map",
    "Tensor features, Tensor rows, float scale, float eps, float temperature, int kind, float sharpest",
    formula=similarity_formula,
    launch=similarity.launch,
    shape=similarity.shape,
)


def _most_similar_fake(
    features: Tensor, rows: Tensor, scale: float, eps: float, temperature: float, sharpest: float
) -> Tensor:
    return features.new_empty((features.shape[0], features.shape[2]), dtype=torch.int64)


def _most_similar_cpu(
    features: Tensor, rows: Tensor, scale: float, eps: float, temperature: float, sharpest: float
) -> Tensor:
    if current_backend() == "reference":
        cosine = _denoised(_cosines(features, rows, eps), temperature, sharpest)
        return cosine.nan_to_num(nan=-torch.inf).argmax(1)
    out = _most_similar_fake(features, rows, scale, eps, temperature, sharpest)
    similarity.launch(features, rows, scale, eps, temperature, 2, sharpest, out)
    return out


similarity_argmax = define(
    "similarity_argmax(Tensor features, Tensor rows, float scale, float eps, float temperature, float sharpest) "
    "-> Tensor",
    cpu=_most_similar_cpu,
    fake=_most_similar_fake,
)

# ---------------------------------------------------------------- prior mask


def _prior_fake(query: Tensor, support: Tensor, mask: Tensor, eps: float) -> Tensor:
    return query.new_empty((support.shape[0], query.shape[2]))


def _prior_cpu(query: Tensor, support: Tensor, mask: Tensor, eps: float) -> Tensor:
    if current_backend() == "reference":
        from fastprompt.reference import pooling as reference

        return torch.from_numpy(reference.most_similar(query.numpy(), support.numpy(), mask.numpy(), eps))
    out = _prior_fake(query, support, mask, eps)
    prior.launch(query, support, mask, eps, out)
    return out


most_similar = define(
    "prior_similarity(Tensor query, Tensor support, Tensor mask, float eps) -> Tensor",
    cpu=_prior_cpu,
    fake=_prior_fake,
)

# ---------------------------------------------------------------- FiLM


def film_formula(x: Tensor, gamma: Tensor, beta: Tensor, last: bool) -> Tensor:
    gamma, beta = ((v[:, None] if last else v[:, :, None]) for v in (gamma, beta))
    return gamma * x + beta


film = define_with_formula(
    "film",
    "Tensor x, Tensor gamma, Tensor beta, bool last",
    formula=film_formula,
    launch=conditioning.launch,
    shape=conditioning.shape,
)
