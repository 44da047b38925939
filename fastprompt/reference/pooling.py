"""Masked pooling, similarity maps and FiLM in plain NumPy, as the formulas read: no shortcut of the kernels is here."""

from typing import Any

import numpy as np


def resizing(inputs: int, outputs: int, align_corners: bool) -> Any:
    """(outputs, inputs): a line of torch's bilinear resizing as a matrix."""
    place = np.arange(outputs, dtype=np.float64)
    if align_corners:
        place *= (inputs - 1) / (outputs - 1) if outputs > 1 else 0
    else:
        place = np.maximum((place + 0.5) * inputs / outputs - 0.5, 0)
    low = np.minimum(place.astype(np.int64), inputs - 1)
    matrix = np.zeros((outputs, inputs))
    np.add.at(matrix, (np.arange(outputs), low), 1 - (place - low))
    np.add.at(matrix, (np.arange(outputs), np.minimum(low + 1, inputs - 1)), place - low)
    return matrix


def resized(x: Any, size: Any, align_corners: bool) -> Any:
    """(..., h, w) to (..., *size)."""
    rows, columns = (resizing(n, m, align_corners) for n, m in zip(x.shape[-2:], size, strict=True))
    return rows @ x @ columns.T


def masked_pool(
    features: Any,
    mask: Any,
    resize: str,
    align_corners: bool,
    background: bool,
    threshold: float | None,
    eps: float,
    empty: float,
) -> Any:
    """(B, M, C), or (B, 2 M, C) with the background, from (B, C, h, w) and (B, M, H, W)."""
    features, mask = features.astype(np.float64), mask.astype(np.float64)
    whole: Any = 1.0
    if resize == "features" and threshold is not None:  # which is of weights on the features' grid
        (rows, columns), (height, width) = mask.shape[-2:], features.shape[-2:]
        down = resized(np.eye(height)[:, :, None], (rows, 1), align_corners)[:, :, 0]
        across = resized(np.eye(width)[:, None], (1, columns), align_corners)[:, 0]
        mask, whole = down @ mask @ across.T, down.sum(1)[:, None] * across.sum(1)
    elif resize == "features":
        features = resized(features, mask.shape[-2:], align_corners)
    elif resize == "mask":
        mask = resized(mask, features.shape[-2:], align_corners)
    else:
        height, width = features.shape[-2:]
        mask = mask.reshape(*mask.shape[:2], height, mask.shape[2] // height, width, -1).mean((3, 5))
    if background:
        mask = np.concatenate([mask, whole - mask], 1)
    if threshold is not None:
        mask = (mask > threshold).astype(np.float64)
    area = mask.sum((2, 3))[..., None]
    seen = np.where(mask[:, :, None] != 0, features[:, None], 0)  # 0 times NaN is nothing
    total = (seen * mask[:, :, None]).sum((3, 4))
    return np.where(area == 0, empty, total / np.where(area == 0, 1, area + eps)).astype(np.float32)


def unit(x: Any, axis: int, eps: float) -> Any:
    with np.errstate(invalid="ignore"):
        return x / np.maximum(np.sqrt((x * x).sum(axis, keepdims=True)), eps)


def cosines(features: Any, rows: Any, eps: float) -> Any:
    """(B, P, N) from (B, C, N) and (B or 1, P, C)."""
    return unit(rows.astype(np.float64), 2, eps) @ unit(features.astype(np.float64), 1, eps)


def softmax(x: Any, axis: int) -> Any:
    weight = np.exp(x - x.max(axis, keepdims=True))
    return weight / weight.sum(axis, keepdims=True)


def similarity(
    features: Any, rows: Any, scale: float, eps: float, temperature: float, kind: str, sharpest: float
) -> Any:
    """(B, P, N), or (B, N) of the largest. A row with no share over ``sharpest`` anywhere has the cosine -100."""
    cosine = cosines(features, rows, eps)
    if sharpest > 0:
        most = np.nanmax(softmax(temperature * cosine, 1), 2, initial=0)
        cosine = np.where((most < sharpest)[..., None], -100, cosine)
    if kind == "argmax":
        return np.where(np.isnan(cosine), -np.inf, cosine).argmax(1)
    return (softmax(temperature * cosine, 1) if kind == "softmax" else scale * cosine).astype(np.float32)


def most_similar(query: Any, support: Any, mask: Any, eps: float) -> Any:
    """(B K, N): of every query pixel (B, C, N), the largest cosine to a masked support pixel (B K, C, M), (B K, M)."""
    query = query.astype(np.float64).repeat(len(support) // max(1, len(query)), 0)
    masked = np.where(mask[:, None] != 0, support.astype(np.float64) * mask[:, None], 0)
    with np.errstate(invalid="ignore"):  # of inf and NaN
        lengths = np.sqrt((masked**2).sum(1))[:, :, None] * np.sqrt((query**2).sum(1))[:, None]
        return (masked.swapaxes(1, 2) @ query / (lengths + eps)).max(1).astype(np.float32)


def levelled(x: Any, eps: float) -> Any:
    """Every row from 0 to 1."""
    low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
    return (x - low) / (high - low + np.float32(eps))


def film(x: Any, gamma: Any, beta: Any, last: bool) -> Any:
    """x (B or 1, C, N) or, if ``last``, (B or 1, N, C); gamma, beta (B, C)."""
    gamma, beta = (v[:, None] if last else v[:, :, None] for v in (gamma, beta))
    return gamma * x + beta
