"""What a call through a door may come to: right, refused, or a :class:`Find`."""

import traceback

import numpy as np
import torch
from fuzz.values import change

REFUSED = (ValueError, TypeError, MemoryError)
OF_TORCH = ("allocate", "overflow", "storage", "Storage", "not enough memory", "single memory location")


class Find(Exception):
    """What no door may do."""


def refused(error):
    """Whether an exception is a clear refusal; RuntimeErrors are torch's own, before our code or of its memory."""
    if isinstance(error, REFUSED):
        return True
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    ours = any("/fastprompt/" in name and "/fastprompt/ops/_torch" not in name for name in frames)
    return isinstance(error, RuntimeError) and (not ours or any(word in str(error) for word in OF_TORCH))


def attempt(name, what, function, *args, **options):
    """The result, or None where the call is refused."""
    try:
        return function(*args, **options)
    except Exception as error:
        if refused(error):
            return error
        text = f"{name} {what}: {type(error).__name__}: {str(error)[:200]}"
        raise Find(text) from error


def differs(name, what, found, wanted):
    """Raises where results are not the same up to rounding."""
    found, wanted = (x if isinstance(x, (list, tuple)) else [x] for x in (found, wanted))
    for got, want in zip(found, wanted, strict=True):
        got, want = (x.detach().double().numpy() if isinstance(x, torch.Tensor) else np.asarray(x) for x in (got, want))
        if got.shape != want.shape:
            raise Find(f"{name} {what}: shape {got.shape}, the reference has {want.shape}")
        got, want = got.astype(np.float64), want.astype(np.float64)
        finite = np.isfinite(want)
        if not np.array_equal(got[~finite], want[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
            raise Find(f"{name} {what}: other infinities or NaN than the reference")
        scale = max(1.0, float(np.abs(want[finite]).max(initial=0)))
        error = float(np.abs(got - want)[finite].max(initial=0)) / scale
        if error > 2e-3:
            raise Find(f"{name} {what}: differs from the reference by {error:.2g}")


def spoiled(draw, args):
    """Some of the arguments changed; what was done, in words."""
    args, done = list(args), []
    for _ in range(draw.choice((0, 1, 1, 1, 1, 2, 3))):
        k = draw.randrange(len(args))
        if args[k] is None:
            continue
        try:
            way, args[k] = change(draw, args[k])
        except RuntimeError:  # torch has no such tensor
            continue
        done.append(f"{k}:{way}")
    return args, " ".join(done)
