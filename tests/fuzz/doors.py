"""One call through each door of the package, made from a seed: right, refused, or a :class:`Find`."""

import os
import resource

import numpy as np
import torch
from fuzz import decoder_cases, encoder_cases  # noqa: F401  which add their cases
from fuzz.cases import CASES
from fuzz.files import files
from fuzz.nodes import nodes
from fuzz.outcomes import Find, attempt, differs, spoiled
from fuzz.public import CALLS
from fuzz.values import Draw, regular
from poison import poisoned
from torch._subclasses.fake_tensor import FakeTensorMode

import fastprompt as fp
from fastprompt import _C
from fastprompt._runtime import backend
from fastprompt.ops._known import OPERATORS

THOROUGH = 10  # of ten calls: compared with the reference and the fake besides

# ---------------------------------------------------------------- torch.ops.fastprompt

NOT_COMPARED = {  # results of a format of their own, ties, or what rounding may decide
    "two_way", "two_way_prepare", "two_way_transformer", "low_rank", "low_rank_prepare", "low_rank_masks",
    "mask_decoder", "match_tokens", "similarity_argmax", "scatter_rows_", "geodesic_distance_backward", "merge_rows",
    "scatter_rows", "resize_masks", "scribble_map", "prior_similarity", "relative_attention", "relative_attention_backward", "memory_read_backward",
}  # fmt: skip


def raw(seed):
    draw = Draw(f"raw {seed}")
    name = draw.choice(list(CASES))
    operator = getattr(torch.ops.fastprompt, name).default
    args, what = spoiled(draw, CASES[name](draw))
    thorough = seed % 10 < THOROUGH
    compared = thorough and name not in NOT_COMPARED and regular(args) and not is_open(name, args)
    known = reference(name, args) if compared else None
    faked = fake(name, operator, args) if thorough and draw.random() < 0.3 else None
    found = attempt(name, what, operator, *args)
    if isinstance(found, Exception):
        about_axes = any(text in str(found) for text in ("must have shape (", "must hold float32 or", "arrays, got"))
        if faked is not None and about_axes and not isinstance(faked, Exception):
            raise Find(f"{name} {what}: the fake takes what is refused: {found}")
        return "refused"
    nothing = isinstance(found, torch.Tensor) and found.numel() == 0  # nobody has looked at the arguments
    flattened = ":rank" in what  # some kernels see rows only, where a trace asks for the axes
    if isinstance(faked, Exception) and "must have shape" in str(faked) and not nothing and not flattened:
        raise Find(f"{name} {what}: the fake refuses what runs: {faked}")
    if isinstance(faked, Exception):
        return "right"  # a trace does not take dtypes that a call converts
    if faked is not None and described(faked) != described(found):
        raise Find(f"{name} {what}: gives {described(found)}, its fake {described(faked)}")
    if known is not None and not isinstance(known, Exception):
        differs(name, what, found, known)
    return "right"


def is_open(name, args):
    """What rounding may decide: a threshold that numbers lie on, a row of one value over its deviation, a stretched tanh;
    and zero times infinity."""
    if name == "click_map":
        return 0.0 in args[5] or (args[4] == 2 and args[8])
    return (name == "masked_pool" and args[5] is not None) or (name == "normalised_linear" and args[2] == 0)


def described(found):
    found = found if isinstance(found, (list, tuple)) else [] if found is None else [found]
    return [(tuple(x.shape), x.dtype) for x in found]


def reference(name, args):
    if OPERATORS[name].reference is None:
        return None
    with backend("reference"):
        try:
            return getattr(torch.ops.fastprompt, name).default(*args)
        except Exception:  # it need not say why
            return None


def fake(name, operator, args):
    mode = FakeTensorMode(allow_non_fake_inputs=False)
    made = lambda x: mode.from_tensor(x) if isinstance(x, torch.Tensor) else x  # noqa: E731
    try:
        given = [[made(y) for y in x] if isinstance(x, (list, tuple)) else made(x) for x in args]
    except Exception:  # torch cannot make it
        return None
    with mode:
        return attempt(name, "in the fake", operator, *given)


# ---------------------------------------------------------------- public functions

COMPARED = set(fp.__all__) - {"prior_mask", "prune_tokens", "merge_tokens", "mask_to_rle"}  # levelled, ties, no kernel


def public(seed):
    draw = Draw(f"public {seed}")
    name = draw.choice(list(CALLS))
    function, args, options = CALLS[name](draw)
    args, what = spoiled(draw, [*args, options])
    *args, options = args
    options = options if isinstance(options, dict) else {}
    if draw.random() < 0.3:
        args = [torch.from_numpy(x.copy()) if sound(x) else x for x in args]
        options = {key: torch.from_numpy(x.copy()) if sound(x) else x for key, x in options.items()}
    with np.errstate(all="ignore"):
        found = attempt(name, what, function, *args, **options)
        if isinstance(found, Exception):
            return "refused"
        if seed % 10 < THOROUGH and name in COMPARED and regular(args) and regular(options):
            with backend("reference"):
                wanted = attempt(name, f"{what}, reference", function, *args, **options)
            if not isinstance(wanted, Exception) and all(
                isinstance(x, (np.ndarray, torch.Tensor)) for x in (found, wanted)
            ):
                differs(name, what, found, wanted)
    return "right"


def sound(x):
    return isinstance(x, np.ndarray) and x.dtype.kind in "fiub" and x.dtype.isnative


# ---------------------------------------------------------------- fields of _C


def fields(seed):
    draw = Draw(f"fields {seed}")
    name = draw.choice([name for name in CASES if OPERATORS[name].call])
    operator, args = OPERATORS[name], CASES[name](draw)
    asked = operator.call(*args, *operator.tensors(args))
    if asked is None or (operator.takes and not operator.takes(*args)):
        return "right"
    kernel, given = asked
    given = {"threads": draw.choice((1, 2)), **given}
    keys = list(given)
    values, what = spoiled(draw, list(given.values()))
    if draw.random() < 0.05:
        keys[draw.randrange(len(keys))] = "nobody"
    found = attempt(
        kernel.__name__ if hasattr(kernel, "__name__") else name, what, kernel, **dict(zip(keys, values, strict=True))
    )
    return "refused" if isinstance(found, Exception) else "right"


DOORS = {"raw": raw, "public": public, "fields": fields, "nodes": nodes, "files": files}
LEVELS = ["baseline", "avx2", "avx512"]


def prepare():
    """Results are NaN before a kernel fills them; one thread, so that a seed is a call and nothing else."""
    import fastprompt.metrics
    import fastprompt.ops._torch  # noqa: F401

    if "libasan" not in os.environ.get("LD_PRELOAD", ""):  # which has a limit of its own, and terabytes of shadow
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, resource.RLIM_INFINITY))
    torch.set_num_threads(1)
    fp.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # which has torch.empty filled, too
    np.empty = poisoned


def call(door, seed):
    """Every second seed at a lower instruction set."""
    best = LEVELS.index(_C.best_isa())
    _C.set_isa(LEVELS[best if seed % 2 else max(best - 1, 0)])
    return DOORS[door](seed)
