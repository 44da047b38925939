"""Gradient of relative-position attention on a GPU, without N x N numbers; without atomics, the same bits every time.

prepare_kernel   the biases of all queries again, and <grad, out> of every query
keys_kernel      a tile of keys meets all queries: gradients of k and v
queries_kernel   a block of queries meets all keys: gradient of q, and of the query's biases, h + w numbers
tables_kernel    the gradient of both tables, head by head: biases of queries at one distance, times the queries

With p = softmax(logits): dv = p^T grad, ds = p (grad v^T - <grad, out>), dk = scale ds^T q, dq = scale ds k and the
tables' rows, weighted with the sums of ds over the keys at each row and column.
"""

import torch
import triton
import triton.language as tl
from fastprompt.kernels.encoder_relative_list_backward import listed_keys_kernel, listed_queries_kernel
from fastprompt.kernels.encoder_relative_parts import (
    LOG2E,
    add_to_keys,
    block_of,
    both_parts,
    columns_bias,
    place_of,
    product,
    products_with_table,
    tile_of_keys,
    times_table,
    with_bias,
    write_rows,
)
from fastprompt.kernels.encoder_relative_tiles import backward_tile, cut, parts_of
from fastprompt.kernels.jit import jit


@triton.jit
def place_in(coordinates, token, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, LISTED: tl.constexpr):
    if LISTED:
        y, x = place_of(coordinates, token, HEIGHT, WIDTH)
    else:
        y, x = token // WIDTH, token % WIDTH
    return y, x


@jit
def prepare_kernel(
    q, rel_h, rel_w, coordinates, grad, out, far, delta, count, image_step, token_step, head_step, place_step,
    HEADS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr, D0: tl.constexpr,
    D1: tl.constexpr, BQ: tl.constexpr, BR: tl.constexpr, LISTED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """far: as the forward kernels have it. delta (B, H, N): <grad, out>."""
    block, head, image = block_of(count, HEADS, BQ)
    i = block * BQ + tl.arange(0, BQ)
    valid, token = i < count, tl.minimum(i, count - 1)
    query, query1 = both_parts(q + image * image_step + head * head_step, token * token_step, D, D0, D1)
    y, x = place_in(coordinates + image * place_step, token, HEIGHT, WIDTH, LISTED)
    far += (image * HEADS + head) * count * (HEIGHT + WIDTH)
    far_h, far_w = far + token, far + count * HEIGHT + token * WIDTH
    h_step = count
    if LISTED:
        far_h = far + token * (HEIGHT + WIDTH)
        far_w = far_h + HEIGHT
        h_step = 1
    products_with_table(query, query1, rel_h, y, valid, far_h, h_step, HEIGHT, D, D0, D1, BR, PRECISION)
    products_with_table(query, query1, rel_w, x, valid, far_w, 1, WIDTH, D, D0, D1, BR, PRECISION)
    rows = image * count * HEADS * D + head * D
    g, g1 = both_parts(grad + rows, token * (HEADS * D), D, D0, D1)
    o, o1 = both_parts(out + rows, token * (HEADS * D), D, D0, D1)
    total = tl.sum(g.to(tl.float32) * o.to(tl.float32), 1)
    if D1 > 0:
        total += tl.sum(g1.to(tl.float32) * o1.to(tl.float32), 1)
    tl.store(delta + (image * HEADS + head) * count + token, total, mask=valid)


@triton.jit
def turned_bias(s, far_h, far_w, token, count, row, column, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
                ROWS: tl.constexpr, COLS: tl.constexpr):  # fmt: skip
    """``s`` (ROWS x COLS, queries) and the biases; -inf of keys outside the grid."""
    c, r = column + tl.arange(0, COLS), row + tl.arange(0, ROWS)
    near = tl.load(far_w + c[:, None] + token[None, :] * WIDTH, mask=(c < WIDTH)[:, None], other=-float("inf"))
    if ROWS == 1:
        s = s + near + tl.load(far_h + row * count + token)[None, :]
    else:
        down = tl.load(far_h + r[:, None] * count + token[None, :], mask=(r < HEIGHT)[:, None], other=-float("inf"))
        s = tl.reshape(s, (ROWS, COLS, s.shape[1])) + near[None, :, :] + down[:, None, :]
        s = tl.reshape(s, (ROWS * COLS, s.shape[2]))
    return s


@jit
def keys_kernel(
    q, k, v, grad, far, log_weight, delta, key_grad, value_grad, image_step, token_step, head_step, scale,
    HEADS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr, D0: tl.constexpr,
    D1: tl.constexpr, BQ: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """ROWS x COLS keys and all queries of a head. Grid (tiles x heads x images)."""
    count: tl.constexpr = HEIGHT * WIDTH
    across: tl.constexpr = (WIDTH + COLS - 1) // COLS
    tiles: tl.constexpr = (HEIGHT + ROWS - 1) // ROWS * across
    program, n = tl.program_id(0), tl.arange(0, ROWS * COLS)
    head, image = program // tiles % HEADS, (program // (tiles * HEADS)).to(tl.int64)
    row, column, token = tile_of_keys(program % tiles, 0, 0, HEIGHT, WIDTH, WIDTH, ROWS, COLS)
    there = (row + n // COLS < HEIGHT) & (column + n % COLS < WIDTH)
    start, rows = image * image_step + head * head_step, image * count * HEADS * D + head * D
    q += start
    grad += rows
    key, key1 = both_parts(k + start, token * token_step, D, D0, D1)
    value, value1 = both_parts(v + start, token * token_step, D, D0, D1)
    far_h = far + (image * HEADS + head) * count * (HEIGHT + WIDTH)
    log_weight += (image * HEADS + head) * count
    delta += (image * HEADS + head) * count
    dk, dv = tl.zeros((ROWS * COLS, D0), tl.float32), tl.zeros((ROWS * COLS, D0), tl.float32)
    dk1 = tl.zeros((ROWS * COLS, D1 if D1 > 0 else 16), tl.float32)
    dv1 = tl.zeros((ROWS * COLS, D1 if D1 > 0 else 16), tl.float32)
    for first in range(0, count, BQ):
        i = first + tl.arange(0, BQ)
        at = tl.minimum(i, count - 1)
        query, query1 = both_parts(q, at * token_step, D, D0, D1)
        s = product(key, key1, query, query1, D1, PRECISION) * (scale * LOG2E)
        s = turned_bias(s, far_h, far_h + count * HEIGHT, at, count, row, column, HEIGHT, WIDTH, ROWS, COLS)
        weight = tl.load(log_weight + i, mask=i < count, other=float("inf")) * LOG2E
        g, g1 = both_parts(grad, at * (HEADS * D), D, D0, D1)
        dk, dk1, dv, dv1 = add_to_keys(
            s, weight, tl.load(delta + at), query, query1, g, g1, value, value1, dk, dk1, dv, dv1, D1, PRECISION
        )
    write_rows(key_grad + rows, token * (HEADS * D), there, dk * scale, dk1 * scale, D, D0, D1)
    write_rows(value_grad + rows, token * (HEADS * D), there, dv, dv1, D, D0, D1)


@triton.jit
def add_sums(ds, data, step, row, last, again, valid, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Sums of a tile (queries, ROWS x COLS): over its columns to ``data + row step``, added if ``again``; over its rows
    as the result."""
    if ROWS == 1:
        at = data + row * step
        down = tl.sum(ds, 1)
        if again:
            down += tl.load(at)
        tl.store(at, down, mask=valid)
        right = ds
    else:
        r = row + tl.arange(0, ROWS)
        at, inside = data[:, None] + r[None, :] * step, valid[:, None] & (r < last)[None, :]
        ds = tl.reshape(ds, (ds.shape[0], ROWS, COLS))
        down = tl.sum(ds, 2)
        if again:
            down += tl.load(at, mask=inside, other=0.0)
        tl.store(at, down, mask=inside)
        right = tl.sum(ds, 1)
    return right


@jit
def queries_kernel(
    q, k, v, rel_h, rel_w, grad, far, log_weight, delta, query_grad, far_grad, image_step, token_step, head_step,
    scale,
    HEADS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr, D0: tl.constexpr,
    D1: tl.constexpr, BQ: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, BR: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """BQ queries and all keys of a head. far_grad: gradients of the biases, where these are in far."""
    count: tl.constexpr = HEIGHT * WIDTH
    block, head, image = block_of(count, HEADS, BQ)
    i = block * BQ + tl.arange(0, BQ)
    valid, token = i < count, tl.minimum(i, count - 1)
    start, rows = image * image_step + head * head_step, image * count * HEADS * D + head * D
    k += start
    v += start
    query, query1 = both_parts(q + start, token * token_step, D, D0, D1)
    g, g1 = both_parts(grad + rows, token * (HEADS * D), D, D0, D1)
    own = (image * HEADS + head) * count
    at = own * (HEIGHT + WIDTH) + token
    far_h, far_w = far + at, far + at + count * HEIGHT + token * (WIDTH - 1)
    grad_h, grad_w = far_grad + at, far_grad + at + count * HEIGHT + token * (WIDTH - 1)
    weight, mean = tl.load(log_weight + own + token) * LOG2E, tl.load(delta + own + token)
    dq, dq1 = tl.zeros((BQ, D0), tl.float32), tl.zeros((BQ, D1 if D1 > 0 else 16), tl.float32)
    for column in range(0, WIDTH, COLS):
        near = columns_bias(far_w, column, WIDTH, COLS)
        right = tl.zeros((BQ, COLS), tl.float32)
        for row in range(0, HEIGHT, ROWS):
            n = tl.arange(0, ROWS * COLS)
            n = tl.minimum(row + n // COLS, HEIGHT - 1) * WIDTH + tl.minimum(column + n % COLS, WIDTH - 1)
            key, key1 = both_parts(k, n * token_step, D, D0, D1)
            s = product(query, query1, key, key1, D1, PRECISION) * (scale * LOG2E)
            p = tl.exp2(with_bias(s, near, far_h, count, row, HEIGHT, ROWS, COLS) - weight[:, None])
            value, value1 = both_parts(v, n * token_step, D, D0, D1)
            ds = p * (product(g, g1, value, value1, D1, PRECISION) - mean[:, None])
            dq = tl.dot(ds.to(key.dtype), key, dq, input_precision=PRECISION)
            if D1 > 0:
                dq1 = tl.dot(ds.to(key.dtype), key1, dq1, input_precision=PRECISION)
            right += add_sums(ds, grad_h, count, row, HEIGHT, column > 0, valid, ROWS, COLS)
        c = column + tl.arange(0, COLS)
        tl.store(grad_w[:, None] + c[None, :], right, mask=valid[:, None] & (c < WIDTH)[None, :])
        tl.debug_barrier()  # other threads of this program read what was written
    y, x = token // WIDTH, token % WIDTH
    dq, dq1 = dq * scale, dq1 * scale
    dq, dq1 = times_table(dq, dq1, rel_h, y, grad_h, count, query.dtype, HEIGHT, D, D0, D1, BR, PRECISION)
    dq, dq1 = times_table(dq, dq1, rel_w, x, grad_w, 1, query.dtype, WIDTH, D, D0, D1, BR, PRECISION)
    write_rows(query_grad + rows, token * (HEADS * D), valid, dq, dq1, D, D0, D1)


@triton.jit
def table_sums(
    q, token_step, coordinates, data, data_step, p_step, sums, part, count, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    EXTENT: tl.constexpr, DOWN: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, BQ: tl.constexpr,
    BR: tl.constexpr, LISTED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BR rows of one table's gradient, of one head: sums over all queries."""
    j = part * BR + tl.arange(0, BR)
    x, x1 = tl.zeros((BR, D0), tl.float32), tl.zeros((BR, D1 if D1 > 0 else 16), tl.float32)
    for first in range(0, count, BQ):
        i = first + tl.arange(0, BQ)
        token = tl.minimum(i, count - 1)
        row, column = place_in(coordinates, token, HEIGHT, WIDTH, LISTED)
        place = row if DOWN else column
        p = place[None, :] - j[:, None] + EXTENT - 1
        inside = (p >= 0) & (p < EXTENT) & (i < count)[None, :]
        query, query1 = both_parts(q, token * token_step, D, D0, D1)
        weight = tl.load(data + token[None, :] * data_step + p * p_step, mask=inside, other=0.0).to(query.dtype)
        x = tl.dot(weight, query, x, input_precision=PRECISION)
        if D1 > 0:
            x1 = tl.dot(weight, query1, x1, input_precision=PRECISION)
    write_rows(sums, j * D, j < 2 * EXTENT - 1, x, x1, D, D0, D1)


@jit
def tables_kernel(
    q, coordinates, far_grad, sums, count, image_step, token_step, head_step, place_step,
    HEADS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr, D0: tl.constexpr,
    D1: tl.constexpr, BQ: tl.constexpr, BR: tl.constexpr, LISTED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """sums (B, H, 2 HEIGHT - 1 + 2 WIDTH - 1, D). Grid (blocks of rows of both tables x heads x images)."""
    down: tl.constexpr = (2 * HEIGHT - 2 + BR) // BR
    parts: tl.constexpr = down + (2 * WIDTH - 2 + BR) // BR
    part, own = tl.program_id(0) % parts, (tl.program_id(0) // parts).to(tl.int64)
    head, image = own % HEADS, own // HEADS
    q += image * image_step + head * head_step
    coordinates += image * place_step
    far_grad += own * count * (HEIGHT + WIDTH)
    sums += own * ((2 * HEIGHT + 2 * WIDTH - 2) * D)
    if part < down:
        table_sums(q, token_step, coordinates, far_grad, HEIGHT + WIDTH if LISTED else 1, 1 if LISTED else count, sums,
                   part, count, HEIGHT, WIDTH, HEIGHT, True, D, D0, D1, BQ, BR, LISTED, PRECISION)  # fmt: skip
    else:
        right = far_grad + (HEIGHT if LISTED else count * HEIGHT)
        table_sums(q, token_step, coordinates, right, HEIGHT + WIDTH if LISTED else WIDTH, 1,
                   sums + (2 * HEIGHT - 1) * D, part - down, count, HEIGHT, WIDTH, WIDTH, False, D, D0, D1, BQ, BR,
                   LISTED, PRECISION)  # fmt: skip


# ---------------------------------------------------------------- launches


def takes_lists(arch: int, size: tuple[int, int]) -> bool:
    """Whether the one-hot places of a list fit: sm_75 has no bfloat16."""
    return arch >= 80 and max(size) <= 128


def gradient(
    grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rel_h: torch.Tensor, rel_w: torch.Tensor,
    coordinates: torch.Tensor | None, out: torch.Tensor, log_weight: torch.Tensor, size: tuple[int, int],
    scale: float, arch: int, precision: str,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Of q, k, v, in their type, and of the tables, in theirs. ``grad`` and ``out`` are contiguous, in the type of q;
    the rest is as ``relative_position.attention`` takes and gives it."""
    batch, count, heads, width = q.shape
    made = [torch.empty(q.shape, dtype=q.dtype, device=q.device) for _ in range(3)]
    far, far_grad = torch.empty(2, batch, heads, count, sum(size), device=q.device).unbind()
    delta = torch.empty_like(log_weight)
    listed, steps, (first, second) = coordinates is not None, q.stride()[:3], parts_of(width)
    places, place_step = (coordinates, 0 if len(coordinates) == 1 else 2 * count) if listed else (log_weight, 0)
    common = {"HEADS": heads, "HEIGHT": size[0], "WIDTH": size[1], "D": width, "D0": first, "D1": second}
    common |= {"PRECISION": precision}
    blocks = {"BQ": 32, "BR": 32, "LISTED": listed, "num_warps": 4, "num_stages": 2 if arch >= 80 else 1}
    prepare_kernel[(triton.cdiv(count, 32) * heads * batch,)](
        q, rel_h, rel_w, places, grad, out, far, delta, count, *steps, place_step, **common, **blocks
    )
    launch = list_gradient if listed else grid_gradient
    launch(q, k, v, rel_h, rel_w, coordinates, grad, far, log_weight, delta, made, far_grad, scale, arch, common)
    lengths = [2 * n - 1 for n in size]
    sums = torch.empty(batch * heads, sum(lengths), width, device=q.device)
    parts = sum(triton.cdiv(n, blocks["BR"]) for n in lengths)
    tables_kernel[(parts * heads * batch,)](q, places, far_grad, sums, count, *steps, place_step, **common, **blocks)
    tables = sums.sum(0).split(lengths)
    return (*made, *(x.to(rel.dtype) for x, rel in zip(tables, (rel_h, rel_w), strict=True)))


def grid_gradient(q, k, v, rel_h, rel_w, _, grad, far, log_weight, delta, made, far_grad, scale, arch, common):
    batch, _, heads, width = q.shape
    size, steps = (common["HEIGHT"], common["WIDTH"]), q.stride()[:3]
    tile = backward_tile(arch, q.element_size(), width, "keys")
    rows, columns = cut(size, tile.keys)
    tiles = triton.cdiv(size[0], rows) * triton.cdiv(size[1], columns)
    keys_kernel[(tiles * heads * batch,)](
        q, k, v, grad, far, log_weight, delta, *made[1:], *steps, scale, BQ=tile.queries, ROWS=rows, COLS=columns,
        **common, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    tile = backward_tile(arch, q.element_size(), width, "queries")
    rows, columns = cut(size, tile.keys)
    queries_kernel[(triton.cdiv(size[0] * size[1], tile.queries) * heads * batch,)](
        q, k, v, rel_h, rel_w, grad, far, log_weight, delta, made[0], far_grad, *steps, scale, BQ=tile.queries,
        ROWS=rows, COLS=columns, BR=32, **common, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip


def list_gradient(q, k, v, rel_h, rel_w, places, grad, far, log_weight, delta, made, far_grad, scale, arch, common):
    batch, count, heads, width = q.shape
    place_step = 0 if len(places) == 1 else 2 * count
    common = common | {f"B{name[0]}": max(16, triton.next_power_of_2(common[name])) for name in ("HEIGHT", "WIDTH")}
    given, steps = (q, k, v, places, grad, far, log_weight, delta), (*q.stride()[:3], place_step, scale, count)
    tile = backward_tile(arch, q.element_size(), width, "listed keys")
    listed_keys_kernel[(triton.cdiv(count, tile.keys) * heads * batch,)](
        *given, *made[1:], *steps, BQ=tile.queries, BN=tile.keys, **common, num_warps=tile.warps,
        num_stages=tile.stages,
    )  # fmt: skip
    tile = backward_tile(arch, q.element_size(), width, "listed queries")
    listed_queries_kernel[(triton.cdiv(count, tile.queries) * heads * batch,)](
        *given, rel_h, rel_w, made[0], far_grad, *steps, BQ=tile.queries, BN=tile.keys, BR=32, **common,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
