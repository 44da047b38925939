"""Masks at the size of the picture."""

from typing import Any

from fastprompt.export._nodes._body import BOOL, FLOAT, INT64, Graph, Value
from fastprompt.export._nodes._record import Arguments, Record, translates

UINT8 = 2


def resize(g: Graph, logits: Value) -> list[Value]:
    g.like = logits
    frame, crop = (list(g.a.get(k, [])) for k in ("frame", "crop"))
    x = logits.unsqueezed(1)
    enlarged = lambda x, size: g.Resize(  # noqa: E731
        x, None, None, g.Concat(x.shape(0, 2), size, axis=0), mode="linear",
        coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    if frame:
        x = g.Slice(enlarged(x, frame), [0, 0], crop or frame, [2, 3])
    full = g.Squeeze(enlarged(x, "@size"), [1])
    marks = (full > "@threshold").cast(INT64)
    limit = g.value("@threshold")
    above, below = (
        g.ReduceSum((full > edge).cast(FLOAT), [1, 2], keepdims=0) for edge in (limit + "@offset", limit - "@offset")
    )
    area = g.ReduceSum(marks, [1, 2], keepdims=0)
    rows, columns = (g.ReduceMax(marks, [axis], keepdims=0) for axis in (2, 1))
    lows = [g.ArgMax(x, axis=1, keepdims=1) for x in (columns, rows)]
    highs = [g.ArgMax(x, axis=1, keepdims=1, select_last_index=1) for x in (columns, rows)]
    box = g.Concat(*lows, *highs, axis=1) * g.ReduceMax(rows, [1], keepdims=1)
    return [masks(g, full, marks), area, box, above / below]


def masks(g: Graph, full: Value, marks: Value) -> Value:
    if "packed" not in g.a:
        return full
    if not g.a["packed"]:
        return marks.cast(UINT8)
    padded = g.Pad(marks, [0, 0, 0, 0, 0, -g.a["size"][1] % 8])
    bits = padded.reshape([0, 0, -1, 8]) * [1 << n for n in range(8)]
    return g.ReduceSum(bits, [3], keepdims=0).cast(UINT8)


SIZES = "size:I frame:I crop:I threshold:f offset:f"
RESULTS = "area:i box:i stability:f"
LOGITS = Record("ResizeLogits", "logits:a", f"masks:f {RESULTS}", SIZES, body=resize)
MASKS = Record("ResizeMasks", "logits:a", f"masks:u {RESULTS}", f"{SIZES} packed:i", body=resize)  # 0 and 1, or bits


@translates("resize_masks")
def of_resize_masks(g: Any, a: Arguments) -> Any:
    if a["output"] == "float32":
        return g.ours(LOGITS, **a)
    found, *rest = g.ours(MASKS, **a, packed=a["output"] == "packed")
    return [found.cast(BOOL) if a["output"] == "bool" else found, *rest]
