"""TensorRT's plugins, as TensorRT meets them: registry, creator, fields, types, shapes, serialisation, launches."""

import subprocess

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("triton", reason="triton is not installed")
pytest.importorskip("torch", reason="torch is not installed")

import export_cases as cases
import plugin_contract as contract
import plugin_host
from test_export_plans import plan_of

from fastprompt.export._nodes import RECORDS
from fastprompt.export._tensorrt import plugins

CARRIED = [n for n in cases.CASES if RECORDS[n.partition(",")[0]].plan]


def test_the_library_needs_no_tensorrt():
    symbols = subprocess.run(["nm", "-D", plugin_host.library()], capture_output=True, text=True, check=True).stdout
    defined = {line.split()[-1] for line in symbols.splitlines() if " T " in line}
    assert defined == {"getCreators", "setLoggerFinder", "fastprompt_plugins"}
    assert not [line for line in symbols.splitlines() if " U " in line and ("nvinfer" in line or "getPlugin" in line)]
    needed = subprocess.run(["ldd", plugin_host.library()], capture_output=True, text=True, check=True).stdout
    assert "cuda" not in needed
    assert "nvinfer" not in needed


def test_what_the_library_holds():
    found = plugins.plugins_of(plugin_host.library())
    assert found == {
        ("GeodesicDistance", "1"),
        *((name, plugins.WITH_PTX) for name, record in RECORDS.items() if record.plan),
    }
    with pytest.raises(ValueError, match=r"plugins must be the path of libfastprompt_tensorrt\.so, and there is no"):
        plugins.plugins_of("/nowhere/x.so")
    with pytest.raises(ValueError, match=r"plugins must be the path of libfastprompt_tensorrt\.so, got"):
        plugins.plugins_of(__file__)


GEODESIC = {"GeodesicDistance": {}, "GeodesicDistance, signed": {"method": "raster"}}


@pytest.mark.parametrize("name", GEODESIC)
def test_geodesic_distance(name):
    case = cases.found(name)
    lines = contract.geodesic(case.inputs, case.attributes | GEODESIC[name], with_driver=False)
    assert [n for n, _ in contract.of_kind(lines, "field")] == list(RECORDS["GeodesicDistance"].attributes)
    kind, *shape = contract.of_kind(lines, "output")[0]
    assert kind == "0"
    assert [int(n) for n in shape] == list(case.want[0].shape)
    assert int(contract.of_kind(lines, "workspace")[0][0]) >= (4 * 2 * case.want[0].size if "signed" in name else 12)
    assert "onShapeChange 0" in lines
    assert "enqueue 1" in lines  # there is no device


@pytest.mark.parametrize(
    ("changed", "depth"),
    [({"method": "toivanen"}, 1), ({"metric": "l2"}, 1), ({"kind": "seeds"}, 1), ({"spacing": [1.0, 1.0, 1.0]}, 1),
     ({"spacing": [0.0, 1.0]}, 1), ({"lam": []}, 1)],
)  # fmt: skip
def test_geodesic_distance_that_has_no_kernel_is_refused(changed, depth):
    case = cases.found("GeodesicDistance")
    assert contract.geodesic(case.inputs, case.attributes | changed)[-1] == "refused"


def test_a_volume_is_refused_before_it_is_launched():
    case = cases.found("GeodesicDistance, volume")
    lines = contract.geodesic(case.inputs, case.attributes | {"spacing": [1.0, 1.0]})
    assert "onShapeChange 1" in lines
    assert not contract.of_kind(lines, "launch")


@pytest.mark.parametrize("name", CARRIED)
def test_launches_of_a_node_with_its_kernels(name):
    """Registry, plugin and our plan, with the launches that reach the driver executed in the interpreter."""
    case = cases.found(name)
    plan = plan_of(name, case.inputs, case.attributes)
    lines = contract.carried(name.partition(",")[0], plan, case.inputs)
    assert [n for n, _ in contract.of_kind(lines, "field")] == ["plan", "ptx"]
    assert lines.count("module") == len(plan.launches)
    assert "enqueue 0" in lines
    assert cases.compare(name, contract.executed(lines, plan, case.inputs)) < 1e-5


def test_no_driver_is_told():
    case = cases.found("CosineScores")
    plan = plan_of("CosineScores", case.inputs, {})
    lines = contract.carried("CosineScores", plan, case.inputs, with_driver=False)
    assert "onShapeChange 1" in lines
    assert "enqueue 1" in lines


@pytest.mark.parametrize(
    ("old", "new"),
    [("0.1,4,/", "0.1,/"), ("0.1,4,/", "0.9,4,/"), ("o0", "o1"), ("i1", "i7"), ("inputs f32", "inputs f8"),
     ("launch", "lunch"), ("scores_kernel 32", "scores_kernel 2048"), ("0.1,4,/", "5.0")],
)  # fmt: skip
def test_a_malformed_plan_is_refused(old, new):
    case = cases.found("CosineScores")
    plan = plan_of("CosineScores", case.inputs, {})
    assert old in plan.text
    files = [("plan", plan.text.replace(old, new, 1)), ("ptx", plan.ptx)]
    lines = contract.ask("CosineScores", plugins.WITH_PTX, {}, contract.described(case.inputs), files=files)
    assert lines[-1] == "refused"


def test_sizes_that_divide_by_zero_are_refused():
    case = cases.found("ImageToPromptAttention")
    plan = plan_of("ImageToPromptAttention", case.inputs, {})
    empty = [np.zeros((0, *x.shape[1:]), x.dtype) if n == 0 else x for n, x in enumerate(case.inputs)]
    lines = contract.carried("ImageToPromptAttention", plan, empty)
    assert "enqueue 1" in lines
    assert not contract.of_kind(lines, "launch")
