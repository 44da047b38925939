"""PFENet's prior mask: where the query looks like some pixel of the support."""

import math
from typing import Any

import numpy as np

from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array, contiguous, kernel_floats, plain_floats
from fastprompt.ops._checks import check_devices, check_number, check_size
from fastprompt.ops.pooling.operators import prior_similarity

__all__ = ["prior_mask"]


def prior_mask(
    query: Any,  # ([B,] C, h, w)
    support: Any,  # ([B,] [K,] C, h', w')
    mask: Any,  # ([B,] [K,] H, W)
    *,
    size: tuple[int, int] | None = None,
    eps: float = 1e-7,
) -> Any:
    r"""How similar each query pixel is to the most similar masked pixel of the support, from 0 to 1 (PFENet).

    .. math:: s_q = \max_p \frac{x_q \cdot m_p y_p}{|x_q| \, |m_p y_p| + \varepsilon}, \qquad
        \frac{s_q - \min s}{\max s - \min s + 10^{-7}}

    The similarities, 13 million for two maps of 60 x 60, are never written: a running maximum follows the products.
    Support pixels that the mask leaves out have the similarity 0, so they are skipped and the maximum begins at 0. No
    shortcut rounds: eps counts as it does in the formula. Products follow ``torch.set_float32_matmul_precision``:
    bfloat16 for "medium", where the machine has it.

    Args:
        query, support: features of the last layers, C = 2048 in PFENet, which masks the support's before the last layer
            too: that is the caller's. float32; float16 and bfloat16 are converted.
        mask: of the K shots, resized bilinearly with ``align_corners=True`` to the support's features. 0 to 1.
        size: (height, width) that the result is resized to, with ``align_corners=True``; default that of the query.
        eps: of the cosine.

    Returns:
        ([B,] 1, *size) float32, the mean over the shots, each from 0 to 1; 0 where a mask is empty. NaN for the whole
        image if a query pixel or a masked support pixel is not finite. Torch in, torch out. No gradient.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> f = np.random.default_rng(0).standard_normal((16, 6, 6), np.float32)
        >>> mask = np.zeros((41, 41)); mask[:20] = 1
        >>> fp.prior_mask(f, f, mask, size=(12, 12)).shape
        (1, 12, 12)

    Source: Tian et al., PFENet, 2020 (formula only).
    """
    given = {"query": query, "support": support, "mask": mask}
    query, support, mask = (as_array(name, x) for name, x in given.items())
    check_devices(query=query, support=support, mask=mask)
    shots = check_shapes(query, support, mask)
    wanted = check_size("size", size, 1) or tuple(int(n) for n in query.shape[-2:])
    eps = check_number("eps", eps, 0.0, math.inf)
    x, y, m = (a.detach() if is_tensor(a) else a for a in (query, support, mask))
    x, y = (contiguous(a) for a in kernel_floats(x, y))
    m = plain_floats(m)
    images, channels, (height, width) = math.prod(query.shape[:-3]), query.shape[-3], query.shape[-2:]
    small = tuple(int(n) for n in support.shape[-2:])
    m = plain_floats(resized(m.reshape(images * shots, *mask.shape[-2:]), small))
    pairs = images * shots
    x, y = x.reshape(images, channels, height * width), y.reshape(pairs, channels, math.prod(small))
    found = prior_similarity(x, y, m.reshape(pairs, math.prod(small)), eps).reshape(pairs, height, width)
    maps = resized(found, wanted).reshape(images, shots, *wanted).mean(1)
    return maps[:, None] if query.ndim == 4 else maps


def check_shapes(query: Any, support: Any, mask: Any) -> int:
    """The number of shots."""
    if query.ndim not in (3, 4) or 0 in tuple(query.shape[-3:]):
        raise ValueError(f"query must be ([B,] C, h, w), got shape {tuple(query.shape)}")
    batch, channels = tuple(query.shape[:-3]), query.shape[-3]
    fits = support.ndim in (query.ndim, query.ndim + 1) and 0 not in tuple(support.shape[len(batch) :])
    if not fits or tuple(support.shape[: len(batch)]) != batch or support.shape[-3] != channels:
        axes = ", ".join([*map(str, batch), "[K,] " + str(channels), "h", "w"])
        raise ValueError(f"support must be ({axes}), got shape {tuple(support.shape)}")
    lead = tuple(support.shape[:-3])
    if mask.ndim != len(lead) + 2 or tuple(mask.shape[:-2]) != lead or 0 in tuple(mask.shape[-2:]):
        raise ValueError(f"mask must be ({', '.join([*map(str, lead), 'H', 'W'])}), got shape {tuple(mask.shape)}")
    return int(support.shape[-4]) if support.ndim > query.ndim else 1


def resized(x: Any, size: tuple[int, ...]) -> Any:
    """(n, h, w) to (n, *size), bilinearly with align_corners=True, in float32."""
    if tuple(x.shape[-2:]) == size:
        return x
    if is_tensor(x):
        import torch

        return torch.nn.functional.interpolate(x[:, None], size, mode="bilinear", align_corners=True)[:, 0]
    for axis, outputs in ((1, size[0]), (2, size[1])):
        inputs = x.shape[axis]
        place = np.linspace(0, inputs - 1, outputs)
        low = place.astype(np.int64)
        share = (place - low).reshape((1, -1, 1) if axis == 1 else (1, 1, -1)).astype(np.float32)
        x = x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, inputs - 1), axis) * share
    return x
