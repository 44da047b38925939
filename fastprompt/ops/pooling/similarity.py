"""How similar every pixel of a feature map is to some vectors: prototypes, class names."""

import math
from typing import Any

from fastprompt._choices import choice
from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array, contiguous, in_dtype_of, kernel_floats, plain_floats
from fastprompt.ops._checks import check_devices, check_number
from fastprompt.ops.pooling.call import KINDS, Kind
from fastprompt.ops.pooling.operators import similarity_argmax, similarity_map

__all__ = ["cosine_prototype_map", "text_similarity_map"]


def cosine_prototype_map(
    features: Any,  # ([B,] C, h, w)
    prototypes: Any,  # ([B,] P, C)
    *,
    scale: float = 20.0,
    eps: float = 1e-8,
) -> Any:
    r"""Scaled cosines between every pixel and every prototype (PANet's distance maps).

    .. math:: d_{px} = s \, \frac{F_x \cdot p}{\max(|F_x|, \varepsilon) \, \max(|p|, \varepsilon)}

    One read of the features gives their lengths and all products. From nine prototypes on it is a product of tiles,
    whose precision ``torch.set_float32_matmul_precision`` sets: bfloat16 for "medium", where the machine has it.

    Args:
        features: float32; float16 and bfloat16 are converted.
        prototypes: P vectors, those of each image or, without the axis B, of all.
        scale: s, 20 in PANet.
        eps: of ``torch.nn.functional.cosine_similarity``; a pixel of zeros gives 0.

    Returns:
        ([B,] P, h, w) in the dtype of ``features``; torch in, torch out. Differentiable.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> f = np.random.default_rng(0).standard_normal((8, 5, 6), np.float32)
        >>> fp.cosine_prototype_map(f, f[:, 0, :2].T)[:, 0, :2].diagonal()
        array([20., 20.], dtype=float32)

    Source: Wang et al., PANet, 2019 (formula only).
    """
    features, rows = check(features, "prototypes", prototypes)
    scale = check_number("scale", scale, -math.inf, math.inf)
    return run(features, rows, scale, check_number("eps", eps, 0.0, math.inf), 1.0, "none", 0.0)


def text_similarity_map(
    features: Any,  # ([B,] C, h, w)
    text: Any,  # (T, [R,] C)
    *,
    temperature: float = 100.0,
    reduce: Kind = "none",
    denoise: float = 0.0,
    eps: float = 0.0,
) -> Any:
    r"""Cosines between every pixel and the embeddings of T texts, their softmax, or the best text (MaskCLIP, LSeg, …).

    .. math:: c_{tx} = \frac{F_x \cdot T_t}{|F_x| \, |T_t|}, \qquad
        \operatorname{softmax}_t(\tau \, c_{tx}), \qquad \arg\max_t c_{tx}

    Tile by tile: neither the normalised features nor, for "argmax", the T maps are written. Products follow
    ``torch.set_float32_matmul_precision``: bfloat16 for "medium", where the machine has it.

    Args:
        features: float32; float16 and bfloat16 are converted.
        text: one vector for each text, or R of R templates: of length 1 each, averaged, and of length 1 again.
        temperature: tau, of the softmax.
        reduce: "none" (the cosines), "softmax" (over the texts) or "argmax" (int64, equal ones: the lowest).
        denoise: MaskCLIP's prompt denoising: a text whose largest softmax over all pixels of an image is less gets the
            cosine -100 there. 0: off.
        eps: least length. 0 as in the hosts: a pixel of zeros gives NaN (and the text 0 for "argmax").

    Returns:
        ([B,] T, h, w) in the dtype of ``features``, or ([B,] h, w); torch in, torch out. Differentiable but for
        "argmax".

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> fp.text_similarity_map(np.eye(3).reshape(3, 1, 3), np.eye(3), reduce="argmax")
        array([[0, 1, 2]])

    Source: Zhou et al., MaskCLIP, 2022; Li et al., LSeg, 2022. Formulas only.
    """
    choice("reduce", reduce, KINDS)
    tau = check_number("temperature", temperature, 0.0, math.inf)
    level = check_number("denoise", denoise, 0.0, 1.0)
    eps = check_number("eps", eps, 0.0, math.inf)
    text = as_array("text", text)
    if text.ndim not in (2, 3) or 0 in tuple(text.shape):
        raise ValueError(f"text must be (T, [R,] C), got shape {tuple(text.shape)}")
    if text.ndim == 3:
        text = plain_floats(text)
        text = (text / (text * text).sum(-1)[..., None] ** 0.5).mean(1)
    features, rows = check(features, "text", text)
    return run(features, rows, 1.0, eps, tau, reduce, level)


def check(features: Any, name: str, rows: Any) -> tuple[Any, Any]:
    features, rows = as_array("features", features), as_array(name, rows)
    check_devices(features=features, **{name: rows})
    if features.ndim not in (3, 4) or features.shape[-3] == 0:
        raise ValueError(f"features must be ([B,] C, h, w), got shape {tuple(features.shape)}")
    channels, batch = int(features.shape[-3]), tuple(features.shape[:-3])
    fits = rows.ndim == 2 or (rows.ndim == 3 and batch and tuple(rows.shape[:1]) == batch)
    if not fits or rows.shape[-1] != channels:
        axes = f"[{batch[0]},] P, {channels}" if batch and name == "prototypes" else f"P, {channels}"
        raise ValueError(f"{name} must be ({axes}), got shape {tuple(rows.shape)}")
    return features, rows if rows.ndim == 3 else rows[None]


def run(features: Any, rows: Any, scale: float, eps: float, temperature: float, reduce: str, sharpest: float) -> Any:
    lead, (channels, height, width) = features.shape[:-3], features.shape[-3:]
    flat, plain_rows = (contiguous(x) for x in kernel_floats(features, rows))
    flat = flat.reshape(math.prod(lead), channels, height * width)
    if reduce == "argmax":
        if is_tensor(flat):  # indices have no gradient
            flat, plain_rows = flat.detach(), plain_rows.detach()
        return similarity_argmax(flat, plain_rows, scale, eps, temperature, sharpest).reshape(*lead, height, width)
    out = similarity_map(flat, plain_rows, scale, eps, temperature, KINDS.index(reduce), sharpest)
    out = out.reshape(*lead, rows.shape[1], height, width)
    return in_dtype_of(out, features)
