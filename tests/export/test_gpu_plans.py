"""Kernels that an engine carries, on a GPU: the driver compiles their PTX and launches it as the plan says."""

import ctypes

import numpy as np
import pytest

pytest.importorskip("triton", reason="triton is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

import plan_runner  # noqa: E402

from fastprompt.export._kernels import plans  # noqa: E402
from fastprompt.export._nodes import RECORDS  # noqa: E402
from fastprompt.export._nodes._translate import registered  # noqa: E402

ops = registered()
KINDS = {torch.float32: "f32", torch.float16: "f16", torch.int64: "i64", torch.bool: "bool", torch.bfloat16: "bf16"}
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def draw(seed, *shape, dtype=torch.float32, scale=1.0):
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)


def cosine(dtype):
    inputs = [draw(0, 2, 133, 96, dtype=dtype), draw(1, 2, 5, 96, dtype=dtype)]
    return "CosineScores", inputs, {}, ops.cosine_scores(*(x.float() for x in inputs))


def prune(dtype):
    tokens, scores = draw(2, 2, 300, 64, dtype=dtype), draw(3, 2, 300)
    always = torch.zeros(1, 1, dtype=torch.bool)
    wanted = ops.prune_rows(tokens, scores, None, None, 70, 0.0)[0]
    return "PruneTokens", [tokens, scores, always], {"count": 70}, wanted


def prompts(dtype):
    image, position = draw(4, 1, 64, 20, 23, dtype=dtype), draw(5, 1, 64, 20, 23, dtype=dtype)
    rows = draw(6, 3, 4, 7, 64, dtype=dtype, scale=0.2)
    return image, position, rows


def to_image(dtype):
    image, position, rows = prompts(dtype)
    inputs = [image, position, rows, torch.zeros(1, 1, 1, 1, dtype=dtype), torch.tensor([7, 2, 7])]
    given = [x.float() for x in inputs[:3]]
    return "PromptToImageAttention", inputs, {}, ops.prompt_to_image(*given, None, None, None, inputs[4])


def to_prompt(dtype):
    image, position, rows = prompts(dtype)
    bias, value = draw(7, 3, 4, 7, dtype=dtype), draw(8, 3, 4, 7, 64, dtype=dtype, scale=0.2)
    inputs = [image, position, rows, bias, value, draw(9, 64, dtype=dtype), torch.tensor([7, 2, 7])]
    image, position, rows, bias, value, out = (x.float() for x in inputs[:6])
    call = (image, position, rows, bias, value, None, None, out, None, None, inputs[6], False, 0.0)
    return "ImageToPromptAttention", inputs, {}, ops.image_to_prompt(*call)


def relative(dtype):
    q, k, v = (draw(10 + n, 2, 19 * 17, 2, 64, dtype=dtype) for n in range(3))
    tables = [draw(13 + n, 27, 64, dtype=dtype, scale=0.1) for n in range(2)]
    pads = [draw(15 + n, 2, 64, dtype=dtype) for n in range(2)]
    inputs = [q, k, v, *tables, *pads]
    numbers = {"size": [19, 17], "window": [14, 14], "scale": 0.125}
    given = [x.float() for x in inputs]
    call = (*given[:5], None, *given[5:], [19, 17], [14, 14], 0.125)
    return "RelativePositionAttention", inputs, numbers, ops.relative_attention(*call)[0]


PROBLEMS = [cosine, prune, to_image, to_prompt, relative]


def plan_of(name, inputs, attributes):
    given = [plans.Tensor(KINDS[x.dtype], tuple(x.shape), (True,) * x.ndim) for x in inputs]
    return RECORDS[name].plan(given, attributes, "tf32x3")


class Driver:
    """The plan on the current device and stream, by the driver's own functions."""

    def __init__(self):
        self.library = ctypes.CDLL("libcuda.so.1")

    def call(self, name, *arguments):
        error = getattr(self.library, name)(*arguments)
        assert error == 0, (name, error)

    def function(self, ptx, launch):
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), ptx.encode())
        self.call("cuModuleGetFunction", ctypes.byref(function), module, launch.kernel.name.encode())
        if launch.kernel.shared > 48 << 10:
            self.call("cuFuncSetAttribute", function, 8, launch.kernel.shared)  # dynamic shared memory, at most
        return function

    def run(self, plan, inputs):
        device = torch.device("cuda")
        kinds = {kind: dtype for dtype, kind in KINDS.items()}
        size = lambda expression: plan_runner.value(str(expression), inputs)  # noqa: E731
        outputs = [
            torch.full([size(e) for e in shape], 99, dtype=kinds[kind], device=device) for kind, shape in plan.outputs
        ]
        scratch = [torch.full([size(e)], 255, dtype=torch.uint8, device=device) for e in plan.scratch]
        places = {"i": inputs, "o": outputs, "s": scratch}
        for launch in plan.launches:
            values = []
            for a in launch.arguments:
                if a[0] in places:
                    values.append(ctypes.c_void_p(places[a[0]][int(a[1:])].data_ptr()))
                else:
                    values.append(ctypes.c_int(size(a[1:])) if a[0] == "n" else ctypes.c_float(float(a[1:])))
            pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(x) for x in values))
            function, stream = self.function(launch.kernel.ptx, launch), torch.cuda.current_stream().cuda_stream
            grid = [size(e) for e in launch.grid]
            block = (launch.kernel.threads, 1, 1, launch.kernel.shared)
            self.call("cuLaunchKernel", function, *grid, *block, ctypes.c_void_p(stream), pointers, None)
        torch.cuda.synchronize()
        return outputs


def check(got, wanted, dtype):
    tolerance = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
    torch.testing.assert_close(
        got.float().cpu(), wanted.float(), rtol=0, atol=tolerance * max(1.0, float(wanted.abs().max()))
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("problem", [pytest.param(p, marks=gpu) for p in PROBLEMS])
def test_a_plan_on_a_device(problem, dtype):
    name, inputs, attributes, wanted = problem(dtype)
    plan = plan_of(name, inputs, attributes)
    check(Driver().run(plan, [x.cuda() for x in inputs])[0], wanted, dtype)


def test_these_problems_in_the_interpreter():
    """So that a failure on a device is the device's."""
    name, inputs, attributes, wanted = to_prompt(torch.float16)
    plan = plan_of(name, inputs, attributes)
    got = plan_runner.run(plan.text, plan.ptx, [x.numpy() for x in inputs])[0]
    check(torch.from_numpy(np.asarray(got)), wanted, torch.float16)
