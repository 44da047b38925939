"""Accelerated calls beside their host's: every call of a drop-in is done twice, and the two are compared and counted."""

import contextlib
import functools
import sys
from collections import defaultdict
from dataclasses import dataclass, field

import torch

import fastprompt as fp
from fastprompt._drop_ins import full_name, host_of, is_drop_in

TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}  # of the largest number


@dataclass
class Count:
    """Calls of one class of a host."""

    accelerated: int = 0
    host: int = 0  # took the host's path
    traced: int = 0  # by torch.compile, torch.export or torch.jit: not compared
    worst: float = 0.0  # largest difference, over the largest number of the result
    wrong: list[str] = field(default_factory=list)


COUNTS: defaultdict[str, Count] = defaultdict(Count)
_taking: list = []  # the calls under way: module, and whether its host's forward has been entered


def accelerate(model):
    """``fastprompt.accelerate``, and the comparison in every class that it brings."""
    fp.accelerate(model)
    for cls in {type(m) for m in model.modules() if is_drop_in(type(m))}:
        if "_compared" not in cls.__dict__:
            cls._compared = True
            cls.forward = compared(cls, cls.forward)
            host_of(cls).forward = noticed(host_of(cls).forward)
    return model


def noticed(forward):
    """A host's forward that says when it is entered."""

    @functools.wraps(forward)
    def entered(self, *args, **kwargs):
        if _taking and _taking[-1][0] is self:
            _taking[-1][1] = True
        return forward(self, *args, **kwargs)

    return entered


def compared(cls, forward):
    count = COUNTS[full_name(host_of(cls))]

    @functools.wraps(forward)
    def both(self, *args, **kwargs):
        if torch.compiler.is_compiling():
            return forward(self, *args, **kwargs)
        if type(self) is not cls or fp._switches.is_disabled() or is_traced(self, args):
            count.traced += not fp._switches.is_disabled()
            return forward(self, *args, **kwargs)
        before, call = torch.get_rng_state(), [self, False]
        _taking.append(call)
        try:
            got = forward(self, *args, **kwargs)
        finally:
            _taking.pop()
        after = torch.get_rng_state()
        torch.set_rng_state(before)
        with fp.disabled(), torch.no_grad(), nothing_is_recorded():
            want = forward(self, *args, **kwargs)
        torch.set_rng_state(after)
        count.host += call[1]
        count.accelerated += not call[1]
        error, text = difference(got, want)
        count.worst = max(count.worst, error)
        if text:
            count.wrong.append(text)
            raise AssertionError(f"{cls.__name__} differs from its host: {text}")
        return got

    return both


def is_traced(module, args):
    tensors = [*module.parameters(), *(x for x in args if isinstance(x, torch.Tensor))]
    return torch.jit.is_tracing() or any(type(x) not in (torch.Tensor, torch.nn.Parameter) for x in tensors)


@contextlib.contextmanager
def nothing_is_recorded():
    """transformers collects the results of layers by hooks, which would see the second call too."""
    module = sys.modules.get("transformers.utils.output_capturing")
    collector = getattr(module, "_active_collector", None)
    token = collector.set({}) if collector else None
    try:
        yield
    finally:
        if collector:
            collector.reset(token)


def difference(got, want):
    """The largest difference of two results over the largest number, and what is wrong, if anything."""
    if isinstance(want, torch.Tensor):
        if not isinstance(got, torch.Tensor) or got.shape != want.shape or got.dtype != want.dtype:
            return 0.0, f"got {kind(got)}, expected {kind(want)}"
        if not want.is_floating_point() or want.device.type == "meta" or not want.numel():
            return 0.0, "" if want.device.type == "meta" or torch.equal(got, want) else "other integers"
        allowed, got, want = TOLERANCE.get(want.dtype, 1e-4), got.detach().double(), want.detach().double()
        finite = want.isfinite() & got.isfinite()
        if not torch.equal(got[~finite].nan_to_num(), want[~finite].nan_to_num()):
            return 0.0, "other infinite numbers"
        error = float((got - want)[finite].abs().max()) if finite.any() else 0.0
        error /= float(want[finite].abs().max()) or 1.0 if finite.any() else 1.0
        return error, f"a difference of {error:.2g}" if error > allowed else ""
    if hasattr(want, "items"):
        got, want = dict(got), dict(want)
        if got.keys() != want.keys():
            return 0.0, f"got {sorted(got)}, expected {sorted(want)}"
        return worst([difference(got[name], want[name]) for name in want])
    if isinstance(want, (tuple, list)):
        if len(got) != len(want):
            return 0.0, f"got {len(got)} results, expected {len(want)}"
        return worst([difference(x, y) for x, y in zip(got, want, strict=True)])
    return 0.0, "" if got is want or got == want else f"got {got}, expected {want}"


def worst(found):
    return max((e for e, _ in found), default=0.0), "; ".join(text for _, text in found if text)


def kind(x):
    return f"{x.dtype} {tuple(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
