"""What a plugin launches for a node: kernels as PTX, and shapes, scratch memory, grids and arguments as functions of
the sizes of its inputs. csrc/export/tensorrt/plan.h reads it."""

from typing import Any, NamedTuple

from fastprompt.export._kernels import aot

SEPARATOR = "\n// next module\n"
TYPES = {1: "f32", 6: "i32", 7: "i64", 9: "bool", 10: "f16", 16: "bf16"}  # ONNX's numbers
POINTERS = {"f32": "*fp32", "i32": "*i32", "i64": "*i64", "bool": "*u8", "f16": "*fp16", "bf16": "*bf16"}
BYTES = {"f32": 4, "f16": 2, "bf16": 2}


class Size:
    """An expression of sizes, in postfix order: ``Size.of(0, 1) // 2`` is half of axis 1 of input 0."""

    def __init__(self, text: Any) -> None:
        self.text = str(text)

    @staticmethod
    def of(place: int, axis: int) -> "Size":
        return Size(f"{place}.{axis}")

    def _with(self, other: Any, sign: str) -> "Size":
        return Size(f"{self.text},{other},{sign}")

    def __add__(self, other: Any) -> "Size":
        return self._with(other, "+")

    def __sub__(self, other: Any) -> "Size":
        return self._with(other, "-")

    def __mul__(self, other: Any) -> "Size":
        return self._with(other, "*")

    def __floordiv__(self, other: Any) -> "Size":
        return self._with(other, "~")

    def up(self, other: Any) -> "Size":
        """The quotient rounded up."""
        return self._with(other, "/")

    def least(self, other: Any) -> "Size":
        return self._with(other, "<")

    def __str__(self) -> str:
        return self.text


class Tensor(NamedTuple):
    """An input: what is known of it before it is run."""

    type: str  # as in TYPES
    largest: tuple[int | None, ...]  # sizes; None: unknown
    fixed: tuple[bool, ...]

    def known(self, axis: int) -> int | None:
        """The size where it is always the same."""
        return self.largest[axis] if len(self.largest) > axis and self.fixed[axis] else None

    @property
    def absent(self) -> bool:
        """One element stands for what is not given."""
        return all(self.fixed) and all(n == 1 for n in self.largest)


class Launch(NamedTuple):
    kernel: aot.Kernel
    grid: tuple[Any, Any, Any]
    arguments: list[str]


class Plan(NamedTuple):
    inputs: list[str]
    outputs: list[tuple[str, list[Any]]]
    scratch: list[Any]  # bytes
    launches: list[Launch]

    @property
    def text(self) -> str:
        lines = [f"inputs {' '.join(self.inputs)}"]
        lines += [f"output {kind} {' '.join(map(str, shape))}" for kind, shape in self.outputs]
        lines += [f"scratch {size}" for size in self.scratch]
        for k, grid, arguments in self.launches:
            lines.append(f"launch {k.name} {k.threads} {k.shared} {' '.join(map(str, [*grid, *arguments]))}")
        return "\n".join(lines) + "\n"

    @property
    def ptx(self) -> str:
        return SEPARATOR.join(launch.kernel.ptx for launch in self.launches)


class NoPlan(Exception):
    """Why a node gets no kernels of its own."""


def need(holds: bool, why: str) -> None:
    if not holds:
        raise NoPlan(why)


def power(n: int) -> int:
    return max(16, 1 << (n - 1).bit_length())


def pointers(tensors: list[str]) -> str:
    return " ".join(POINTERS[x] for x in tensors)


def number(x: Any) -> str:
    return f"n{x}"


def multiple(channels: int | None) -> str:
    """The type of a stride of whole rows: vectors are read where it is known to be a multiple of 16."""
    return "i32" if (channels or 1) % 16 else "i32!"


def need_registers(kind: str, precision: str, width: int | None) -> None:
    """Products of three tf32 parts hold rows three times: wide ones do not fit into registers."""
    why = "float32 rows of more than 64 numbers spill registers: precision='tf32' or a half has kernels"
    need(kind != "f32" or precision == "tf32" or (width or 0) <= 64, why)
