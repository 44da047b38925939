"""Attention as the nodes of exported files have it, for engines that carry their kernels: images lie channels first, and
what a call does not give is a tensor of one element. No launcher: fastprompt/export/_plans.py says what is launched.

Sums and softmax in float32; products in the type of the image, float32 ones as PRECISION says.
"""

import triton
import triton.language as tl


@triton.jit
def to_image_kernel(
    image, position, query, bias, lengths, acc, top, weight, count, tokens, per_split, shared_by, bias_stride,
    length_stride,
    C: tl.constexpr, BC: tl.constexpr, H: tl.constexpr, BJ: tl.constexpr, BN: tl.constexpr,
    HAS_POSITION: tl.constexpr, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Rows H T of a prompt mix the pixels of one split, with an online softmax. Grid (splits, row blocks, prompts)."""
    split, b = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c, j, tile = tl.arange(0, BC), tl.program_id(1) * BJ + tl.arange(0, BJ), tl.arange(0, BN)
    rows, t = H * tokens, j % tokens
    there = (j < rows) & (t < tl.load(lengths + b * length_stride))
    rows_at = (b * rows + j)[:, None] * C + c[None, :]
    q = tl.load(query + rows_at, mask=there[:, None] & (c < C)[None, :], other=0.0)
    image += b // shared_by * C * count
    m, w = tl.full((BJ,), -float("inf"), tl.float32), tl.zeros((BJ,), tl.float32)
    a = tl.zeros((BJ, BC), tl.float32)
    for first in range(split * per_split, tl.minimum((split + 1) * per_split, count), BN):
        n = first + tile
        at, inside = c[:, None] * count + n[None, :], (c < C)[:, None] & (n < count)[None, :]
        value = tl.load(image + at, mask=inside, other=0.0)
        key = value
        if HAS_POSITION:
            key += tl.load(position + at, mask=inside, other=0.0)
        score = tl.dot(q, key, input_precision=PRECISION)
        if HAS_BIAS:
            added = bias + b * bias_stride + t[:, None] * count + n[None, :]
            score += tl.load(added, mask=there[:, None] & (n < count)[None, :], other=0.0).to(tl.float32)
        score = tl.where((n < count)[None, :], score, -float("inf"))
        new_m = tl.maximum(m, tl.max(score, 1))
        peak = tl.where(new_m == -float("inf"), 0.0, new_m)  # a row that may look at nothing yet
        p, shrink = tl.exp(score - peak[:, None]), tl.exp(m - peak)
        w = w * shrink + tl.sum(p, 1)
        a = tl.dot(p.to(value.dtype), tl.trans(value), a * shrink[:, None], input_precision=PRECISION)
        m = new_m
    part = (b * tl.num_programs(0) + split) * rows + j
    tl.store(acc + part[:, None] * C + c[None, :], a, mask=(j < rows)[:, None] & (c < C)[None, :])
    tl.store(top + part, tl.where(there, m, -float("inf")), mask=j < rows)
    tl.store(weight + part, w, mask=j < rows)


@triton.jit
def merge_kernel(acc, top, weight, out, splits, rows, C: tl.constexpr, BC: tl.constexpr, S: tl.constexpr):
    """Merges the splits of a row; 0 for one that looked at nothing. Grid (rows, prompts)."""
    j, b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    c, s = tl.arange(0, BC), tl.arange(0, S)
    part = (b * splits + s) * rows + j
    m = tl.load(top + part, mask=s < splits, other=-float("inf"))
    peak = tl.max(m, 0)
    scale = tl.exp(m - tl.where(peak == -float("inf"), 0.0, peak))
    total = tl.sum(scale * tl.load(weight + part, mask=s < splits, other=0.0), 0)
    a = tl.load(acc + part[:, None] * C + c[None, :], mask=(s < splits)[:, None] & (c < C)[None, :], other=0.0)
    tl.store(out + (b * rows + j) * C + c, tl.sum(a * scale[:, None], 0) / tl.maximum(total, 1e-38), mask=c < C)


@triton.jit
def to_prompt_kernel(
    image, position, key, bias, value, out_bias, lengths, count, tokens, shared_by, length_stride, out,
    C: tl.constexpr, BC: tl.constexpr, H: tl.constexpr, BT: tl.constexpr, BN: tl.constexpr,
    HAS_POSITION: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BN pixels attend to the prompt tokens of every head, at most BT. Grid (tiles of pixels, prompts)."""
    b = tl.program_id(1).to(tl.int64)
    c, t, n = tl.arange(0, BC), tl.arange(0, BT), tl.program_id(0) * BN + tl.arange(0, BN)
    at, inside = c[:, None] * count + n[None, :], (c < C)[:, None] & (n < count)[None, :]
    x = tl.load(image + b // shared_by * C * count + at, mask=inside, other=0.0)
    query = x
    if HAS_POSITION:
        query += tl.load(position + at, mask=inside, other=0.0)
    there = (t < tokens) & (t < tl.load(lengths + b * length_stride))
    new = tl.zeros((BC, BN), tl.float32) + tl.load(out_bias + c, mask=c < C, other=0.0).to(tl.float32)[:, None]
    for h in range(H):
        row = (b * H + h) * tokens + t
        rows = tl.load(key + row[:, None] * C + c[None, :], mask=there[:, None] & (c < C)[None, :], other=0.0)
        score = tl.dot(rows, query, input_precision=PRECISION)
        score += tl.load(bias + row, mask=there, other=0.0).to(tl.float32)[:, None]
        score = tl.where(there[:, None], score, -float("inf"))
        peak = tl.max(score, 0, keep_dims=True)
        p = tl.exp(score - tl.where(peak == -float("inf"), 0.0, peak))
        p = (p / tl.maximum(tl.sum(p, 0, keep_dims=True), 1e-30)).to(x.dtype)
        mixed = tl.load(value + row[None, :] * C + c[:, None], mask=there[None, :] & (c < C)[:, None], other=0.0)
        new = tl.dot(mixed, p, new, input_precision=PRECISION)
    tl.store(out + b * C * count + at, new, mask=inside)
