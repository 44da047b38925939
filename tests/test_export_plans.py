"""Kernels that an engine carries: their PTX, executed as the plan says, gives what torch's operators give."""

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("triton", reason="triton is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

import export_cases as cases  # noqa: E402
import plan_runner  # noqa: E402
from ptx import Fault  # noqa: E402

from fastprompt.export import _aot, _plans  # noqa: E402

NAMES = {"float32": "f32", "bool": "bool", "int64": "i64", "float16": "f16", "uint8": "bool"}


def tensors(arrays, free=()):
    """As the exporter knows them; axes in ``free``, (input, axis), may be as large as twice their size."""
    found = []
    for n, x in enumerate(arrays):
        fixed = tuple((n, k) not in free for k in range(x.ndim))
        found.append(_plans.Tensor(NAMES[x.dtype.name], tuple(s if f else 2 * s for s, f in zip(x.shape, fixed)), fixed))
    return found


FREE = {
    "CosineScores": [(0, 0), (0, 1), (1, 0), (1, 1)],
    "PruneTokens": [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)],
    "PromptToImageAttention": [(0, 0), (0, 2), (2, 0), (2, 2), (3, 0), (3, 1), (4, 0)],
    "RelativePositionAttention": [(0, 0), (1, 0), (2, 0)],
    "ImageToPromptAttention": [(0, 0), (0, 3), (2, 0), (2, 2), (3, 0), (3, 2), (4, 0), (4, 2), (6, 0)],
}


def plan_of(name, arrays, attributes, precision="ieee"):
    operator = name.partition(",")[0]
    return _plans.PLANS[operator](tensors(arrays, FREE[operator]), attributes, precision)


@pytest.mark.parametrize("name", [n for n in cases.CASES if n.partition(",")[0] in _plans.PLANS])
@pytest.mark.parametrize("order", [None, "reverse"], ids=str)
def test_a_plan_gives_what_torch_gives(name, order):
    case = cases.found(name)
    plan = plan_of(name, case.inputs, case.attributes)
    got = plan_runner.run(plan.text, plan.ptx, case.inputs, order=order, check_blocks=True)
    assert cases.compare(name, got) < 1e-5
