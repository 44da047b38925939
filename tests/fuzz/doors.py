"""One call through each door of the package, made from a seed: right, refused, or a :class:`Find`."""

import functools
import json
import os
import resource
import tempfile
import traceback
from pathlib import Path

import numpy as np
import torch
from fuzz import decoder_cases  # noqa: F401  which adds its cases
from fuzz.cases import CASES
from fuzz.public import CALLS
from fuzz.values import Draw, change, regular
from torch._subclasses.fake_tensor import FakeTensorMode

import fastprompt as fp
from fastprompt import _C
from fastprompt._runtime import backend
from fastprompt.ops._known import OPERATORS

THOROUGH = 10  # of ten calls: compared with the reference and the fake besides
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
    """What rounding may decide, a threshold that numbers lie on; and zero times infinity."""
    return (name == "masked_pool" and args[5] is not None) or (name == "click_map" and 0.0 in args[5])


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


# ---------------------------------------------------------------- nodes


@functools.cache
def node_cases():
    import export_cases

    return {name: export_cases.found(name) for name in export_cases.CASES}


def nodes(seed):
    """Most through the C interface; some in ONNX Runtime, where a session takes a thousand times as long."""
    draw = Draw(f"nodes {seed}")
    name = draw.choice(list(node_cases()))
    case = node_cases()[name]
    operator = name.partition(",")[0]
    inputs, attributes = list(case.inputs), dict(case.attributes)
    what = []
    for _ in range(draw.choice((0, 1, 1, 1, 2))):
        if attributes and draw.random() < 0.6:
            key = draw.choice(list(attributes))
            attributes[key] = change(draw, attributes[key])[1]
            what.append(f"{key}={attributes[key]}"[:60])
        else:
            k = draw.randrange(len(inputs))
            way, inputs[k] = change(draw, inputs[k])
            what.append(f"{k}:{way}")
    what = " ".join(what)
    if not all(fits_node(x) for x in attributes.values()) or not all(
        x.dtype.name in NAMES and x.dtype.isnative for x in inputs
    ):
        return "refused"  # no such file can be written
    in_session = seed % 200 == 0
    found = attempt(name, what, run_session if in_session else run_node, operator, inputs, attributes)
    if isinstance(found, Exception):
        return "refused"
    if not what:
        differs(name, what, found, case.want)
    return "right"


NAMES = ("float32", "float64", "float16", "uint8", "bool", "int32", "int64")


def fits_node(x):
    items = x if isinstance(x, (list, tuple)) else [x]
    return x is not None and all(not isinstance(y, int) or -(2**63) <= y < 2**63 for y in items) and None not in items


def run_node(operator, inputs, attributes):
    from fastprompt.export._library import Node

    return Node(operator, attributes).run(inputs)


def run_session(operator, inputs, attributes):
    import onnx
    import onnxruntime

    helper, numbers = onnx.helper, onnx.helper.np_dtype_to_tensor_dtype
    names = [f"in{n}" for n in range(len(inputs))]
    from fastprompt.export._library import Node

    outputs = [f"out{n}" for n in range(len(Node(operator, attributes).described()[1]))]
    made = helper.make_node(
        operator, names, outputs, domain="fastprompt", **{k: v for k, v in attributes.items() if v != []}
    )
    given = [helper.make_tensor_value_info(n, numbers(x.dtype), x.shape) for n, x in zip(names, inputs, strict=True)]
    kinds = Node(operator, attributes).outputs([(list(x.shape), numbers(x.dtype)) for x in inputs])
    results = [helper.make_tensor_value_info(n, kind, None) for n, (_, kind) in zip(outputs, kinds, strict=True)]
    graph = helper.make_graph([made], "fuzz", given, results)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("fastprompt", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    options = fp.export.onnxruntime.register(onnxruntime.SessionOptions())
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return session.run(None, dict(zip(names, inputs, strict=True)))
    except Exception as error:  # of the runtime, whose exceptions have no common class
        raise ValueError(str(error)) from None


# ---------------------------------------------------------------- files

RESULTS = [
    {"options": {}},
    {"sample": 0, "iou": [0.25, 0.9375], "clicks": [[1, 1, 1], [2, 2, 1]]},
    {"sample": 1, "iou": [1.0], "clicks": [[3, 3, 1]]},
]
PIECES = ("5.0", "-1", "NaN", "Infinity", "null", '"x"', "[]", "{}", "1e999", "[[1]]", "true", "", ",", "\x00", "é")


def files(seed):
    draw = Draw(f"files {seed}")
    return rle(draw) if draw.random() < 0.7 else results(draw)


def rle(draw):
    mask = draw.bits(draw.randint(1, 5), draw.randint(1, 5))
    code = fp.mask_to_rle(mask)
    if draw.random() < 0.2:
        if not np.array_equal(fp.rle_to_mask(code), mask):
            raise Find("rle_to_mask does not undo mask_to_rle")
        return "right"
    code = change(draw, code)[1]
    found = attempt("rle_to_mask", str(code)[:80], fp.rle_to_mask, code)
    if isinstance(found, Exception):
        return "refused"
    again = fp.mask_to_rle(found)
    if list(again["size"]) != [int(n) for n in code["size"]]:
        raise Find(f"rle_to_mask {code} gives {again}")
    return "right"


def results(draw):
    target = np.zeros((8, 8), bool)
    target[2:6, 2:6] = True
    options = {"max_clicks": 3, "progress": False}
    disks = lambda image, points, labels: target  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.jsonl"
        fp.evaluate_clicks(disks, [(None, target)], results=path, **options)
        text = path.read_text().splitlines()[0] + "\n" + "".join(json.dumps(line) + "\n" for line in RESULTS[1:])
        raw_bytes = bytearray(text.encode())
        for _ in range(draw.randint(0, 2)):
            at = draw.randrange(text.index("\n"), len(raw_bytes))
            until = min(at + draw.randint(0, 4), len(raw_bytes))
            raw_bytes[at:until] = draw.choice(PIECES).encode() if draw.random() < 0.7 else bytes([draw.randrange(256)])
        path.write_bytes(bytes(raw_bytes))
        found = attempt(
            "evaluate_clicks",
            repr(bytes(raw_bytes[-90:])),
            fp.evaluate_clicks,
            disks,
            [(None, target)] * 2,
            results=path,
            **options,
        )
    if isinstance(found, Exception):
        return "refused"
    for curve, clicks in zip(found.curves, found.clicks, strict=True):
        if len(curve) != len(clicks) or not 1 <= len(curve) <= 3 or not ((curve >= 0) & (curve <= 1)).all():
            raise Find(f"evaluate_clicks believes its file: {curve} {clicks.tolist()}")
    return "right"


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
    empty = np.empty

    def poisoned(shape, dtype=float, *args, **options):
        out = empty(shape, dtype, *args, **options)
        if out.dtype.kind == "f":
            out.fill(np.nan)
        return out

    np.empty = poisoned


def call(door, seed):
    """Every second seed at a lower instruction set."""
    best = LEVELS.index(_C.best_isa())
    _C.set_isa(LEVELS[best if seed % 2 else max(best - 1, 0)])
    return DOORS[door](seed)
