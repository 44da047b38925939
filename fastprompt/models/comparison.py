"""What acceleration does to a model's results and to its time, on the user's own data."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastprompt.models.swapping import checked

if TYPE_CHECKING:
    from fastprompt.models.differences import Comparison


def compare(
    model: Any,
    inputs: Any,
    *,
    call: Callable[[Any, Any], Any] | None = None,
    masks: Sequence[str] = (),
    threshold: float = 0.0,
    rounds: int = 5,
) -> "Comparison":
    r"""Run an accelerated model with and without fastprompt, on your data: what it costs and what it saves.

    .. math:: \mathrm{IoU} = \frac{|A \cap B|}{|A \cup B|},\quad A = \{a > t\}, B = \{b > t\};\qquad
        \cos = \frac{a \cdot b}{|a|\,|b|}

    "Before" is the model inside :func:`disabled`: nothing replaced, nothing pruned. Both are called in turn, round by
    round, without gradients. An embedding that is given as an input is known to the mask decoder from its second call
    on, as it is when clicks follow each other.

    Args:
        model: from :func:`accelerate`, in eval mode.
        inputs: a tuple of arguments, a dict of keyword arguments, one tensor, or a list of such: the batches.
        call: how the model is called with one of them, ``call(model, batch)``, where that is not enough: inside
            ``fastprompt.prompt``, say.
        masks: names of outputs that hold masks, (…, H, W), beside bool tensors and those of three and more axes whose
            name has "mask" or "logit" in it: of them the IoU of every mask is taken; 1 where both are empty. Of other
            outputs the cosine of every image's values, all in one vector.
        threshold: t, of masks that are not bool.
        rounds: how often every batch is timed.

    Returns:
        :class:`Comparison`: ``print`` it, or read ``outputs``, ``before``, ``after`` and ``ratio``.

    Raises:
        ValueError, TypeError: naming the argument, what it was and what is expected.

    Example:
        >>> import torch, fastprompt as fp
        >>> result = fp.compare(torch.nn.Linear(3, 2).eval(), torch.ones(1, 3), rounds=1)
        >>> result.outputs[0].max_abs
        0.0
    """
    if checked(model).training:
        raise ValueError("model must be in eval mode, call model.eval(): dropout would be a difference")
    batches = inputs if isinstance(inputs, list) else [inputs]
    if not batches:
        raise ValueError("inputs must hold at least one batch, got an empty list")
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"rounds must be a positive int, got {rounds!r}")
    from fastprompt.models.differences import compared  # which imports torch

    return compared(model, batches, call, masks, threshold, rounds)


__all__ = ["compare"]
