"""Attention as the nodes of exported files have it, for engines that carry their kernels: images lie channels first,
and what a call does not give is a tensor of one element. No launcher: fastprompt/export/_plans.py says what to launch.

Sums and softmax in float32; products in the type of the image, float32 ones as PRECISION says.
"""

import triton.language as tl
from fastprompt.kernels.jit import jit


@jit
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


@jit
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


@jit
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


@jit
def position_kernel(
    q, rel_h, rel_w, bias_y, bias_x,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WY: tl.constexpr, WX: tl.constexpr, H: tl.constexpr, D: tl.constexpr,
    BD: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """q . rel[q's place - k's place] for all places k of an axis, in windows of WY x WX: one line of queries, which
    have that place in common. Grid (rows and columns, heads, images)."""
    line, h, b = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    along_y = line < ROWS  # a row of queries: the places of keys along y
    line = tl.where(along_y, line, line - ROWS)
    window, length = tl.where(along_y, WY, WX), tl.where(along_y, COLUMNS, ROWS)
    first, step = tl.where(along_y, line * COLUMNS, line), tl.where(along_y, 1, COLUMNS)
    d, k = tl.arange(0, BD), tl.arange(0, BK)
    place = line % window - k + window - 1
    table = rel_h if along_y else rel_w
    out = bias_y if along_y else bias_x
    used = (k < window)[None, :] & (d < D)[:, None]
    rel = tl.load(table + place[None, :] * D + d[:, None], mask=used, other=0.0)
    for start in range(0, length, BQ):
        i = start + tl.arange(0, BQ)
        n = b * ROWS * COLUMNS + first + i * step
        there = i < length
        x = tl.load(q + (n * H + h)[:, None] * D + d[None, :], mask=there[:, None] & (d < D)[None, :], other=0.0)
        score = tl.dot(x, rel, input_precision=PRECISION)
        tl.store(out + (n * H + h)[:, None] * window + k[None, :], score, mask=there[:, None] & (k < window)[None, :])


@jit
def window_kernel(
    q, k, v, pad_key, pad_value, bias_y, bias_x, out, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WY: tl.constexpr, WX: tl.constexpr, H: tl.constexpr, D: tl.constexpr,
    BD: tl.constexpr, BQ: tl.constexpr, BX: tl.constexpr, HAS_PAD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BQ queries of a window attend to its keys, a row of them at a time. Keys outside the image are pad_key and
    pad_value. Grid (tiles of queries, windows, images and heads)."""
    across: tl.constexpr = (COLUMNS + WX - 1) // WX
    h, b = tl.program_id(2) % H, (tl.program_id(2) // H).to(tl.int64) * ROWS * COLUMNS
    top, left = tl.program_id(1) // across * WY, tl.program_id(1) % across * WX
    i, d, kx = tl.program_id(0) * BQ + tl.arange(0, BQ), tl.arange(0, BD), tl.arange(0, BX)
    y, x = top + i // WX, left + i % WX
    there = (i < WY * WX) & (y < ROWS) & (x < COLUMNS)
    row = (b + y * COLUMNS + x) * H + h
    at = row[:, None] * D + d[None, :]
    query = tl.load(q + at, mask=there[:, None] & (d < D)[None, :], other=0.0)
    by_x = tl.load(bias_x + row[:, None] * WX + kx[None, :], mask=there[:, None] & (kx < WX)[None, :], other=0.0)
    m, w = tl.full((BQ,), -float("inf"), tl.float32), tl.zeros((BQ,), tl.float32)
    a = tl.zeros((BQ, BD), tl.float32)
    for ky in range(WY):
        inside = (kx < WX) & (left + kx < COLUMNS) & (top + ky < ROWS)
        key_at = ((b + (top + ky) * COLUMNS + left + kx) * H + h)[:, None] * D + d[None, :]
        loaded = inside[:, None] & (d < D)[None, :]
        key = tl.load(k + key_at, mask=loaded, other=0.0)
        value = tl.load(v + key_at, mask=loaded, other=0.0)
        if HAS_PAD:
            outside = ((kx < WX) & ~inside)[:, None] & (d < D)[None, :]
            pad_at = h * D + d[None, :] + 0 * kx[:, None]
            key = tl.where(inside[:, None], key, tl.load(pad_key + pad_at, mask=outside, other=0.0))
            value = tl.where(inside[:, None], value, tl.load(pad_value + pad_at, mask=outside, other=0.0))
        score = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale + by_x
        score += tl.load(bias_y + row * WY + ky, mask=there, other=0.0)[:, None]
        score = tl.where((kx < WX)[None, :], score, -float("inf"))
        new_m = tl.maximum(m, tl.max(score, 1))
        p, shrink = tl.exp(score - new_m[:, None]), tl.exp(m - new_m)
        w = w * shrink + tl.sum(p, 1)
        a = tl.dot(p.to(value.dtype), value, a * shrink[:, None], input_precision=PRECISION)
        m = new_m
    tl.store(out + at, a / w[:, None], mask=there[:, None] & (d < D)[None, :])
