"""The columns of TensorRT in docs/export_matrix.md. No engine runs here: a cell says that one was built, or what a plugin
did in a real registry, with its launches executed in our interpreter."""

import functools
import importlib.metadata
import importlib.util
import re
import tempfile

import export_cases as cases
import pytest

import fastprompt as fp

CAPABILITIES = ("sm_86", "sm_89", "sm_120")
CONTRACT = "TensorRT plugin contract through the lean runtime"
CHANNELS = {
    "MaskHead": {0: (1,), 1: (2,)},
    "MaskDecoder": {0: (1,), 1: (1,), 3: (2,)},
}  # axes that are fixed in every model; a deconvolution wants them so
PACKAGES = ("tensorrt-rtx-cu13-libs", "tensorrt-lean-cu13-libs", "kernel-lens")
KNOWN = r"Unsupported reduction type|TensorRT does not support UINT8 types for intermediate tensors"


def versions():
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)


def model(name):
    """With every axis unknown that may be."""
    made = cases.model(name, "portable")
    for n, axes in CHANNELS.get(name.partition(",")[0], {}).items():
        value = next((v for v in made.graph.input if v.name == f"in{n}"), None)
        for k in axes:
            value.type.tensor_type.shape.dim[k].Clear()
            value.type.tensor_type.shape.dim[k].dim_value = cases.found(name).inputs[n].shape[k]
    return made


@functools.cache
def built(name, capabilities):
    """None, or what TensorRT-RTX says."""
    made = model(name)
    sizes = {
        axis.dim_param: cases.feeds(name)[value.name].shape[k]
        for value in made.graph.input
        for k, axis in enumerate(value.type.tensor_type.shape.dim)
        if axis.dim_param
    }
    profile = ",".join(f"{axis}={size}" for axis, size in sizes.items())
    with tempfile.TemporaryDirectory() as folder:
        try:
            fp.export.tensorrt(
                made, f"{folder}/x.plan", profile=profile, target="tensorrt-rtx", capabilities=capabilities
            )
        except RuntimeError as error:
            return str(error)
    return None


def rtx(capability):
    def build(name):
        if importlib.util.find_spec("tensorrt_rtx_libs") is None:
            pytest.skip("tensorrt-rtx-cu13-libs is not installed")
        if built(name, CAPABILITIES) is None:  # one build for all of them is three times as quick
            return []
        error = built(name, (capability,))
        known = error and re.search(KNOWN, error)
        if error:
            raise RuntimeError(known.group() if known else error)
        return []

    return build


def contract(name):
    pytest.importorskip("triton", reason="triton is not installed")
    import plugin_contract
    from test_export_plans import plan_of

    from fastprompt.export._kernels.plans import NoPlan
    from fastprompt.export._nodes import RECORDS

    operator, case = name.partition(",")[0], cases.found(name)
    record = RECORDS[operator]
    if record.own_plugin is not None:
        from test_export_plans import tensors

        try:
            record.own_plugin(tensors([case.inputs[0]]), case.attributes)
        except NoPlan as why:
            raise RuntimeError(f"function form: {why}") from None
        lines = plugin_contract.geodesic(case.inputs, case.attributes)
        assert "onShapeChange 0" in lines, lines
        return []
    if record.plan is None:
        raise RuntimeError("no plugin: function form")
    plan = plan_of(name, case.inputs, case.attributes)
    lines = plugin_contract.carried(operator, plan, case.inputs)
    return plugin_contract.executed(lines, plan, case.inputs)


COLUMNS = {f"TensorRT-RTX engine build {c} (CPU)": rtx(c) for c in CAPABILITIES} | {CONTRACT: contract}
