"""What the kernels of relative position share, forward and backward: rows, tables, tiles of a grid, biases."""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def rows_of(data, at, first, D: tl.constexpr, BD: tl.constexpr):
    """(len(at), BD) of rows at the offsets ``at``: their columns from ``first`` on, zero from column D on."""
    d = first + tl.arange(0, BD)
    if first + BD <= D:
        x = tl.load(data + at[:, None] + d[None, :])
    else:
        x = tl.load(data + at[:, None] + d[None, :], mask=(d < D)[None, :], other=0.0)
    return x


@triton.jit
def both_parts(data, at, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr):
    """Rows in two parts: 80 columns are 64 and 16, and not 128. D1 = 0: the second is the first, and not used."""
    x = rows_of(data, at, 0, D, D0)
    if D1 > 0:
        return x, rows_of(data, at, D0, D, D1)
    else:
        return x, x


@triton.jit
def product(a, a1, b, b1, D1: tl.constexpr, PRECISION: tl.constexpr):
    """<a, b> of all pairs of rows."""
    c = tl.dot(a, tl.trans(b), input_precision=PRECISION)
    if D1 > 0:
        c = tl.dot(a1, tl.trans(b1), c, input_precision=PRECISION)
    return c


@triton.jit
def products_with_table(
    q, q1, rel, place, valid, out, out_step,
    EXTENT: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, BR: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """log2(e) <q, R[place - p + EXTENT - 1]> to ``out + p out_step``, for each position p along one axis."""
    for first in range(0, 2 * EXTENT - 1, BR):
        j = first + tl.arange(0, BR)
        r, r1 = both_parts(rel, tl.minimum(j, 2 * EXTENT - 2) * D, D, D0, D1)
        far = product(q, q1, r.to(q.dtype), r1.to(q.dtype), D1, PRECISION) * LOG2E
        p = place[:, None] - j[None, :] + EXTENT - 1  # of the key
        tl.store(out[:, None] + p * out_step, far, mask=valid[:, None] & (p >= 0) & (p < EXTENT))


@triton.jit
def add_to_keys(
    s, weight, mean, query, query1, g, g1, value, value1, dk, dk1, dv, dv1, D1: tl.constexpr, PRECISION: tl.constexpr
):
    """Gradients of keys and values, with what some queries add: their logits s (keys, queries), the logs of their
    weights and ``mean``, which is <gradient, output>, both in a row."""
    p = tl.exp2(s - weight[None, :])
    dv = tl.dot(p.to(g.dtype), g, dv, input_precision=PRECISION)
    ds = p * (product(value, value1, g, g1, D1, PRECISION) - mean[None, :])
    dk = tl.dot(ds.to(query.dtype), query, dk, input_precision=PRECISION)
    if D1 > 0:
        dv1 = tl.dot(p.to(g.dtype), g1, dv1, input_precision=PRECISION)
        dk1 = tl.dot(ds.to(query.dtype), query1, dk1, input_precision=PRECISION)
    return dk, dk1, dv, dv1


@triton.jit
def write_rows(out, at, valid, x, x1, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr):
    d = tl.arange(0, D0)
    inside = valid[:, None] & (d < D)[None, :]
    tl.store(out + at[:, None] + d[None, :], x.to(out.dtype.element_ty), mask=inside)
    if D1 > 0:
        d = D0 + tl.arange(0, D1)
        inside = valid[:, None] & (d < D)[None, :]
        tl.store(out + at[:, None] + d[None, :], x1.to(out.dtype.element_ty), mask=inside)


@triton.jit
def cell_of(
    HEADS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CELL_H: tl.constexpr, CELL_W: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Of this program: number of its block of tokens, head, image; first row and column of its window, and how many of
    them lie in the grid. Programs side by side share a head's keys."""
    blocks: tl.constexpr = (CELL_H * CELL_W + BLOCK - 1) // BLOCK
    across: tl.constexpr = (WIDTH + CELL_W - 1) // CELL_W
    windows: tl.constexpr = (HEIGHT + CELL_H - 1) // CELL_H * across
    program = tl.program_id(0)
    window = program // (blocks * HEADS) % windows
    top, left = window // across * CELL_H, window % across * CELL_W
    rows, columns = tl.minimum(CELL_H, HEIGHT - top), tl.minimum(CELL_W, WIDTH - left)
    image = (program // (blocks * HEADS * windows)).to(tl.int64)
    return program % blocks, program // blocks % HEADS, image, top, left, rows, columns


@triton.jit
def tile_of_keys(t, top, left, rows, columns, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """First row and column in the window of tile t, and the tokens of its ROWS x COLS keys; those behind the last row
    or column repeat it, and their bias is -inf."""
    across, n = tl.cdiv(columns, COLS), tl.arange(0, ROWS * COLS)
    row, column = t // across * ROWS, t % across * COLS
    y, x = tl.minimum(row + n // COLS, rows - 1), tl.minimum(column + n % COLS, columns - 1)
    return row, column, (top + y) * WIDTH + left + x


@triton.jit
def columns_bias(far_w, column, columns, COLS: tl.constexpr):
    c = column + tl.arange(0, COLS)
    return tl.load(far_w[:, None] + c[None, :], mask=(c < columns)[None, :], other=-float("inf"))


@triton.jit
def with_bias(s, near, far_h, h_step, row, rows, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Logits of a tile, with the bias of its columns (BQ, COLS) and that of its rows, which is loaded here."""
    if ROWS == 1:
        s = s + near + tl.load(far_h + row * h_step)[:, None]
    else:
        r = row + tl.arange(0, ROWS)
        down = tl.load(far_h[:, None] + r[None, :] * h_step, mask=(r < rows)[None, :], other=-float("inf"))
        s = tl.reshape(s, (s.shape[0], ROWS, COLS)) + near[:, None, :] + down[:, :, None]
        s = tl.reshape(s, (s.shape[0], ROWS * COLS))
    return s


@triton.jit
def place_of(coordinates, n, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """Row and column of a token; the grid's nearest one where they lie outside."""
    y, x = tl.load(coordinates + 2 * n), tl.load(coordinates + 2 * n + 1)
    return tl.minimum(tl.maximum(y, 0), HEIGHT - 1), tl.minimum(tl.maximum(x, 0), WIDTH - 1)


@triton.jit
def halves(data, EXTENT: tl.constexpr, B: tl.constexpr):
    """(len(data), B) numbers behind each pointer as the sum of two bfloat16, which holds 16 of their 24 bits."""
    n = tl.arange(0, B)
    x = tl.load(data[:, None] + n[None, :], mask=(n < EXTENT)[None, :], other=0.0)
    high = x.to(tl.bfloat16)
    return high, (x - high.to(tl.float32)).to(tl.bfloat16)


@triton.jit
def one_hot(place, B: tl.constexpr, dtype: tl.constexpr):
    """(len(place), B): 1 at each place."""
    return (place[:, None] == tl.arange(0, B)[None, :]).to(dtype)


@triton.jit
def picked(high, low, place, s, B: tl.constexpr):
    """``s`` and the numbers at the places of the keys."""
    one = tl.trans(one_hot(place, B, tl.bfloat16))
    return tl.dot(low, one, tl.dot(high, one, s))


@triton.jit
def block_of(count, HEADS: tl.constexpr, BLOCK: tl.constexpr):
    """Block of tokens, head and image of this program."""
    blocks = tl.cdiv(count, BLOCK)
    program = tl.program_id(0)
    return program % blocks, program // blocks % HEADS, (program // (blocks * HEADS)).to(tl.int64)


@triton.jit
def times_table(
    x, x1, rel, place, data, step, dtype: tl.constexpr, EXTENT: tl.constexpr, D: tl.constexpr, D0: tl.constexpr,
    D1: tl.constexpr, BR: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds rows of the table, R[place - p + EXTENT - 1], weighted with the numbers at ``data + p step``."""
    for first in range(0, 2 * EXTENT - 1, BR):
        j = first + tl.arange(0, BR)
        p = place[:, None] - j[None, :] + EXTENT - 1
        weight = tl.load(data[:, None] + p * step, mask=(p >= 0) & (p < EXTENT), other=0.0).to(dtype)
        r, r1 = both_parts(rel, tl.minimum(j, 2 * EXTENT - 2) * D, D, D0, D1)
        x = tl.dot(weight, r.to(dtype), x, input_precision=PRECISION)
        if D1 > 0:
            x1 = tl.dot(weight, r1.to(dtype), x1, input_precision=PRECISION)
    return x, x1
