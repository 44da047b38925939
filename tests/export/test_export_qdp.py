"""Quick deployable plugins: what TensorRT is given, with its module's interface in numbers, and the kernel executed as it
launches it: inputs, 32-bit sizes, outputs."""

import inspect
import sys
import types

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("triton", reason="triton is not installed")
pytest.importorskip("torch", reason="torch is not installed")

import export_cases as cases
from ptx import Kernel
from test_export_plans import FREE, tensors

from fastprompt.export import quick_plugins
from fastprompt.export._kernels.plans import NoPlan


class TensorDesc:
    def __init__(self, shape, dtype):
        self.shape_expr, self.dtype = shape, dtype


@pytest.fixture
def trtp(monkeypatch):
    """The part of ``tensorrt.plugin`` that is used."""
    trt, plugin = types.ModuleType("tensorrt"), types.ModuleType("tensorrt.plugin")
    for name in quick_plugins.DTYPES.values():
        setattr(trt, name, np.dtype("uint16" if name == "bfloat16" else name))
    plugin.said, plugin.op = {}, types.SimpleNamespace(fastprompt=types.SimpleNamespace())

    def register(name):
        def keep(function):
            plugin.said[name, "register"] = function
            setattr(plugin.op.fastprompt, name.split("::")[1], name)

        return keep

    plugin.register = register
    plugin.aot_impl = lambda name: lambda function: plugin.said.__setitem__((name, "aot"), function)
    plugin.TensorDesc, plugin.from_shape_expr = TensorDesc, TensorDesc
    plugin.cdiv, plugin.min, plugin.max = lambda a, b: -(-a // b), min, max
    plugin.KernelLaunchParams, plugin.SymIntExprs = types.SimpleNamespace, lambda n: [None] * n
    plugin.SymInt32 = int
    trt.plugin = plugin
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", plugin)
    return plugin


@pytest.mark.parametrize("name", quick_plugins.OPERATORS)
def test_the_kernel_as_tensorrt_launches_it(trtp, name):
    case = cases.found(name)
    assert (
        quick_plugins.register(name, tensors(case.inputs, FREE[name]), case.attributes, "ieee") == f"fastprompt::{name}"
    )
    given = [TensorDesc(x.shape, x.dtype) for x in case.inputs]
    describe, ahead = trtp.said[f"fastprompt::{name}", "register"], trtp.said[f"fastprompt::{name}", "aot"]
    signature = inspect.signature(describe)
    assert [p.annotation for p in signature.parameters.values()] == [TensorDesc] * len(given)
    found = describe(*given)
    found = found if isinstance(found, tuple) else (found,)
    assert signature.return_annotation == (tuple[(TensorDesc,) * len(found)] if len(found) > 1 else TensorDesc)
    assert list(inspect.signature(ahead).parameters)[-2:] == ["outputs", "tactic"]
    kernel, ptx, launch, scalars = ahead(*given, found, 0)
    outputs = [np.full(x.shape_expr, 99, x.dtype) for x in found]
    grid = launch.grid_x, launch.grid_y, launch.grid_z
    executor = Kernel(ptx, kernel)
    executor.launch(grid, launch.block_x, [*case.inputs, *scalars, *outputs], launch.shared_mem, check_blocks=True)
    assert cases.compare(name, outputs) < 1e-5


def test_what_is_no_single_launch(trtp):
    with pytest.raises(NoPlan, match="PromptToImageAttention is no single launch"):
        quick_plugins.register("PromptToImageAttention", [], {})


def test_without_tensorrt(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(
        ImportError, match=r"quick deployable plugins need TensorRT 10\.9 or newer: pip install tensorrt"
    ):
        quick_plugins.register("CosineScores", [], {})
