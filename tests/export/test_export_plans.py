"""Kernels that an engine carries: their PTX, executed as the plan says, gives what torch's operators give."""

import re
import shutil
import subprocess

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("triton", reason="triton is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

import export_cases as cases  # noqa: E402
import plan_runner  # noqa: E402
from ptx import Fault  # noqa: E402

from fastprompt.export._kernels import aot, plans  # noqa: E402
from fastprompt.export._nodes import RECORDS  # noqa: E402

NAMES = {"float32": "f32", "bool": "bool", "int64": "i64", "float16": "f16", "uint8": "bool"}


def tensors(arrays, free=()):
    """As the exporter knows them; axes in ``free``, (input, axis), may be as large as twice their size."""
    found = []
    for n, x in enumerate(arrays):
        fixed = tuple((n, k) not in free for k in range(x.ndim))
        found.append(
            plans.Tensor(
                NAMES[x.dtype.name], tuple(s if f else 2 * s for s, f in zip(x.shape, fixed, strict=True)), fixed
            )
        )
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
    return RECORDS[operator].plan(tensors(arrays, FREE[operator]), attributes, precision)


@pytest.mark.parametrize("name", [n for n in cases.CASES if RECORDS[n.partition(",")[0]].plan])
@pytest.mark.parametrize("order", [None, "reverse"], ids=str)
def test_a_plan_gives_what_torch_gives(name, order):
    case = cases.found(name)
    plan = plan_of(name, case.inputs, case.attributes)
    got = plan_runner.run(plan.text, plan.ptx, case.inputs, order=order, check_blocks=True)
    assert cases.compare(name, got) < 1e-5


def draw(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


NOTHING = np.zeros((1, 1, 1, 1), np.float32)
ENDLESS = np.array([2**62])


def attention(to_prompt, *, images=1, each=2, heads=3, tokens=5, channels=24, sides=(5, 9), position=True, bias=True,
              lengths=None, dtype=np.float32):  # fmt: skip
    """Inputs of an attention node."""
    n = images * each
    image = draw(0, images, channels, *sides, dtype=dtype)
    place = draw(1, 1, channels, *sides, dtype=dtype) if position else NOTHING.astype(dtype)
    rows = (draw(2, n, heads, tokens, channels) * 0.3).astype(dtype)
    ends = ENDLESS if lengths is None else np.array(lengths)
    if to_prompt:
        value = (draw(3, n, heads, tokens, channels) * 0.3).astype(dtype)
        return [image, place, rows, draw(4, n, heads, tokens, dtype=dtype), value, draw(5, channels, dtype=dtype), ends]
    added = np.where(draw(6, n, tokens, *sides) > 1.2, -np.inf, 0.5).astype(dtype) if bias else NOTHING.astype(dtype)
    if bias:
        added[:, -1] = -np.inf  # a token that may look at nothing
    return [image, place, rows, added, ends]


def wanted(name, inputs, attributes):
    """By the body of the node, in float64 of the rounded inputs where onnx's evaluator takes it, else float32."""
    from onnx.reference import ReferenceEvaluator

    from fastprompt.export._onnx.functions import function_of

    arrays = [x.astype(np.float32) if x.dtype.kind == "f" else x for x in inputs]
    evaluator = ReferenceEvaluator(function_of(name, attributes))
    return evaluator.run(None, dict(zip(evaluator.input_names, arrays, strict=True)), attributes=attributes)


ATTENTION = {
    "one pixel, one token": {"bias": False, "each": 1, "heads": 1, "tokens": 1, "channels": 16, "sides": (1, 1)},
    "nothing given": {"position": False, "bias": False},
    "several splits": {"sides": (9, 250), "channels": 16, "heads": 1, "each": 1, "tokens": 2},
    "lengths": {"images": 2, "each": 1, "lengths": [2, 5]},
    "more rows than a block": {"heads": 8, "tokens": 11, "channels": 40, "each": 1},
    "half": {"dtype": np.float16, "channels": 32},
}


@pytest.mark.parametrize("options", ATTENTION.values(), ids=ATTENTION)
@pytest.mark.parametrize("name", ["PromptToImageAttention", "ImageToPromptAttention"])
def test_attention_at_other_sizes(name, options):
    inputs = attention(name == "ImageToPromptAttention", **options)
    given = tensors(inputs, FREE[name])
    given = [
        plans.Tensor(x.type, a.shape, (True,) * a.ndim) if a.size == 1 else x
        for x, a in zip(given, inputs, strict=True)
    ]
    plan = RECORDS[name].plan(given, {}, "tf32x3")
    got = plan_runner.run(plan.text, plan.ptx, inputs, check_blocks=True)[0]
    want = wanted(name, inputs, {})[0]
    np.testing.assert_allclose(got, want, rtol=0, atol=(4e-3 if got.dtype == np.float16 else 2e-5) * abs(want).max())


WINDOWS = [  # images, heads, width, size, window, padding given
    (1, 1, 16, (1, 1), (1, 1), False),
    (1, 2, 24, (5, 18), (5, 18), False),
    (2, 1, 16, (7, 9), (3, 4), True),
    (1, 1, 16, (6, 8), (3, 4), True),
    (1, 1, 16, (4, 70), (4, 70), False),
]


@pytest.mark.parametrize("case", WINDOWS, ids=str)
def test_relative_position_at_other_sizes(case):
    images, heads, width, size, window, padded = case
    count, attributes = size[0] * size[1], {"size": list(size), "window": list(window), "scale": width**-0.5}
    inputs = [draw(n, images, count, heads, width) for n in range(3)]
    inputs += [draw(3 + k, 2 * n - 1, width) * 0.3 for k, n in enumerate(window)]
    inputs += [draw(5 + k, heads, width) if padded else np.zeros((1, 1), np.float32) for k in range(2)]
    inputs = [x.astype(np.float32) for x in inputs]
    plan = plan_of("RelativePositionAttention", inputs, attributes, "tf32x3")
    got = plan_runner.run(plan.text, plan.ptx, inputs, check_blocks=True)[0]
    np.testing.assert_allclose(got, wanted("RelativePositionAttention", inputs, attributes)[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("CosineScores", {0: {"fixed": (True, True, False)}}, "the channels must be fixed"),
        ("PruneTokens", {0: {"largest": (2, 20000, 16)}}, "at most 16384 tokens, got 20000"),
        ("PruneTokens", {1: {"type": "f16"}}, "scores must be float32"),
        ("PromptToImageAttention", {1: {"largest": (4, 32, 5, 7)}}, "position must be one for all images"),
        ("ImageToPromptAttention", {2: {"largest": (4, 2, 200, 32)}}, "at most 128 prompt tokens, got 200"),
        ("ImageToPromptAttention", {3: {"type": "f16"}}, "all inputs must be of one type"),
        ("RelativePositionAttention", {0: {"largest": (2, 35, 2, 160)}}, "heads of at most 128"),
    ],
)
def test_what_has_no_plan(name, change, why):
    case = cases.found(name)
    given = tensors(case.inputs, FREE[name])
    for place, fields in change.items():
        given[place] = given[place]._replace(**fields)
    with pytest.raises(plans.NoPlan, match=why):
        RECORDS[name].plan(given, case.attributes, "ieee")


# ---------------------------------------------------------------- PTX


def test_ptx_without_what_only_triton_knows():
    from fastprompt.kernels import pruning

    constants = {"C": 16, "row_stride": 16, "BN": 4, "BC": 128, "PIECES": 1}
    made = aot.compiled(pruning.scores_kernel, "*fp32 *fp32 *fp32 i32 i32 i32! i32!", constants, warps=1)
    assert made.threads == 32
    assert "ld.global.v4" in made.ptx  # by the strides' multiples of 16
    assert "scores_kernel_param_6" in made.ptx
    assert "scores_kernel_param_7" not in made.ptx
    assert ".version 8.0" in made.ptx
    assert not [word for word in (".file", ".loc", ".debug", "pruning.py") if word in made.ptx]  # no paths
    text = ".entry k(\n\t.param .u64 k_param_0,\n\t.param .u64 k_param_1\n)\n{ ld.param.u64 %r, [k_param_1]; }"
    with pytest.raises(ValueError, match="k reads k_param_1, which only Triton's own launcher gives"):
        aot.without_hidden_parameters(text, "k", 1)


def sized(kind, *sizes, free=()):
    return plans.Tensor(kind, sizes, tuple(k not in free for k in range(len(sizes))))


def of_sam(kind):
    """Nodes of SAM's sizes: ViT-B's encoder, heads of 80 as ViT-H's, the decoder's attention; pruning of ViT-B."""
    image, one, ends = sized(kind, 1, 256, 64, 64), sized(kind, 1, 1, 1, 1), sized("i64", 1)
    rows, bias = sized(kind, 64, 8, 16, 256, free=(0, 2)), sized(kind, 64, 8, 16, free=(0, 2))
    tokens, scores = sized(kind, 4, 4096, 768, free=(0, 1)), sized("f32", 4, 4096, free=(0, 1))
    yield "CosineScores", [tokens, sized(kind, 4, 16, 768, free=(0, 1))], {}
    yield "PruneTokens", [tokens, scores, sized("bool", 1, 1)], {"count": 2048}
    yield "PromptToImageAttention", [image, image, rows, one, ends], {}
    yield "ImageToPromptAttention", [image, image, rows, bias, rows, sized(kind, 256), ends], {}
    for heads, width, window in ((12, 64, 64), (12, 64, 14), (16, 80, 64), (16, 80, 14)):
        q, table = sized(kind, 4, 4096, heads, width, free=(0,)), sized(kind, 2 * window - 1, width)
        pads = [sized(kind, heads, width) if window == 14 else sized(kind, 1, 1)] * 2
        numbers = {"size": [64, 64], "window": [window] * 2, "scale": width**-0.5}
        yield "RelativePositionAttention", [q, q, q, table, table, *pads], numbers


@pytest.mark.parametrize(("kind", "precision"), [("f32", "tf32x3"), ("f32", "tf32"), ("bf16", "ieee")])
def test_no_spills_at_the_sizes_of_sam(tmp_path, kind, precision):
    """ptxas for sm_86, with the smallest shared memory of the targets; what would spill has no plan."""
    if not shutil.which("ptxas"):
        pytest.skip("ptxas is not installed")
    without = []
    for name, given, attributes in of_sam(kind):
        try:
            plan = RECORDS[name].plan(given, attributes, precision)
        except plans.NoPlan:
            without.append(name)
            continue
        for launch in plan.launches:
            assert launch.kernel.shared <= 99 * 1024, (name, launch.kernel.shared)
            source = tmp_path / "kernel.ptx"
            source.write_text(launch.kernel.ptx)
            command = ["ptxas", "-v", "-arch=sm_86", source, "-o", tmp_path / "kernel.cubin"]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
            spilled = int(re.search(r"(\d+) bytes spill stores", said).group(1))
            assert spilled <= 8, (name, launch.kernel.name, said)  # one or two registers at the start, in no loop
    attention = ["PromptToImageAttention", "ImageToPromptAttention", *["RelativePositionAttention"] * 2]
    assert without == (attention if precision == "tf32x3" else [])


def test_a_plan_with_a_wrong_size_is_caught():
    """The kernels trust the plan: one token too many lies outside."""
    case = cases.found("CosineScores")
    plan = plan_of("CosineScores", case.inputs, {})
    with pytest.raises(Fault, match="out of bounds"):
        plan_runner.run(plan.text.replace("n0.1 ", "n0.1,1,+ "), plan.ptx, case.inputs)
