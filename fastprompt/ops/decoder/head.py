"""From image tokens to masks: SAM's mask head."""

import math
from typing import Any, NamedTuple

import numpy as np

from fastprompt import _C
from fastprompt._gpu import is_cuda
from fastprompt._runtime import current_backend, get_num_threads, is_tensor
from fastprompt.ops._arrays import addresses, as_array, dtype_name, plain_floats
from fastprompt.ops._checks import check_devices

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
    like, image, vectors = image, as_array("image", image), as_array("vectors", vectors)
    check_devices(image=image, vectors=vectors)
    w = check_weights(weights)
    pair = check_shapes(image, vectors, w, detail)
    arrays = (floats(image), floats(vectors), *w, *(floats(x) for x in pair))
    if is_tensor(image):
        from fastprompt.ops.decoder import head_operator as _torch_masks

        return _torch_masks.mask_head(*arrays, float(eps)).to(like.dtype)
    if current_backend() == "reference":
        from fastprompt.reference import decoder as reference

        out = reference.mask_head(arrays[0], arrays[1], w, float(eps), None if detail is None else arrays[8:])
    else:
        out = np.empty(shape(*arrays), np.float32)
        launch(*arrays, float(eps), out)
    return out.astype(np.asarray(like).dtype if np.asarray(like).dtype.kind == "f" else np.float32, copy=False)


def floats(x: Any) -> Any:
    """``plain_floats``; on a GPU half precision stays, and so do strides: its kernels read them."""
    if is_cuda(x) and dtype_name(x) in ("float32", "float16", "bfloat16"):
        return x
    return plain_floats(x)


def check_weights(weights: Any) -> MaskHeadWeights:
    if not isinstance(weights, tuple) or len(weights) != 6:
        raise TypeError(f"weights must be MaskHeadWeights, got {type(weights).__name__}")
    w = MaskHeadWeights(*(floats(as_array("weights", x)) for x in weights))
    channels, middle, depth = (*w.conv1_weight.shape, 0, 0)[0], *(*w.conv2_weight.shape, 0, 0)[:2]
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
    if len(detail) != 2:
        raise ValueError(f"detail must be two feature maps, got {len(detail)}")
    for k, (x, rows, scale) in enumerate(zip(detail, (middle, depth), (2, 4), strict=True)):
        size = (rows, scale * height, scale * width)
        if x.ndim != 4 or tuple(x.shape[1:]) != size or x.shape[0] == 0 or batch % x.shape[0]:
            raise ValueError(f"detail[{k}] must be (B', {', '.join(map(str, size))}), got {tuple(x.shape)}")
    if detail[0].shape[0] != detail[1].shape[0]:
        raise ValueError("detail must hold maps of equally many images")
    return detail[0], detail[1]


def shape(image: Any, vectors: Any, *rest: Any) -> tuple[Any, ...]:
    batch, _, height, width = image.shape
    return batch, vectors.shape[1], 4 * height, 4 * width


def fits_gpu(image: Any, vectors: Any, *weights: Any) -> bool:
    """Whether the kernel holds the channels of a tile, as SAM's 64 and 32, and the second convolution's weights."""
    middle, depth = (max(16, 1 << (n - 1).bit_length()) for n in weights[4].shape[:2])
    return 4 * middle <= 512 and middle * depth <= 4096


def launch(*arguments: Any) -> None:
    """``image, vectors, *weights, detail1, detail2, eps, out`` in float32, contiguous."""
    image, vectors, conv1, bias1, norm_weight, norm_bias, conv2, bias2, detail1, detail2, eps, out = arguments
    batch, channels, height, width = image.shape
    middle, depth = conv2.shape[:2]
    if math.prod(out.shape) == 0:
        return
    images = 1 if detail1 is None else detail1.shape[0]
    sizes = (batch, vectors.shape[1], height, width, channels, middle, depth, images)
    order = (image, conv1, bias1, norm_weight, norm_bias, conv2, bias2, vectors, detail1, detail2, None, None, out)
    _C.mask_head(sizes, addresses(order), eps, (), 0, get_num_threads())
