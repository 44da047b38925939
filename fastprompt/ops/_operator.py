"""``Operator``: the one place that asks what kind of array came in, on which device, and for which backend."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastprompt._runtime import current_backend, get_num_threads
from fastprompt.ops._axes import check
from fastprompt.ops._known import OPERATORS, add

Fn = Callable[..., Any]
Spec = tuple[Any, Any]  # shape and dtype of a result; the dtype is a name, or that of an argument
Asked = tuple[Fn, dict[str, Any]]  # a kernel and its fields


class Gradient(NamedTuple):
    """As ``torch.library.register_autograd`` takes them; of arguments and results of the operator."""

    backward: Fn
    setup: Fn


class Operator:
    """A function of arrays with a kernel for every kind of device. NumPy and torch both call it.

    >>> def double_kernel(*, x, out, threads):
    ...     np.multiply(x, 2, out=out)
    >>> double = Operator(
    ...     "double(Tensor x) -> Tensor",
    ...     out=lambda x: (x.shape, "float32"),
    ...     call=lambda x, out: (double_kernel, {"x": x, "out": out}),
    ...     reference=lambda x: x + x,
    ... )
    >>> double(np.ones(2, np.float32))
    array([2., 2.], dtype=float32)

    Arrays: ``call`` fills what ``out`` says. Tensors: torch's dispatcher, where all operators register when the first
    tensor comes, and then the same ``call``. With the backend "reference", ``reference`` computes, for both.

    Args:
        schema: of torch.
        axes: of tensors and lists, as :mod:`fastprompt.ops._axes` reads it, or a function that tells it of the
            arguments. Where a kernel checks its fields, on the CPU, it only words the error.
        out: of the arguments: shape and dtype of the result, or a list of such.
        call: ``call(*args, *results)``: the kernel for the CPU and its fields by name, but for ``threads``; or None,
            and it has filled the results itself. Without ``call`` the formula is all there is.
        check: of the arguments, on the CPU, before anything is computed: raises where values are wrong that a GPU would
            have to be waited for.
        takes: of the arguments: whether the kernels take them; what they do not is the formula's (the reference's).
        reference: the formula in NumPy. None: there is none, and the kernel computes.
        formula: the formula in torch: for the gradient, for what no kernel takes, and on a GPU without kernel.
        gpu: ``gpu(*args)``, the kernel for a GPU; None as its result leaves the call to the formula. With :meth:`into`
            it is called with ``out=``.
        flops: of the arguments: what ``torch.utils.flop_counter`` counts, where there is no formula to be counted.
        gradient: "formula", a :class:`Gradient`, or None: the results have none.
        arrays_only: it is called with NumPy arrays alone, and torch never hears of it.
    """

    def __init__(
        self,
        schema: str,
        *,
        axes: str | Fn = "",
        out: Fn,
        call: Fn | None = None,
        check: Fn | None = None,
        takes: Fn | None = None,
        reference: Fn | None = None,
        formula: Fn | None = None,
        gpu: Fn | None = None,
        gradient: Gradient | str | None = None,
        flops: Fn | None = None,
        arrays_only: bool = False,
    ) -> None:
        self.schema, self.axes, self.out, self.call, self.check, self.takes = schema, axes, out, call, check, takes
        self.reference, self.formula, self.gpu, self.gradient = reference, formula, gpu, gradient
        self.flops = flops
        self.name, _, rest = schema.partition("(")
        self.arguments = [a.strip() for a in rest.rpartition(") ->")[0].split(",")]
        self.names = [a.split()[-1] for a in self.arguments]
        self.place = next(k for k, a in enumerate(self.arguments) if a.startswith(("Tensor ", "Tensor(")))
        returns = rest.rpartition("-> ")[2]
        self.pack: Fn = first if returns == "Tensor" else nothing if returns == "()" else tuple
        self.overload: Any = None
        if not arrays_only:
            add(self)

    def __call__(self, *args: Any) -> Any:
        if not isinstance(args[self.place], np.ndarray):
            import fastprompt.ops._torch  # noqa: F401  see `torch`

            return self.overload(*args)
        if self.check is not None:
            self.check(*args)
        takes = self.takes
        if self.reference is not None and (
            current_backend() == "reference" or (takes is not None and not takes(*args))
        ):
            return self.by_reference(args)
        made = [np.empty(*spec) for spec in self.specs(args)]
        asked = self.call(*args, *made)  # type: ignore[misc]
        if asked is not None:
            kernel, fields = asked
            fields["threads"] = get_num_threads()
            kernel(**fields)
        return self.pack(made)

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
            launch(asked)

    def by_reference(self, args: Any) -> Any:
        """``reference`` of arrays in the memory of the CPU; results of the kind, dtypes and device of the arguments."""
        self.check_axes(args)
        like, found = args[self.place], self.reference(*map(on_host, args))  # type: ignore[misc]
        finish = as_array if isinstance(like, np.ndarray) else functools.partial(as_tensor, like.device)
        parts = [found] if self.pack is first else found
        return self.pack([finish(x, dtype) for x, (_, dtype) in zip(parts, self.specs(args), strict=True)])

    def specs(self, args: Any) -> list[Spec]:
        """Of all results."""
        found = self.out(*args)
        return [found] if self.pack is first else found

    # ------------------------------------------------------------ torch

    @property
    def torch(self) -> Any:
        """torch's operator."""
        # The first time registers all: torch.compile can run an import, and trace no lock.
        import fastprompt.ops._torch  # noqa: F401

        return self.overload

    def on_cpu(self, *args: Any) -> Any:
        try:
            return self.compute(*args)
        except Exception:
            self.check_axes(args)  # says it in the words of the arguments
            raise

    def check_axes(self, args: Any) -> None:
        text = self.axes(*args) if callable(self.axes) else self.axes
        if text:
            check(self.name, text, dict(zip(self.names, args, strict=True)))
        for shape, _ in self.specs(args):
            if any(isinstance(n, int) and n < 0 for n in shape):
                raise ValueError(f"{self.name}: a result would have a negative size, shape {tuple(shape)}")

    def compute(self, *args: Any) -> Any:
        if self.check is not None:
            self.check(*args)
        if current_backend() == "reference" and self.reference is not None:
            return self.by_reference(args)
        if self.call is None or (self.takes is not None and not self.takes(*args)):
            return self.by_formula(*args)
        if self.pack is first:  # 2 us less
            shape, dtype = self.out(*args)
            made = args[self.place].new_empty(shape, dtype=torch_dtype(dtype))
            asked = self.call(*args, made)
        else:
            parts = self.tensors(args)
            made, asked = self.pack(parts), self.call(*args, *parts)
        if asked is not None:
            kernel, fields = asked
            fields["threads"] = get_num_threads()
            kernel(**fields)
        return made

    def on_gpu(self, *args: Any) -> Any:
        if current_backend() == "reference" and (self.reference or self.formula):
            return self.by_reference(args) if self.reference else self.by_formula(*args)
        if self.gpu is None:
            return self.by_formula(*args)
        self.check_axes(args)
        found = self.gpu(*args)
        return self.by_formula(*args) if found is None and self.pack is not nothing else found

    def by_formula(self, *args: Any) -> Any:
        """Half precision in float32, and results in the dtypes of ``out``."""
        self.check_axes(args)
        if self.formula is None:
            raise ValueError(f"fastprompt.{self.name} has no kernel for a GPU: move its tensors with .cpu()")
        found = self.formula(*map(widened, args))
        parts = zip([found] if self.pack is first else found, self.specs(args), strict=True)
        return self.pack([x.to(torch_dtype(dtype)).contiguous() for x, (_, dtype) in parts])

    def tensors(self, args: Any) -> list[Any]:
        """For the results."""
        new = args[self.place].new_empty
        return [new(shape, dtype=torch_dtype(dtype)) for shape, dtype in self.specs(args)]

    def fake(self, *args: Any) -> Any:
        self.check_axes(args)
        return self.pack(self.tensors(args))


# How results are returned, by the end of the schema.


def first(made: list[Any]) -> Any:
    return made[0]


def nothing(made: list[Any]) -> None:
    return None


def launch(asked: Asked) -> Any:
    """For calls that are made of others, or look at what a kernel returns."""
    kernel, fields = asked
    return kernel(**fields, threads=get_num_threads())


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


def as_array(x: Any, dtype: Any) -> Any:
    return np.asarray(x, dtype)


def as_tensor(device: Any, x: Any, dtype: Any) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(x)).to(device, torch_dtype(dtype))


def widened(x: Any) -> Any:
    if isinstance(x, (list, tuple)):
        return [widened(item) for item in x]
    if hasattr(x, "data_ptr") and x.dtype in (torch_dtype("bfloat16"), torch_dtype("float16")):
        return x.float()
    return x


__all__ = ["OPERATORS", "Asked", "Gradient", "Operator", "launch"]
