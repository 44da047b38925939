"""The calls into csrc/pruning, which moves rows of any dtype."""

from typing import Any

from fastprompt import _C
from fastprompt._runtime import is_tensor
from fastprompt.ops._arrays import contiguous
from fastprompt.ops._operator import Asked, launch


def in_place(x: Any) -> bool:
    """Whether rows of ``x`` (B, N, C) can be read and written where they are; a view like ``x[:, 1:]`` can."""
    if is_tensor(x):
        return x.stride(2) == 1 or x.shape[2] == 1
    whole = not any(s % x.itemsize for s in x.strides)  # not a field of packed records
    return whole and (x.strides[2] == x.itemsize or x.shape[2] == 1)


def whole_rows(x: Any) -> Any:
    """``x`` with the channels of a row side by side."""
    return x if in_place(x) else contiguous(x)


def cosine_scores(tokens: Any, prompts: Any, out: Any) -> Asked:
    tokens, prompts = whole_rows(tokens), contiguous(prompts)
    return _C.cosine_scores, dict(tokens=tokens, prompts=prompts, out=out)


def gather_rows(rows: Any, index: Any, out: Any) -> Asked:
    return _C.gather_rows, dict(rows=whole_rows(rows), index=contiguous(index), out=out)


def scatter_rows(base: Any, rows: Any, index: Any, count: int, out: Any) -> Asked:
    """``base`` is None for zeros, ``out`` itself to leave the other rows alone."""
    base = base if base is None or base is out else whole_rows(base)
    rows, index = whole_rows(rows), contiguous(index)
    return _C.scatter_rows, dict(base=base, rows=rows, index=index, out=out)


def scatter_rows_in_place(base: Any, rows: Any, index: Any) -> Asked | None:
    if not is_tensor(base) or (in_place(base) and 0 not in base.stride()):
        return scatter_rows(base, rows, index, base.shape[1], base)
    out = base.new_empty(base.shape)
    launch(scatter_rows(base, rows, index, base.shape[1], out))
    base.copy_(out)  # which refuses an expanded one
    return None


def prune_rows(
    tokens: Any, scores: Any, always: Any, counts: Any, count: int, background: float, out: Any, index: Any
) -> Asked:
    fields = {"tokens": whole_rows(tokens), "scores": contiguous(scores), "background": background}
    fields |= {"always": contiguous(always), "counts": contiguous(counts), "out": out, "index": index}
    return _C.prune_tokens, fields


def match_tokens(metric: Any, merged: int, spared: int, kept: Any, target: Any) -> Asked:
    return _C.match_tokens, dict(metric=contiguous(metric), merged=merged, spared=spared, kept=kept, target=target)


def merge_rows(tokens: Any, size: Any, kept: Any, target: Any, out: Any) -> Asked:
    tokens, size, kept, target = (contiguous(x) for x in (tokens, size, kept, target))
    return _C.merge_rows, dict(tokens=tokens, size=size, kept=kept, target=target, out=out)
