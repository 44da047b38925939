"""An exported file against its model, at shapes other than the example's."""

import importlib.util
from typing import Any

import torch
from torch import Tensor

from fastprompt.export._onnx.functions import our_nodes
from fastprompt.export.onnxruntime import register


def compare(
    model: Any, proto: Any, args: tuple[Any, ...], checks: Any, dynamic_shapes: Any, tolerance: float
) -> dict[str, float]:
    """Largest differences, by shapes; RuntimeError over the tolerance."""
    run, found = runner(proto), {}
    for inputs in [args, *(others(args, dynamic_shapes) if checks is None else checks)]:
        want = model(*inputs)
        want = want if isinstance(want, (tuple, list)) else (want,)
        shapes = " ".join("x".join(map(str, x.shape)) for x in inputs)
        got = run([x.detach().numpy() for x in inputs])
        found[shapes] = max(error(torch.from_numpy(g), w) for g, w in zip(got, want, strict=True))
        if not found[shapes] <= tolerance:
            raise RuntimeError(
                f"the file differs from the model by {found[shapes]:.2g} of the largest number at shapes {shapes}, "
                f"more than tolerance {tolerance:g}: nothing was written"
            )
    return found


def runner(proto: Any) -> Any:
    """ONNX Runtime where it is installed, with our library where only that knows the nodes; else onnx's evaluator."""
    data = proto.SerializeToString()
    unknown = {node.op_type for node in our_nodes(proto.graph)} - {f.name for f in proto.functions}
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if unknown:
            register(options)
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [x.name for x in session.get_inputs()]
        return lambda arrays: session.run(None, dict(zip(names, arrays, strict=True)))
    from onnx.reference import ReferenceEvaluator

    if unknown:
        raise ImportError(f"{', '.join(sorted(unknown))} can be compared in ONNX Runtime only: pip install onnxruntime")
    evaluator = ReferenceEvaluator(proto)
    return lambda arrays: evaluator.run(None, dict(zip(evaluator.input_names, arrays, strict=True)))


def error(got: Tensor, want: Tensor) -> float:
    if got.shape != want.shape:
        raise RuntimeError(
            f"the file gives shape {tuple(got.shape)}, the model {tuple(want.shape)}: nothing was written"
        )
    if got.numel() == 0:
        return 0.0
    got, want = got.double(), want.double()
    same = (got == want) | (got.isnan() & want.isnan())  # infinities
    largest = float(want[want.isfinite()].abs().max()) if want.isfinite().any() else 0.0
    return float(torch.where(same, 0.0, (got - want).abs()).max()) / (largest or 1.0)


def others(args: tuple[Any, ...], dynamic_shapes: Any) -> list[tuple[Any, ...]]:
    """The example with its named axes two longer, one shorter and 1 long."""
    axes = dynamic_shapes if dynamic_shapes is not None else {}
    given = list(axes.values() if isinstance(axes, dict) else axes)
    if not any(given):
        return []
    found = []
    for change in (lambda n: n + 2, lambda n: max(n - 1, 1), lambda n: 1):
        resized = []
        for x, named in zip(args, given, strict=True):
            for axis in named or {}:
                n = x.shape[axis]
                x = x.index_select(axis, torch.arange(change(n)) % n)
            resized.append(x.contiguous())
        found.append(tuple(resized))
    return found
