"""What the user says about pruning: how much, where, by what; and for which prompt."""

import contextlib
import contextvars
import math
import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from fastprompt._choices import choice
from fastprompt.ops._arrays import as_array

Score = Literal["norm", "cls", "prompt"]
SCORES = get_args(Score)


@dataclass(frozen=True)
class Prune:
    r"""How :func:`accelerate` prunes an image encoder: ``accelerate(model, prune=Prune(keep=0.6, at=4))``.

    .. math:: k = \lceil \mathrm{keep} \cdot N \rceil

    of N tokens (of N windows in SAM's encoders), those with the highest scores, go through block ``at`` and all behind
    it; equal scores go by the lowest index. All others keep the value that they had before block ``at``.

    Args:
        keep: share that stays, above 0 and at most 1. Prefix tokens (class token, registers) always stay, beside it.
        at: the block before which the others leave, counted from 0.
        score: "norm", the length of a token; "cls", its cosine with the class token; "prompt", minus its distance to
            the points and boxes of ``with fastprompt.prompt(...)``; or a function of ``tokens`` (B, N, C), without
            prefix tokens, and ``coordinates`` (N, 2), integers (row, column), to scores (B, N), without gradient. A
            window counts as the mean of its tokens, and for a prompt as its nearest token.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import fastprompt as fp
        >>> fp.Prune(keep=0.64, at=0, score="prompt").count(25)
        16
    """

    keep: float
    at: int
    score: Score | Callable[[Any, Any], Any] = "norm"

    def __post_init__(self) -> None:
        for name, kind in (("keep", numbers.Real), ("at", numbers.Integral)):
            if isinstance(getattr(self, name), bool) or not isinstance(getattr(self, name), kind):
                raise TypeError(
                    f"{name} must be {'a number' if name == 'keep' else 'an int'}, got {getattr(self, name)!r}"
                )
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must be above 0 and at most 1, got {self.keep!r}")
        if self.at < 0:
            raise ValueError(f"at must be at least 0, got {self.at!r}")
        if not callable(self.score):
            choice("score", self.score, SCORES, " or a function")

    def count(self, number: int) -> int:
        """How many of them stay."""
        return math.ceil(self.keep * number * (1 - 1e-12))  # 0.07 * 100 is 7.000000000000001, whose ceiling is 8


class Pruned(NamedTuple):
    """What is pruned in one encoder, for :func:`report`."""

    prune: Prune
    tokens: tuple[int, ...]  # of every block; of windows the mean, for those at the border are smaller
    windows: tuple[int, int] | None  # kept, and all
    share: float  # of the multiplications of all tokens

    def __str__(self) -> str:
        score = self.prune.score if isinstance(self.prune.score, str) else getattr(self.prune.score, "__name__", "own")
        part = f"{self.windows[0]} of {self.windows[1]} windows, " if self.windows else ""
        runs = [f"{n} x {self.tokens.count(n)}" for n in dict.fromkeys(self.tokens)]
        return (
            f"keep {self.prune.keep:g} from block {self.prune.at} on by {score}: {part}"
            f"tokens x blocks {', '.join(runs)}; {100 * self.share:.0f} % of the multiplications"
        )


_prompt: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("fastprompt_prompt", default=None)


@contextlib.contextmanager
def prompt(*, points: Any = None, boxes: Any = None) -> Iterator[None]:
    """Inside the block, encoders that are pruned by ``score="prompt"`` keep what is near these points and boxes.

    The embedding then serves prompts near them, and no others: encode again for another place.

    Args:
        points: (B or 1, P, 2) or (P, 2), (x, y) in pixels of the encoder's input, which is the picture as the model's
            processor has resized it: ``processor(...)["input_points"].flatten(1, 2)`` of transformers,
            ``predictor.transform.apply_coords(...)`` of segment-anything.
        boxes: (B or 1, P, 4) or (P, 4), (x0, y0, x1, y1) likewise. A point or box with a NaN is passed over.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import fastprompt as fp
        >>> with fp.prompt(points=[[512, 300]]):
        ...     pass  # masks = model(pixel_values, input_points=...)
    """
    given: dict[str, Any] = {}
    for name, x, numbers_of in (("points", points, 2), ("boxes", boxes, 4)):
        if x is None:
            continue
        x = as_array(name, x)
        if x.ndim not in (2, 3) or x.shape[-1] != numbers_of:
            raise ValueError(f"{name} must be (B or 1, P, {numbers_of}) or (P, {numbers_of}), got {tuple(x.shape)}")
        given[name] = x if x.ndim == 3 else x[None]
    if not given:
        raise ValueError("prompt needs points, boxes or both")
    token = _prompt.set(given)
    try:
        yield
    finally:
        _prompt.reset(token)


def current_prompt() -> dict[str, Any]:
    given = _prompt.get()
    if given is None:
        raise ValueError('score="prompt" needs a prompt: call the model inside `with fastprompt.prompt(points=...)`')
    return given
