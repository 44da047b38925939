"""``Operator``: the one place that asks what kind of array came in, on which device, and for which backend."""

import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastprompt._runtime import current_backend

Fn = Callable[..., Any]
Spec = tuple[Any, Any]  # shape and dtype of a result; the dtype is a name, or that of an argument
Asked = tuple[Fn, dict[str, Any]]  # a kernel and its fields

OPERATORS: dict[str, "Operator"] = {}  # by name: each adds itself


class Gradient(NamedTuple):
    """As ``torch.library.register_autograd`` takes them; of arguments and results of the operator."""

    backward: Fn
    setup: Fn


class Operator:
    """A function of arrays with a kernel for every kind of device. NumPy and torch both call it.

    >>> double = Operator(
    ...     "double(Tensor x) -> Tensor",
    ...     out=lambda x: (x.shape, "float32"),
    ...     call=lambda x, out: (np.copyto, {"dst": out, "src": 2 * x}),
    ...     reference=lambda x: x + x,
    ... )
    >>> double(np.ones(2, np.float32))
    array([2., 2.], dtype=float32)

    Arrays: ``call`` fills what ``out`` says. Tensors: torch's dispatcher, where all operators register when the first
    tensor comes, and then the same ``call``. With the backend "reference", ``reference`` computes, for both.

    Args:
        schema: of torch.
        out: of the arguments: shape and dtype of the result, or a list of such.
        call: ``call(*args, *results)``: the kernel for the CPU and its fields by name; or None, and it has filled the
            results itself. Without ``call`` the formula is all there is.
        check: of the arguments, on the CPU, before anything is computed: raises where values are wrong that a GPU would
            have to be waited for.
        takes: of the arguments: whether the kernels take them; what they do not is the formula's (the reference's).
        reference: the formula in NumPy. None: there is none, and the kernel computes.
        formula: the formula in torch: for the gradient, for what no kernel takes, and on a GPU without kernel.
        gpu: ``gpu(*args)``, the kernel for a GPU; None as its result leaves the call to the formula. With :meth:`into`
            it is called with ``out=``.
        gradient: "formula", a :class:`Gradient`, or None: the results have none.
        arrays_only: it is called with NumPy arrays alone, and torch never hears of it.
    """

    def __init__(
        self,
        schema: str,
        *,
        out: Fn,
        call: Fn | None = None,
        check: Fn | None = None,
        takes: Fn | None = None,
        reference: Fn | None = None,
        formula: Fn | None = None,
        gpu: Fn | None = None,
        gradient: Gradient | str | None = None,
        arrays_only: bool = False,
    ) -> None:
        self.schema, self.out, self.call, self.check, self.takes = schema, out, call, check, takes
        self.reference, self.formula, self.gpu, self.gradient = reference, formula, gpu, gradient
        self.name, _, rest = schema.partition("(")
        self.arguments = [a.strip() for a in rest.rpartition(") ->")[0].split(",")]
        self.place = next(k for k, a in enumerate(self.arguments) if a.startswith(("Tensor ", "Tensor(")))
        self.overload: Any = None
        if not arrays_only:
            OPERATORS[self.name] = self

    def __call__(self, *args: Any) -> Any:
        if not isinstance(args[self.place], np.ndarray):
            make_ready(self.name)
            return self.overload(*args)
        if self.check is not None:
            self.check(*args)
        takes = self.takes
        if self.reference is not None and (
            current_backend() == "reference" or (takes is not None and not takes(*args))
        ):
            return self.by_reference(args)
        out = self.out(*args)
        single = type(out) is tuple
        made = [np.empty(*out)] if single else [np.empty(*spec) for spec in out]
        asked = self.call(*args, *made)  # type: ignore[misc]
        if asked is not None:
            asked[0](**asked[1])
        return made[0] if single else made

    def into(self, out: Any, *args: Any) -> None:
        """Fill ``out``, memory that is there, a part of a larger map say. Not seen by torch's dispatcher."""
        if not isinstance(out, np.ndarray) and out.is_cuda:
            import torch

            with torch.cuda.device_of(out):
                if self.gpu is None or current_backend() == "reference":
                    out.copy_(self.on_gpu(*args))
                else:
                    self.gpu(*args, out=out)
        elif current_backend() == "reference" and self.reference is not None:
            np.copyto(on_host(out), on_host(self.by_reference(args)))
        elif asked := self.call(*args, out):  # type: ignore[misc]
            asked[0](**asked[1])

    def by_reference(self, args: Any) -> Any:
        """``reference`` of arrays in the memory of the CPU; results of the kind, dtypes and device of the arguments."""
        specs, like = self.out(*args), args[self.place]
        found = self.reference(*map(on_host, args))  # type: ignore[misc]
        finish = as_array if isinstance(like, np.ndarray) else functools.partial(as_tensor, like.device)
        if type(specs) is tuple:
            return finish(found, specs)
        return [finish(x, spec) for x, spec in zip(found, specs, strict=True)]

    # ------------------------------------------------------------ torch

    @property
    def torch(self) -> Any:
        """torch's operator."""
        make_ready(self.name)
        return self.overload

    def on_cpu(self, *args: Any) -> Any:
        if self.check is not None:
            self.check(*args)
        if current_backend() == "reference" and self.reference is not None:
            return results(self.by_reference(args))
        if self.call is None or (self.takes is not None and not self.takes(*args)):
            return results(self.by_formula(args))
        made = self.fake(*args)
        asked = self.call(*args, *made) if isinstance(made, tuple) else self.call(*args, made)
        if asked is not None:
            asked[0](**asked[1])
        return made

    def on_gpu(self, *args: Any) -> Any:
        if current_backend() == "reference" and self.reference is not None:
            return results(self.by_reference(args))
        found = None if self.gpu is None else self.gpu(*args)
        return results(self.by_formula(args)) if found is None else found

    def by_formula(self, args: Any) -> Any:
        """Half precision in float32, and results in the dtypes of ``out``."""
        if self.formula is None:
            raise ValueError(f"fastprompt.{self.name} has no kernel for a GPU: move its tensors with .cpu()")
        specs, found = self.out(*args), self.formula(*map(widened, args))
        if type(specs) is tuple:
            return found.to(torch_dtype(specs[1])).contiguous()
        return [x.to(torch_dtype(spec[1])).contiguous() for x, spec in zip(found, specs, strict=True)]

    def fake(self, *args: Any) -> Any:
        """Tensors for the results."""
        specs, new = self.out(*args), args[self.place].new_empty
        if type(specs) is tuple:
            return new(specs[0], dtype=torch_dtype(specs[1]))
        return results([new(shape, dtype=torch_dtype(dtype)) for shape, dtype in specs])


def make_ready(name: str) -> None:
    if OPERATORS[name].overload is None:
        register()


# torch.compile may be the first to call, and cannot trace a registration: it calls this as it traces, and takes the
# result for a constant. What torch.compiler.assume_constant_result does, without torch.
make_ready._dynamo_marked_constant = True  # type: ignore[attr-defined]


def results(found: Any) -> Any:
    """Several results as a tuple, as torch wants them; a schema that ends in ``Tensor[]`` takes it for a list."""
    return tuple(found) if isinstance(found, list) else found


@functools.cache
def torch_dtype(dtype: Any) -> Any:
    import torch

    return getattr(torch, dtype) if isinstance(dtype, str) else dtype


def on_host(x: Any) -> Any:
    """NumPy's form of an argument."""
    if isinstance(x, (list, tuple)) and x and hasattr(x[0], "numpy"):
        return [on_host(item) for item in x]
    if not hasattr(x, "data_ptr"):
        return x
    x = x.detach().cpu()
    return (x.float() if x.dtype in (torch_dtype("bfloat16"), torch_dtype("float16")) else x).numpy()


def as_array(x: Any, spec: Spec) -> Any:
    return np.asarray(x, spec[1])


def as_tensor(device: Any, x: Any, spec: Spec) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(x)).to(device, torch_dtype(spec[1]))


def widened(x: Any) -> Any:
    if isinstance(x, (list, tuple)):
        return [widened(item) for item in x]
    if hasattr(x, "data_ptr") and x.dtype in (torch_dtype("bfloat16"), torch_dtype("float16")):
        return x.float()
    return x


# ---------------------------------------------------------------- registration

_lock, _library = threading.RLock(), None


def register() -> None:
    """All operators with torch, at once: about 20 ms."""
    global _library
    import torch

    with _lock:
        if _library is None:
            _library = torch.library.Library("fastprompt", "FRAGMENT")
        for operator in [o for o in OPERATORS.values() if o.overload is None]:
            define(operator, _library)


def define(operator: Operator, library: Any) -> None:
    import torch

    if operator.gradient == "formula":
        gradient: Gradient | None = of_formula(operator, library)
    else:
        gradient = operator.gradient  # type: ignore[assignment]
    name = library.define(operator.schema)
    library.impl(name, operator.on_cpu, "CPU")
    library.impl(name, on_its_device(operator), "CUDA")
    torch.library.register_fake(f"fastprompt::{name}", operator.fake, lib=library)
    if gradient is not None:
        backward, setup = gradient
        torch.library.register_autograd(f"fastprompt::{name}", backward, setup_context=setup, lib=library)
    operator.overload = getattr(torch.ops.fastprompt, name).default


def on_its_device(operator: Operator) -> Fn:
    """With the device of its tensors as the current one; the current stream stays the caller's."""
    import torch

    def launch(*args: Any) -> Any:
        device = args[operator.place].device
        if device.index == torch.cuda.current_device():
            return operator.on_gpu(*args)
        with torch.cuda.device(device):
            return operator.on_gpu(*args)

    return launch


def of_formula(operator: Operator, library: Any) -> Gradient:
    """Differentiates the formula, behind an operator of its own."""
    import torch

    schema = ", ".join(operator.arguments)
    tensors = sum(argument.startswith("Tensor") for argument in operator.arguments)  # they come first

    def fake(grad: Any, needed: Any, *args: Any) -> Any:
        return [x.new_empty(x.shape) for x, n in zip(args, needed, strict=False) if n]

    def compute(grad: Any, needed: Any, *args: Any) -> Any:
        with torch.enable_grad():
            inputs = [x.detach().requires_grad_() if n else x for x, n in zip(args, needed, strict=False)]
            wanted = [x for x, n in zip(inputs, needed, strict=True) if n]
            out = operator.formula(*inputs, *args[tensors:])  # type: ignore[misc]
            found = torch.autograd.grad(out, wanted, grad, materialize_grads=True)
        return [g.contiguous() for g in found]

    name = library.define(f"{operator.name}_backward(Tensor grad, bool[] needed, {schema}) -> Tensor[]")
    for device in ("CPU", "CUDA"):
        library.impl(name, compute, device)
    torch.library.register_fake(f"fastprompt::{name}", fake, lib=library)
    overload = getattr(torch.ops.fastprompt, name).default

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.rest = inputs[tensors:]

    def backward(ctx: Any, grad: Any) -> Any:
        saved = ctx.saved_tensors
        needed = [n and x is not None for n, x in zip(ctx.needs_input_grad[:tensors], saved, strict=True)]
        found = iter(overload(grad.contiguous(), needed, *saved, *ctx.rest))
        return (*(next(found) if n else None for n in needed), *[None] * len(ctx.rest))

    return Gradient(backward, setup)


__all__ = ["OPERATORS", "Gradient", "Operator"]
