"""What the kernels of csrc/pooling are asked. Arrays are contiguous, and float32 where nothing else is said."""

from typing import Any, Literal, get_args

from fastprompt import _C
from fastprompt._runtime import matmul_precision
from fastprompt.ops._operator import Asked

Resize = Literal["features", "mask", "average"]
Kind = Literal["none", "softmax", "argmax"]
RESIZES, KINDS = get_args(Resize), get_args(Kind)  # what operators number
LEVEL_EPS: float = _C.prior_level_eps  # of the prior mask's normalisation to [0, 1]


def chosen(name: str, words: tuple[str, ...], number: int) -> str:
    if not 0 <= number < len(words):
        raise ValueError(f"{name} must be from 0 to {len(words) - 1}, got {number}")
    return words[number]


def masked_pool(
    features: Any,
    mask: Any,  # or uint8
    resize: int,
    align_corners: bool,
    background: bool,
    threshold: float | None,
    eps: float,
    empty: float,
    out: Any,
) -> Asked:
    return _C.masked_pool, dict(
        features=features, mask=mask, resize=chosen("resize", RESIZES, resize), align_corners=align_corners,
        background=background, hard=threshold is not None, threshold=threshold or 0.0, eps=eps, empty=empty, out=out,
    )  # fmt: skip


def similarity(
    features: Any, rows: Any, scale: float, eps: float, temperature: float, kind: int, sharpest: float, out: Any
) -> Asked:
    return _C.similarity, dict(
        features=features, rows=rows, scale=scale, eps=eps, temperature=temperature, kind=chosen("kind", KINDS, kind),
        sharpest=sharpest, out=out, precision=matmul_precision(),
    )  # fmt: skip


def prior_mask(query: Any, support: Any, mask: Any, eps: float, out: Any) -> Asked:
    how = {"precision": matmul_precision()}
    return _C.prior_mask, dict(query=query, support=support, mask=mask, eps=eps, out=out, **how)


def film(x: Any, gamma: Any, beta: Any, last: bool, out: Any) -> Asked:
    return _C.film, dict(x=x, gamma=gamma, beta=beta, last=last, out=out)
