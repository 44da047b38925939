"""From image tokens to masks: SAM's mask head."""

import math
from typing import Any, NamedTuple

from fastprompt.ops._arrays import as_array, device_floats, in_dtype_of
from fastprompt.ops._checks import check_devices, check_number
from fastprompt.ops.decoder.operators import mask_head as operator

__all__ = ["MaskHeadWeights", "mask_head"]


class MaskHeadWeights(NamedTuple):
    """Two ``nn.ConvTranspose2d(kernel_size=2, stride=2)``, (C, M, 2, 2) and (M, D, 2, 2), and the LayerNorm between."""

    conv1_weight: Any
    conv1_bias: Any
    norm_weight: Any
    norm_bias: Any
    conv2_weight: Any
    conv2_bias: Any


def mask_head(
    image: Any,  # (B, C, H, W)
    vectors: Any,  # (B, K, D)
    weights: MaskHeadWeights,
    *,
    eps: float = 1e-6,
    detail: tuple[Any, Any] | None = None,  # (B', M, 2 H, 2 W), (B', D, 4 H, 4 W)
) -> Any:
    r"""SAM's mask head: K masks of four times the size from the image tokens and one vector for each mask.

    .. math:: u_1 = \operatorname{GELU}(\operatorname{LN}(\operatorname{conv}_1^\top x + f_1)),\quad
        u_2 = \operatorname{GELU}(\operatorname{conv}_2^\top u_1 + f_2),\quad m_k = v_k \cdot u_2

    One pass: the up-scaled embedding, 8 MB for SAM, is never written. Only the masks that are asked for are computed:
    pass the vectors of those alone. GELU is the one of the error function; LayerNorm runs over the channels.

    Args:
        image: image tokens after the two-way transformer. float32; float16 and bfloat16 are converted, but not on a
            GPU. There, tokens (B, H W, C) are taken as they lie: ``x.transpose(1, 2).unflatten(2, (H, W))``.
        vectors: outputs of SAM's hyper-networks.
        weights: see :class:`MaskHeadWeights`.
        eps: of the LayerNorm.
        detail: features of finer scales f_1 and f_2 (SAM 2); those of image b' serve B / B' prompts in order.

    Returns:
        (B, K, 4 H, 4 W) logits in the dtype of ``image``; torch in, torch out. Differentiable.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> x = lambda *shape: np.ones(shape, np.float32)
        >>> w = fp.MaskHeadWeights(x(32, 8, 2, 2), x(8), x(8), x(8), x(8, 4, 2, 2), x(4))
        >>> fp.mask_head(x(1, 32, 5, 6), x(1, 3, 4), w).shape
        (1, 3, 20, 24)

    Source: Kirillov et al., Segment Anything, 2023; Ravi et al., SAM 2, 2024.
    """
    image, vectors = as_array("image", image), as_array("vectors", vectors)
    check_devices(image=image, vectors=vectors)
    eps = check_number("eps", eps, 0.0, math.inf)
    w = check_weights(weights)
    check_devices(image=image, **w._asdict())
    pair = check_shapes(image, vectors, w, detail)
    out = operator(device_floats(image), device_floats(vectors), *w, *map(device_floats, pair), eps)
    return in_dtype_of(out, image)


def check_weights(weights: Any) -> MaskHeadWeights:
    if not isinstance(weights, tuple) or len(weights) != 6:
        raise TypeError(f"weights must be MaskHeadWeights, got {type(weights).__name__}")
    w = MaskHeadWeights(*(device_floats(as_array("weights", x)) for x in weights))
    channels, middle, depth = (*w.conv1_weight.shape, 0, 0)[0], *(*w.conv2_weight.shape, 0, 0)[:2]
    if 0 in (channels, middle):
        raise ValueError(f"weights must have channels, got conv1_weight of shape {tuple(w.conv1_weight.shape)}")
    wanted = ((channels, middle, 2, 2), (middle,), (middle,), (middle,), (middle, depth, 2, 2), (depth,))
    for name, x, size in zip(w._fields, w, wanted, strict=True):
        if tuple(x.shape) != size:
            raise ValueError(f"weights.{name} must have shape {size}, got {tuple(x.shape)}")
    return w


def check_shapes(image: Any, vectors: Any, w: MaskHeadWeights, detail: Any) -> tuple[Any, Any]:
    channels, (middle, depth) = w.conv1_weight.shape[0], w.conv2_weight.shape[:2]
    if image.ndim != 4 or image.shape[1] != channels:
        raise ValueError(f"image must be (B, {channels}, H, W), got {tuple(image.shape)}")
    batch, _, height, width = image.shape
    if vectors.ndim != 3 or vectors.shape[0] != batch or vectors.shape[2] != depth:
        raise ValueError(f"vectors must be ({batch}, K, {depth}), got {tuple(vectors.shape)}")
    if detail is None:
        return None, None
    if not isinstance(detail, (tuple, list)) or len(detail) != 2:
        given = len(detail) if isinstance(detail, (tuple, list)) else type(detail).__name__
        raise ValueError(f"detail must be two feature maps, got {given}")
    first, second = (as_array(f"detail[{k}]", x) for k, x in enumerate(detail))
    check_devices(image=image, **{"detail[0]": first, "detail[1]": second})
    for k, (x, rows, scale) in enumerate(((first, middle, 2), (second, depth, 4))):
        size = (rows, scale * height, scale * width)
        if x.ndim != 4 or tuple(x.shape[1:]) != size or x.shape[0] == 0 or batch % x.shape[0]:
            raise ValueError(f"detail[{k}] must be (B', {', '.join(map(str, size))}), got {tuple(x.shape)}")
    if first.shape[0] != second.shape[0]:
        raise ValueError("detail must hold maps of equally many images")
    return first, second
