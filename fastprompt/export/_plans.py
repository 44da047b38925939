"""What a plugin launches for a node: kernels as PTX, and shapes, scratch memory, grids and arguments as functions of
the sizes of its inputs. csrc/export/tensorrt/plan.h reads it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from fastprompt.export import _aot

SEPARATOR = "\n// next module\n"
TYPES = {1: "f32", 6: "i32", 7: "i64", 9: "bool", 10: "f16", 16: "bf16"}  # ONNX's numbers
POINTERS = {"f32": "*fp32", "i32": "*i32", "i64": "*i64", "bool": "*u8", "f16": "*fp16", "bf16": "*bf16"}
BYTES = {"f32": 4, "f16": 2, "bf16": 2}
SPLITS = 32  # of an image's pixels: one prompt alone would fill 1 of 132 multiprocessors


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
    kernel: _aot.Kernel
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


def cosine(given: list[Tensor], attributes: dict[str, Any], precision: str) -> Plan:
    from fastprompt.kernels import pruning

    tokens, prompts = given
    channels = tokens.known(2)
    need(channels is not None and tokens.type == prompts.type != "i64", "the channels must be fixed")
    batch, count, others = Size.of(0, 0), Size.of(0, 1), Size.of(1, 1)
    prompt_stride = (Size.of(1, 0) - 1).least(1) * others * channels  # 0: one set of prompts for all images
    tile, piece = pruning.scores_tile(BYTES[tokens.type])
    constants = {"C": channels, "row_stride": channels, "BN": tile, "BC": piece}
    constants["PIECES"] = min(8, -(-channels // piece))  # type: ignore[operator]
    strides = f" {multiple(channels)}" * 2
    types = pointers([tokens.type, prompts.type, tokens.type]) + " i32 i32" + strides
    kernel = _aot.compiled(pruning.scores_kernel, types, constants, warps=1, stages=1)
    arguments = ["i0", "i1", "o0", *map(number, (count, others, prompt_stride, count * channels))]
    launch = Launch(kernel, (count.up(tile), batch, 1), arguments)
    return Plan([tokens.type, prompts.type], [(tokens.type, [batch, count])], [], [launch])


def prune(given: list[Tensor], attributes: dict[str, Any], precision: str) -> Plan:
    from fastprompt.kernels import pruning

    tokens, scores, always = given
    channels, most, kept = tokens.known(2), tokens.largest[1], attributes["count"]
    need(channels is not None and most is not None, "the channels must be fixed, and the tokens have a range")
    need(most <= 16384, f"at most 16384 tokens, got {most}")  # type: ignore[operator]
    need(scores.type == "f32" and always.type == "bool", "scores must be float32 and always bool")
    batch, count = Size.of(0, 0), Size.of(0, 1)
    everyone = max(32, power(most))  # type: ignore[arg-type]
    stride = Size(0) if always.absent else (Size.of(2, 0) - 1).least(1) * count
    constants = {"C": channels, "row_stride": channels, "ALL": everyone, "BN": 32, "BC": 64}
    constants |= {"HAS_ALWAYS": not always.absent, "HAS_LIMITS": False, "MIXED": False, "limits": None, "samples": 0}
    types = pointers([tokens.type, "f32", "bool", tokens.type, "i64"]) + f" i32 i32 i32 {multiple(channels)} i32"
    warps = 4 if everyone <= 2048 else 8 if everyone <= 8192 else 16  # no spills
    kernel = _aot.compiled(pruning.prune_kernel, types, constants, warps)
    numbers = (count, kept, kept, count * channels, stride)
    launch = Launch(kernel, (count.up(32), batch, 1), ["i0", "i1", "i2", "o0", "o1", *map(number, numbers)])
    outputs = [(tokens.type, [batch, kept, channels]), ("i64", [batch, kept])]
    return Plan([tokens.type, "f32", "bool"], outputs, [], [launch])


def need_registers(kind: str, precision: str, width: int | None) -> None:
    """Products of three tf32 parts hold rows three times: wide ones do not fit into registers."""
    why = "float32 rows of more than 64 numbers spill registers: precision='tf32' or a half has kernels"
    need(kind != "f32" or precision == "tf32" or (width or 0) <= 64, why)


def attention_sizes(image: Tensor, rows: Tensor, position: Tensor) -> tuple[int, int, int]:
    """Channels, heads and the most prompt tokens."""
    channels, heads, tokens = image.known(1), rows.known(1), rows.largest[2]
    need(channels is not None and heads is not None and tokens is not None, "channels and heads must be fixed")
    need(position.absent or position.known(0) == 1, "position must be one for all images")
    need(channels <= 256, f"at most 256 channels, got {channels}")  # type: ignore[operator]
    return channels, heads, tokens  # type: ignore[return-value]


def prompt_to_image(given: list[Tensor], attributes: dict[str, Any], precision: str) -> Plan:
    from fastprompt.kernels import attention_nodes as nodes

    image, position, query, bias = given[:4]
    channels, heads, _ = attention_sizes(image, query, position)
    types, wide = [x.type for x in given], power(channels)
    need(len({*types[:4]}) == 1 and types[4] == "i64", "all inputs must be of one type")
    pixels, prompts, tokens = Size.of(0, 2) * Size.of(0, 3), Size.of(2, 0), Size.of(2, 2)
    rows = tokens * heads
    per_split = pixels.up(SPLITS).up(32) * 32
    splits = pixels.up(per_split)
    bias_stride = Size(0) if bias.absent else (Size.of(3, 0) - 1).least(1) * tokens * pixels
    need_registers(types[0], precision, channels)
    block, warps, stages = (32, 8 if wide > 64 else 4, 1) if types[0] == "f32" else (64, 8, 2)
    constants: dict[str, Any] = {"C": channels, "BC": wide, "H": heads, "BJ": block, "BN": 32}
    constants |= {"HAS_POSITION": not position.absent, "HAS_BIAS": not bias.absent, "PRECISION": precision}
    signature = pointers([*types, *["f32"] * 3]) + " i32" * 6
    kernel = _aot.compiled(nodes.to_image_kernel, signature, constants, warps, stages)
    sizes = (pixels, tokens, per_split, prompts // Size.of(0, 0), bias_stride, (Size.of(4, 0) - 1).least(1))
    first = Launch(
        kernel, (splits, rows.up(block), prompts),
        ["i0", "i1", "i2", "i3", "i4", "s0", "s1", "s2", *map(number, sizes)],
    )  # fmt: skip
    merge = _aot.compiled(
        nodes.merge_kernel, pointers(["f32"] * 3 + [types[0]]) + " i32 i32",
        {"C": channels, "BC": wide, "S": SPLITS}, warps=4,
    )  # fmt: skip
    second = Launch(merge, (rows, prompts, 1), ["s0", "s1", "s2", "o0", number(splits), number(rows)])
    each = prompts * SPLITS * rows * 4
    outputs = [(types[0], [prompts, heads, tokens, channels])]
    return Plan(types, outputs, [each * channels, each, each], [first, second])


def image_to_prompt(given: list[Tensor], attributes: dict[str, Any], precision: str) -> Plan:
    from fastprompt.kernels import attention_nodes as nodes

    image, position, key = given[:3]
    channels, heads, most = attention_sizes(image, key, position)
    types = [x.type for x in given]
    need(len({*types[:6]}) == 1 and types[6] == "i64", "all inputs must be of one type")
    need(most <= 128, f"at most 128 prompt tokens, got {most}")
    pixels, prompts, tokens = Size.of(0, 2) * Size.of(0, 3), Size.of(2, 0), Size.of(2, 2)
    need_registers(types[0], precision, channels)
    warps = 8 if types[0] == "f32" and channels > 64 else 4
    constants: dict[str, Any] = {"C": channels, "BC": power(channels), "H": heads, "BT": power(most), "BN": 32}
    constants |= {"HAS_POSITION": not position.absent, "PRECISION": precision}
    signature = pointers(types) + " i32" * 4 + " " + pointers([types[0]])
    kernel = _aot.compiled(nodes.to_prompt_kernel, signature, constants, warps, stages=1)
    sizes = (pixels, tokens, prompts // Size.of(0, 0), (Size.of(6, 0) - 1).least(1))
    launch = Launch(kernel, (pixels.up(32), prompts, 1), [*(f"i{n}" for n in range(7)), *map(number, sizes), "o0"])
    return Plan(types, [(types[0], [prompts, channels, Size.of(0, 2), Size.of(0, 3)])], [], [launch])


def relative_position(given: list[Tensor], attributes: dict[str, Any], precision: str) -> Plan:
    from fastprompt.kernels import attention_nodes as nodes

    q, pad_key = given[0], given[5]
    heads, width = q.known(2), q.known(3)
    need(heads is not None and width is not None, "heads and their width must be fixed")
    need(len({x.type for x in given}) == 1 and width <= 128, "all inputs must be of one type, heads of at most 128")  # type: ignore[operator]
    (rows, columns), (wy, wx), kind = attributes["size"], attributes["window"], q.type
    need(max(wy, wx) <= 128, "windows of at most 128 x 128")
    windows = -(-rows // wy) * -(-columns // wx)
    sizes = {"ROWS": rows, "COLUMNS": columns, "WY": wy, "WX": wx, "H": heads, "D": width, "BD": power(width)}  # type: ignore[arg-type]
    sizes |= {"PRECISION": precision}
    lines = _aot.compiled(
        nodes.position_kernel, pointers([kind] * 3 + ["f32"] * 2), {**sizes, "BQ": 32, "BK": power(max(wy, wx))},
        warps=4,
    )  # fmt: skip
    need_registers(kind, precision, width)
    tile = 16 if wy * wx < 32 else 32 if kind == "f32" or width > 64 else 64  # type: ignore[operator]
    constants = {**sizes, "BQ": tile, "BX": power(wx), "HAS_PAD": not pad_key.absent}
    attend = _aot.compiled(
        nodes.window_kernel, pointers([kind] * 5 + ["f32"] * 2 + [kind]) + " fp32", constants, warps=4
    )
    images = Size.of(0, 0)
    grid = (-(-wy * wx // tile), windows, images * heads)
    first = Launch(lines, (rows + columns, heads, images), ["i0", "i3", "i4", "s0", "s1"])
    second = Launch(
        attend, grid, ["i0", "i1", "i2", "i5", "i6", "s0", "s1", "o0", f"f{attributes['scale']!r}"]
    )  # fmt: skip
    scratch = [images * (4 * rows * columns * heads * w) for w in (wy, wx)]
    return Plan([kind] * 7, [(kind, [images, rows * columns, heads, width])], scratch, [first, second])


PLANS: dict[str, Callable[[list[Tensor], dict[str, Any], str], Plan]] = {
    "CosineScores": cosine,
    "PruneTokens": prune,
    "PromptToImageAttention": prompt_to_image,
    "ImageToPromptAttention": image_to_prompt,
    "RelativePositionAttention": relative_position,
}
# Nodes that take float16 and bfloat16 as products do.
HALVES = {"PromptToImageAttention", "ImageToPromptAttention", "RelativePositionAttention"}
