"""How much every token matters to a prompt."""

import math
from typing import Any

import numpy as np

from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import as_array, contiguous, kernel_floats, plain_floats
from fastprompt.ops._checks import check_devices, check_number
from fastprompt.ops.pruning.operators import cosine_scores
from fastprompt.ops.pruning.places import Grid

__all__ = ["token_scores"]


def token_scores(
    tokens: Any,  # (B, N, C)
    *,
    prompts: Any = None,  # (B or 1, P, C)
    attention: Any = None,  # (B or 1, N)
    points: Any = None,  # (B or 1, P, 2)
    boxes: Any = None,  # (B or 1, P, 4)
    mask: Any = None,  # (B or 1, h, w) or (B or 1, H, W)
    grid: tuple[int, int] | None = None,
    patch: float | tuple[float, float] = 16,
    prompts_weight: float = 1.0,
    attention_weight: float = 1.0,
    points_weight: float = 1.0,
    boxes_weight: float = 1.0,
    mask_weight: float = 1.0,
) -> Any:
    r"""How much every token matters to a prompt: the weighted sum of the terms that are given.

    .. math:: s_n = w_1 \max_p \frac{x_n \cdot q_p}{|x_n|\,|q_p|} + w_2\, a_n - w_3 \min_p |c_n - p|
        - w_4 \min_b d(c_n, b) + w_5\, m_n

    c_n is the centre of a token's patch, ((column + 1/2) patch, (row + 1/2) patch), and d its distance to a box, 0
    inside. Distances are in pixels, cosines within [-1, 1]: weigh the distances, by 1 / the image's diagonal say, where
    both are added. The cosines take one read of the tokens.

    Args:
        tokens: N tokens of C channels. float32; float16 and bfloat16 are converted.
        prompts: embeddings q of the prompt. attention: a row a of attention weights to the tokens.
        points: clicks (x, y) in pixels. boxes: (x0, y0, x1, y1) in pixels, x0 <= x1 and y0 <= y1. One with a NaN is
            passed over; an image without any gets 0 of this term.
        mask: m on the grid of tokens, or in pixels, of which each patch takes the mean.
        grid: (height, width) in tokens, row by row, and patch: pixels of a token, or (height, width): of points, boxes
            and mask.

    Returns:
        (B, N) float32; torch in, torch out. Differentiable by everything.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import numpy as np, fastprompt as fp
        >>> fp.token_scores(np.zeros((1, 4, 8)), points=[[[24, 8]]], grid=(2, 2))
        array([[-16.      ,  -0.      , -22.627417, -16.      ]], dtype=float32)

    Source: formulas only; the box prior after PrATo, arXiv 2506.16369.
    """
    given: dict[str, Any] = {}
    for name, x, weight in (
        ("prompts", prompts, prompts_weight),
        ("attention", attention, attention_weight),
        ("points", points, points_weight),
        ("boxes", boxes, boxes_weight),
        ("mask", mask, mask_weight),
    ):
        if x is not None:
            given[name] = as_array(name, x), check_number(f"{name}_weight", weight, -math.inf, math.inf)
    tokens = check_tokens(tokens=tokens, **{name: x for name, (x, _) in given.items()})
    if not given:
        raise ValueError("token_scores needs at least one of prompts, attention, points, boxes, mask")
    place = Grid(grid, patch, tokens.shape[1]) if given.keys() & {"points", "boxes", "mask"} else None
    total: Any = None
    for name, (x, weight) in given.items():
        check_term(name, x, tokens)
        term = TERMS[name](tokens, x if name == "prompts" else plain_floats(x), place)
        term = term if weight == 1 else weight * term
        total = term if total is None else total + term
    if total.shape[0] != len(tokens):
        return total.repeat(len(tokens), 1) if is_tensor(total) else total.repeat(len(tokens), 0)
    return total


def cosines(tokens: Any, prompts: Any, place: Any) -> Any:
    if prompts.shape[1] == 0:
        shape = tokens.shape[:2]
        return prompts.new_zeros(shape).float() if is_tensor(tokens) else np.zeros(shape, np.float32)
    tokens, prompts = kernel_floats(tokens, prompts)
    return cosine_scores(tokens, contiguous(prompts))


TERMS: dict[str, Any] = {
    "prompts": cosines,
    "attention": lambda tokens, x, place: x,
    "points": lambda tokens, x, place: place.clicks(x),
    "boxes": lambda tokens, x, place: place.boxes(x),
    "mask": lambda tokens, x, place: place.mask(x),
}


def check_tokens(**arrays: Any) -> Any:
    """The first, (B, N, C), after a look at its axes and at the kind and device of all."""
    name, tokens = next(iter(arrays.items()))
    tokens = as_array(name, tokens)
    arrays[name] = tokens
    if not all(getattr(x, "is_cpu", False) for x in arrays.values()):  # 2 us less for tensors
        check_devices(**arrays)
    if tokens.ndim != 3 or tokens.shape[2] == 0:
        raise ValueError(f"{name} must be (B, N, C), got shape {tuple(tokens.shape)}")
    return tokens


SIZES: dict[str, tuple[int | None, ...]] = {"points": (None, 2), "boxes": (None, 4), "mask": (None, None)}


def check_term(name: str, x: Any, tokens: Any) -> None:
    batch, count, channels = tokens.shape
    sizes = SIZES.get(name) or ((None, channels) if name == "prompts" else (count,))
    fits = x.ndim == len(sizes) + 1 and all(w in (None, n) for w, n in zip(sizes, x.shape[1:], strict=True))
    if not fits or x.shape[0] not in (1, batch):
        shape = "h, w" if name == "mask" else ", ".join("P" if w is None else str(w) for w in sizes)
        raise ValueError(f"{name} must be (B or 1, {shape}) with B = {batch}, got shape {tuple(x.shape)}")
