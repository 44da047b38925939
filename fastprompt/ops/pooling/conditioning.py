"""Features conditioned on a prompt, channel by channel."""

import math
from typing import Any

from fastprompt._choices import choice
from fastprompt.ops._arrays import as_array, in_dtype_of, plain_floats
from fastprompt.ops._checks import check_devices
from fastprompt.ops.pooling.operators import film as operator

__all__ = ["film"]


def film(
    x: Any,  # (B or 1, C, ...), or with axis=-1 (B or 1, ..., C)
    gamma: Any,  # (B, C)
    beta: Any,  # (B, C)
    *,
    axis: int = 1,
) -> Any:
    r"""Feature-wise linear modulation: every channel is scaled and shifted by what the prompt says (CLIPSeg).

    .. math:: y_{bcx} = \gamma_{bc} \, x_{bcx} + \beta_{bc}

    One image for B prompts (x of batch 1) is read B times and repeated nowhere.

    Args:
        x: features. float32; float16 and bfloat16 are converted.
        gamma, beta: of each prompt.
        axis: of the channels: 1, or -1 for tokens (B, N, C).

    Returns:
        (B, ...) in the dtype of ``x``; torch in, torch out. Differentiable.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> fp.film(np.ones((1, 2, 3)), [[1, 2], [3, 4]], [[0, 0], [1, 1]])[:, :, 0]
        array([[1., 2.],
               [4., 5.]])

    Source: Perez et al., FiLM, 2018; Lüddecke and Ecker, CLIPSeg, 2022.
    """
    x, gamma, beta = (as_array(name, a) for name, a in (("x", x), ("gamma", gamma), ("beta", beta)))
    check_devices(x=x, gamma=gamma, beta=beta)
    choice("axis", axis, (1, -1))
    if x.ndim < 2:
        raise ValueError(f"x must be (B, C, ...) or (B, ..., C), got shape {tuple(x.shape)}")
    last = axis == -1 and x.ndim > 2
    for name, v in (("gamma", gamma), ("beta", beta)):
        if v.ndim != 2 or v.shape[1] != x.shape[axis] or tuple(v.shape) != tuple(gamma.shape):
            rows = gamma.shape[0] if gamma.ndim else "B"
            raise ValueError(f"{name} must be ({rows}, {x.shape[axis]}), got shape {tuple(v.shape)}")
    if x.shape[0] not in (1, gamma.shape[0]):
        raise ValueError(f"x must have a batch of 1 or {gamma.shape[0]}, got shape {tuple(x.shape)}")
    images, channels = int(x.shape[0]), int(x.shape[axis])
    inner = math.prod(x.shape[1:-1] if last else x.shape[2:])
    flat = plain_floats(x).reshape((images, inner, channels) if last else (images, channels, inner))
    out = operator(flat, plain_floats(gamma), plain_floats(beta), last).reshape(gamma.shape[0], *x.shape[1:])
    return in_dtype_of(out, x)
