"""The call into csrc/masks."""

from typing import Any

from fastprompt import _C
from fastprompt.ops._arrays import contiguous
from fastprompt.ops._operator import Asked
from fastprompt.ops.masks.taps import of_axes

KINDS = {"float32": "logits", "bool": "bytes", "uint8": "bytes", "packed": "bits"}  # of the kernel's, for each output


def resize_masks(
    logits: Any, size: Any, frame: Any, crop: Any, threshold: float, output: str, offset: float,
    masks: Any, area: Any, box: Any, stability: Any,
) -> Asked:  # fmt: skip
    (rows, row_weights), (columns, column_weights) = of_axes(tuple(logits.shape[1:]), size, frame, crop)
    return _C.resize_masks, dict(
        logits=contiguous(logits), rows_index=rows, rows_weight=row_weights, columns_index=columns,
        columns_weight=column_weights, threshold=threshold, offset=offset, kind=KINDS[output], out=masks, area=area,
        box=box, stability=stability,
    )  # fmt: skip


def resize_logits(logits: Any, size: Any, frame: Any, crop: Any, out: Any) -> Asked:
    (rows, row_weights), (columns, column_weights) = of_axes(tuple(logits.shape[1:]), size, frame, crop, single=True)
    return _C.resize_logits, dict(
        logits=contiguous(logits), rows_index=rows, rows_weight=row_weights, columns_index=columns,
        columns_weight=column_weights, out=out,
    )  # fmt: skip
