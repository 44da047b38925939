"""Gradient of relative-position attention between tokens of a list on a GPU, which relative_position_backward launches.
The one-hot places of the keys pick the biases of a query, and collect their gradients, as matrix products."""

import triton.language as tl
from fastprompt.kernels.encoder_relative_parts import (
    LOG2E,
    add_to_keys,
    block_of,
    both_parts,
    halves,
    one_hot,
    picked,
    place_of,
    product,
    times_table,
    write_rows,
)
from fastprompt.kernels.jit import jit


@jit
def listed_keys_kernel(
    q, k, v, coordinates, grad, far, log_weight, delta, key_grad, value_grad, image_step, token_step, head_step,
    place_step, scale, count,
    HEADS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr, D0: tl.constexpr,
    D1: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BN keys and all queries of a head. Grid (blocks x heads x images)."""
    block, head, image = block_of(count, HEADS, BN)
    n = block * BN + tl.arange(0, BN)
    there, token = n < count, tl.minimum(n, count - 1)
    row, column = place_of(coordinates + image * place_step, token, HEIGHT, WIDTH)
    one_h, one_w = one_hot(row, BH, tl.bfloat16), one_hot(column, BW, tl.bfloat16)
    start, rows = image * image_step + head * head_step, image * count * (HEADS * D) + head * D
    q += start
    grad += rows
    key, key1 = both_parts(k + start, token * token_step, D, D0, D1)
    value, value1 = both_parts(v + start, token * token_step, D, D0, D1)
    own = (image * HEADS + head) * count
    far += own * (HEIGHT + WIDTH)
    log_weight += own
    delta += own
    dk, dv = tl.zeros((BN, D0), tl.float32), tl.zeros((BN, D0), tl.float32)
    dk1 = tl.zeros((BN, D1 if D1 > 0 else 16), tl.float32)
    dv1 = tl.zeros((BN, D1 if D1 > 0 else 16), tl.float32)
    for first in range(0, count, BQ):
        i = first + tl.arange(0, BQ)
        at = tl.minimum(i, count - 1)
        query, query1 = both_parts(q, at * token_step, D, D0, D1)
        s = product(key, key1, query, query1, D1, PRECISION) * (scale * LOG2E)
        high, low = halves(far + at * (HEIGHT + WIDTH), HEIGHT, BH)
        s = tl.dot(one_h, tl.trans(low), tl.dot(one_h, tl.trans(high), s))
        high, low = halves(far + at * (HEIGHT + WIDTH) + HEIGHT, WIDTH, BW)
        s = tl.dot(one_w, tl.trans(low), tl.dot(one_w, tl.trans(high), s))
        weight = tl.load(log_weight + i, mask=i < count, other=float("inf")) * LOG2E
        g, g1 = both_parts(grad, at * (HEADS * D), D, D0, D1)
        dk, dk1, dv, dv1 = add_to_keys(
            s, weight, tl.load(delta + at), query, query1, g, g1, value, value1, dk, dk1, dv, dv1, D1, PRECISION
        )
    write_rows(key_grad + rows, token * (HEADS * D), there, dk * scale, dk1 * scale, D, D0, D1)
    write_rows(value_grad + rows, token * (HEADS * D), there, dv, dv1, D, D0, D1)


@jit
def listed_queries_kernel(
    q, k, v, coordinates, grad, far, log_weight, delta, rel_h, rel_w, query_grad, far_grad, image_step, token_step,
    head_step, place_step, scale, count,
    HEADS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr, D0: tl.constexpr,
    D1: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr, BR: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """BQ queries and all keys of a head. Grid (blocks x heads x images)."""
    block, head, image = block_of(count, HEADS, BQ)
    i = block * BQ + tl.arange(0, BQ)
    valid, token = i < count, tl.minimum(i, count - 1)
    coordinates += image * place_step
    start, rows = image * image_step + head * head_step, image * count * (HEADS * D) + head * D
    k += start
    v += start
    query, query1 = both_parts(q + start, token * token_step, D, D0, D1)
    g, g1 = both_parts(grad + rows, token * (HEADS * D), D, D0, D1)
    own = (image * HEADS + head) * count
    at = own * (HEIGHT + WIDTH) + token * (HEIGHT + WIDTH)
    high_h, low_h = halves(far + at, HEIGHT, BH)
    high_w, low_w = halves(far + at + HEIGHT, WIDTH, BW)
    weight, mean = tl.load(log_weight + own + token) * LOG2E, tl.load(delta + own + token)
    dq, dq1 = tl.zeros((BQ, D0), tl.float32), tl.zeros((BQ, D1 if D1 > 0 else 16), tl.float32)
    down, right = tl.zeros((BQ, BH), tl.float32), tl.zeros((BQ, BW), tl.float32)
    for first in range(0, count, BN):
        n = first + tl.arange(0, BN)
        there, n = n < count, tl.minimum(n, count - 1)
        row, column = place_of(coordinates, n, HEIGHT, WIDTH)
        key, key1 = both_parts(k, n * token_step, D, D0, D1)
        s = product(query, query1, key, key1, D1, PRECISION) * (scale * LOG2E)
        s = picked(high_w, low_w, column, picked(high_h, low_h, row, s, BH), BW)
        p = tl.where(there[None, :], tl.exp2(s - weight[:, None]), 0.0)
        value, value1 = both_parts(v, n * token_step, D, D0, D1)
        ds = (p * (product(g, g1, value, value1, D1, PRECISION) - mean[:, None])).to(key.dtype)
        dq = tl.dot(ds, key, dq, input_precision=PRECISION)
        if D1 > 0:
            dq1 = tl.dot(ds, key1, dq1, input_precision=PRECISION)
        down = tl.dot(ds, one_hot(row, BH, key.dtype), down, input_precision=PRECISION)
        right = tl.dot(ds, one_hot(column, BW, key.dtype), right, input_precision=PRECISION)
    y, x = tl.arange(0, BH), tl.arange(0, BW)
    far_grad += at
    tl.store(far_grad[:, None] + y[None, :], down, mask=valid[:, None] & (y < HEIGHT)[None, :])
    tl.store(far_grad[:, None] + HEIGHT + x[None, :], right, mask=valid[:, None] & (x < WIDTH)[None, :])
    tl.debug_barrier()  # other threads of this program read what was written
    y, x = place_of(coordinates, token, HEIGHT, WIDTH)
    dq, dq1 = dq * scale, dq1 * scale
    dq, dq1 = times_table(dq, dq1, rel_h, y, far_grad, 1, query.dtype, HEIGHT, D, D0, D1, BR, PRECISION)
    dq, dq1 = times_table(dq, dq1, rel_w, x, far_grad + HEIGHT, 1, query.dtype, WIDTH, D, D0, D1, BR, PRECISION)
    write_rows(query_grad + rows, token * (HEADS * D), valid, dq, dq1, D, D0, D1)
