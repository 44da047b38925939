"""Our single-launch operators as Quick Deployable Plugins (``tensorrt.plugin``, TensorRT 10.9 and newer): for networks
that are built in Python. The kernels go into the engine as PTX, which then needs neither Python nor Triton.

Such a plugin has inputs, 32-bit sizes and outputs, in this order, and no memory of its own. Parameters of the kernels
are put into that order.
"""

from typing import Any, NamedTuple

from fastprompt.export._kernels import aot
from fastprompt.export._kernels.plans import NoPlan, Plan, Tensor, need
from fastprompt.export._nodes import RECORDS

DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "i32": "int32", "i64": "int64", "bool": "bool"}
OPERATORS = tuple(name for name, record in RECORDS.items() if record.quick)


class Quick(NamedTuple):
    """A plan as TensorRT takes it; sizes are expressions in its own symbols."""

    kernel: aot.Kernel
    outputs: list[tuple[str, tuple[Any, ...]]]
    grid: tuple[Any, Any, Any]
    scalars: list[Any]


def evaluated(expression: Any, inputs: list[Any], plugin: Any) -> Any:
    """A postfix expression over the shapes of ``inputs``. ``plugin``: the module, for what has no sign in Python."""
    apply = {
        "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "~": lambda a, b: a // b,
        "/": plugin.cdiv, "<": plugin.min, ">": plugin.max,
    }  # fmt: skip
    stack: list[Any] = []
    for part in str(expression).split(","):
        if part in apply:
            second = stack.pop()
            stack.append(apply[part](stack.pop(), second))
        elif "." in part:
            place, axis = map(int, part.split("."))
            stack.append(inputs[place][axis])
        else:
            stack.append(int(part))
    return stack[0]


def quick(plan: Plan, inputs: list[Any], plugin: Any) -> Quick:
    """``inputs``: shapes, of numbers or of TensorRT's symbols."""
    need(len(plan.launches) == 1 and not plan.scratch, "a quick deployable plugin has one launch and no scratch")
    kernel, grid, arguments = plan.launches[0]
    order = {"i": 0, "n": 1, "o": 2}
    places = sorted(range(len(arguments)), key=lambda n: (order[arguments[n][0]], n))
    ordered = kernel._replace(ptx=aot.in_order(kernel.ptx, kernel.name, places))
    value = lambda x: evaluated(x, inputs, plugin)  # noqa: E731
    return Quick(
        ordered,
        [(kind, tuple(map(value, shape))) for kind, shape in plan.outputs],
        (value(grid[0]), value(grid[1]), value(grid[2])),
        [value(a[1:]) for a in arguments if a[0] == "n"],
    )


def register(name: str, tensors: list[Tensor], attributes: dict[str, Any], precision: str = "tf32x3") -> Any:
    """``tensorrt.plugin.op.fastprompt.<name>`` for inputs of these types and known sizes; give it to
    ``network.add_plugin(op(*tensors), aot=True)``.

    Args:
        name: "CosineScores", "PruneTokens" or "ImageToPromptAttention".
        tensors: the inputs of the node, one :class:`Tensor` each: its type ("f32", "f16", "bf16", "i64", "bool"), its
            sizes, the largest where they vary, and which of them are fixed.
        attributes: of the node.
        precision: of products of float32: "tf32x3" (as exact as float32) or "tf32".

    Raises:
        ImportError: there is no TensorRT with quick deployable plugins.
        NoPlan: why there is no kernel for such inputs.

    Example:
        >>> from fastprompt.export.quick_plugins import Tensor, register
        >>> free = (False, False, True)
        >>> inputs = [Tensor("f32", (8, 4096, 256), free), Tensor("f32", (8, 4, 256), free)]
        >>> scores = register("CosineScores", inputs, {})  # doctest: +SKIP
    """
    make = RECORDS[name].plan if name in OPERATORS else None
    if make is None:
        raise NoPlan(f"{name} is no single launch")
    try:
        import tensorrt as trt
        import tensorrt.plugin as trtp
    except ImportError:
        raise ImportError("quick deployable plugins need TensorRT 10.9 or newer: pip install tensorrt") from None
    plan = make(tensors, attributes, precision)
    parameters = [f"input{n}" for n in range(len(tensors))]

    def describe(*inputs: Any) -> Any:
        made = quick(plan, [x.shape_expr for x in inputs], trtp)
        found = tuple(trtp.from_shape_expr(shape, getattr(trt, DTYPES[kind])) for kind, shape in made.outputs)
        return found if len(found) > 1 else found[0]

    def compile_ahead(*given: Any) -> Any:
        made = quick(plan, [x.shape_expr for x in given[: len(tensors)]], trtp)
        launch = trtp.KernelLaunchParams()
        launch.grid_x, launch.grid_y, launch.grid_z = made.grid
        launch.block_x, launch.shared_mem = made.kernel.threads, made.kernel.shared
        scalars = trtp.SymIntExprs(len(made.scalars))
        for n, value in enumerate(made.scalars):
            scalars[n] = trtp.SymInt32(value)
        return made.kernel.name, made.kernel.ptx, launch, scalars

    count = len(plan.outputs)
    tensor = trtp.TensorDesc
    sign(describe, [(p, tensor) for p in parameters], tuple[(tensor,) * count] if count > 1 else tensor)  # type: ignore[misc]
    rest = [("outputs", tuple[tensor]), ("tactic", int)]  # type: ignore[valid-type]
    sign(compile_ahead, [(p, tensor) for p in parameters] + rest, None)
    trtp.register(f"fastprompt::{name}")(describe)
    trtp.aot_impl(f"fastprompt::{name}")(compile_ahead)
    return getattr(trtp.op.fastprompt, name)


def sign(function: Any, parameters: list[tuple[str, Any]], result: Any) -> None:
    """TensorRT reads names and types of the parameters from the signature."""
    import inspect

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    empty = inspect.Signature.empty if result is None else result
    given = [inspect.Parameter(name, kind, annotation=annotation) for name, annotation in parameters]
    function.__signature__ = inspect.Signature(given, return_annotation=empty)
    function.__annotations__ = dict(parameters) | ({} if result is None else {"return": result})


__all__ = ["NoPlan", "Tensor", "register"]
