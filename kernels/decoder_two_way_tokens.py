"""The token side of SAM's two-way transformer on a GPU: everything between two passes over the image, in one launch.

The tokens of several prompts stand in one block of R rows, so that a weight is read once for all of them. The programs
of a block share out heads, rows and hidden columns, and meet between the stages: one after another the stages would
read 6 MB of weights through one multiprocessor, at 64 bytes a clock.

Matrices are the rows of one array (.., C): of an attention W_q, W_k, W_v and W_o transposed, (D, C) each, of an MLP the
first and the second transposed, (M, C) each. Vectors, float32: the biases in the same order, then weight and bias of
the LayerNorm that follows. Layer by layer: self-attention, prompt to image, MLP, image to prompt; then the last
attention. Every kernel is given both from the place on where its own begin.

Sums, softmax and LayerNorm in float32; products in the type of the matrices, float32 ones as PRECISION says.
"""

import triton
import triton.language as tl
from fastprompt.kernels.attention import merged
from fastprompt.kernels.jit import jit


@triton.jit
def meet(counter, members):
    """Waits for all programs of a block. What each wrote before, the others see after."""
    tl.debug_barrier()  # all warps have written
    tl.atomic_add(counter, 1, sem="release")
    while tl.atomic_add(counter, 0, sem="acquire") < members:
        pass
    tl.debug_barrier()


@triton.jit
def store_rows(out, x, rows, R: tl.constexpr, C: tl.constexpr):
    r, c = tl.arange(0, R)[:, None], tl.arange(0, C)[None, :]
    tl.store(out + r * C + c, x.to(out.dtype.element_ty), mask=r < rows)


@triton.jit
def matrix(matrices, first, D: tl.constexpr, C: tl.constexpr):
    """(D, C): rows of the matrices from ``first`` on."""
    return tl.load(matrices + (first + tl.arange(0, D))[:, None] * C + tl.arange(0, C)[None, :])


@triton.jit
def project(
    x, rows, matrices, first, biases, D: tl.constexpr, C: tl.constexpr, R: tl.constexpr, BK: tl.constexpr,
    PRECISION: tl.constexpr, position=None,
):  # fmt: skip
    """(R, D), float32: rows in memory, x (.., C) plus ``position``, times D rows of the matrices, plus as many biases;
    BK channels at a time, all of them would fill the registers."""
    r, d = tl.arange(0, R)[:, None], first + tl.arange(0, D)
    y = tl.zeros((R, D), tl.float32) + tl.load(biases + d)[None, :]
    for start in range(0, C, BK):
        c = start + tl.arange(0, BK)[None, :]
        tile = tl.load(x + r * C + c, mask=r < rows, other=0.0).to(tl.float32)
        if position is not None:
            tile += tl.load(position + r * C + c, mask=r < rows, other=0.0).to(tl.float32)
        w = tl.load(matrices + d[:, None] * C + c)
        y = tl.dot(tile.to(w.dtype), tl.trans(w), y, input_precision=PRECISION)
    return y


@triton.jit
def spread(
    y, matrices, first, out, places, there, D: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr
):
    """Writes y (R, D) times D rows of the matrices to the rows ``places`` of ``out`` (.., C)."""
    y = y.to(matrices.dtype.element_ty)
    for start in range(0, C, BK):
        c = start + tl.arange(0, BK)[None, :]
        w = tl.load(matrices + (first + tl.arange(0, D))[:, None] * C + c)
        z = tl.dot(y, w, input_precision=PRECISION)
        tl.store(out + places[:, None] * C + c, z.to(out.dtype.element_ty), mask=there[:, None])


@triton.jit
def normed(x, norm, eps, C: tl.constexpr):
    """LayerNorm over the last axis of (.., C)."""
    c = tl.arange(0, C)
    x -= (tl.sum(x, 1) / C)[:, None]
    # The maximum keeps the square apart from the sum: fused, warps that hold the same channel would round differently.
    x *= tl.rsqrt(tl.sum(tl.maximum(x * x, 0.0), 1) / C + eps)[:, None]
    return x * tl.load(norm + c)[None, :] + tl.load(norm + C + c)[None, :]


@triton.jit
def added(parts, count, bias, rows, start, H: tl.constexpr, C: tl.constexpr, R: tl.constexpr, BK: tl.constexpr):
    """(R, BK): channels from ``start`` on of H parts and a bias."""
    r, c = tl.arange(0, R)[:, None], start + tl.arange(0, BK)[None, :]
    x = tl.zeros((R, BK), tl.float32) + tl.load(bias + c)
    for part in range(H):
        x += tl.load(parts + (part * count + r) * C + c, mask=r < rows, other=0.0)
    return x


@triton.jit
def self_attention(
    x, position, head, matrices, vectors, part, rows, T: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
    R: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Writes what one head adds to the tokens x (.., C). Rows see those of their own prompt."""
    q = project(x, rows, matrices, head * D, vectors, D, C, R, BK, PRECISION, position) * (D**-0.5)
    k = project(x, rows, matrices, C + head * D, vectors, D, C, R, BK, PRECISION, position)
    v = project(x, rows, matrices, 2 * C + head * D, vectors, D, C, R, BK, PRECISION)
    dtype = matrices.dtype.element_ty
    score = tl.dot(q.to(dtype), tl.trans(k.to(dtype)), input_precision=PRECISION)
    r = tl.arange(0, R)
    score = tl.where((r // T)[:, None] == (r // T)[None, :], score, -float("inf"))
    p = tl.exp(score - tl.max(score, 1)[:, None])
    p /= tl.sum(p, 1)[:, None]
    y = tl.dot(p.to(dtype), v.to(dtype), input_precision=PRECISION)
    spread(y, matrices, 3 * C + head * D, part, r, r < rows, D, C, BK, PRECISION)


@jit
def self_kernel(
    prompt, matrices, vectors, parts, counters, per_block, count, T: tl.constexpr, H: tl.constexpr, C: tl.constexpr,
    R: tl.constexpr, BK: tl.constexpr, COUNTERS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Self-attention of the first layer, which has no positions: the addends of all heads. Grid (heads, blocks).
    Sets the counters of the kernels behind it to 0."""
    head, block = tl.program_id(0), tl.program_id(1)
    if head == 0:
        tl.store(counters + block * COUNTERS + tl.arange(0, COUNTERS), 0)
    first = block * per_block
    self_attention(
        prompt + first * C, None, head, matrices, vectors, parts + (head * count + first) * C,
        tl.minimum(per_block, count - first), T, C // H, C, R, BK, PRECISION,
    )  # fmt: skip


@jit
def first_kernel(
    parts, prompt, keys, values, matrices, vectors, tokens, acc, top, weight, per_block, count, pixels, per_split,
    shared_by, eps, T: tl.constexpr, H: tl.constexpr, D: tl.constexpr, C: tl.constexpr, R: tl.constexpr,
    BK: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The end of the first self-attention, and one head's attention to one split of the image, whose keys and values
    (images, H, pixels, D) are known before there is a prompt. Grid (heads, splits, blocks)."""
    head, split, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first, splits = block * per_block, tl.num_programs(1)
    rows = tl.minimum(per_block, count - first)
    x = added(parts + first * C, count, vectors + 3 * C, rows, 0, H, C, R, C)
    mean = tl.sum(x, 1) / C
    scale = tl.rsqrt(tl.sum(tl.maximum((x - mean[:, None]) * (x - mean[:, None]), 0.0), 1) / C + eps)  # as in normed
    if head + split == 0:
        store_rows(tokens + first * C, normed(x, vectors + 4 * C, eps, C), rows, R, C)
    q = tl.zeros((R, D), tl.float32) + tl.load(vectors + 6 * C + head * D + tl.arange(0, D))[None, :]
    for start in range(0, C, BK):
        c = start + tl.arange(0, BK)
        y = added(parts + first * C, count, vectors + 3 * C, rows, start, H, C, R, BK) - mean[:, None]
        y = y * scale[:, None] * tl.load(vectors + 4 * C + c)[None, :] + tl.load(vectors + 5 * C + c)[None, :]
        at = (first + tl.arange(0, R))[:, None] * C + c[None, :]
        y += tl.load(prompt + at, mask=(tl.arange(0, R) < rows)[:, None], other=0.0).to(tl.float32)
        w = tl.load(matrices + (4 * C + head * D + tl.arange(0, D))[:, None] * C + c[None, :])
        q = tl.dot(y.to(w.dtype), tl.trans(w), q, input_precision=PRECISION)
    q *= D**-0.5
    r, d = tl.arange(0, R), tl.arange(0, D)
    place = ((first // T // shared_by).to(tl.int64) * H + head) * pixels
    m, w, a = tl.full((R,), -float("inf"), tl.float32), tl.zeros((R,), tl.float32), tl.zeros((R, D), tl.float32)
    for start in range(split * per_split, tl.minimum((split + 1) * per_split, pixels), BN):
        n = start + tl.arange(0, BN)
        at, inside = (place + n)[:, None] * D + d[None, :], n < pixels
        key = tl.load(keys + at, mask=inside[:, None], other=0.0)
        score = tl.dot(q.to(key.dtype), tl.trans(key), input_precision=PRECISION)
        score = tl.where(inside[None, :], score, -float("inf"))
        new_m = tl.maximum(m, tl.max(score, 1))
        p, shrink = tl.exp(score - new_m[:, None]), tl.exp(m - new_m)
        value = tl.load(values + at, mask=inside[:, None], other=0.0)
        w = w * shrink + tl.sum(p, 1)
        a = tl.dot(p.to(value.dtype), value, a * shrink[:, None], input_precision=PRECISION)
        m = new_m
    row = first + r
    part = ((row // T * splits + split) * H + head) * T + row % T
    tl.store(acc + part[:, None] * D + d[None, :], a, mask=(r < rows)[:, None])
    tl.store(top + part, m, mask=r < rows)
    tl.store(weight + part, w, mask=r < rows)


@triton.jit
def combine(
    job, acc, top, weight, splits, matrices, vectors, parts, first, count, T: tl.constexpr, H: tl.constexpr,
    D: tl.constexpr, C: tl.constexpr, W: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Merges the splits of one row and head, and adds what it is worth in the tokens. ``W`` is C, or D where the values
    are projected before."""
    head, row = job % H, first + job // H
    c, d = tl.arange(0, C), tl.arange(0, D)
    a = merged(acc, top, weight, (row // T * splits * H + head) * T + row % T, H * T, splits, W, W, S)
    if W == C:
        value = tl.sum(matrix(matrices, 2 * H * D + head * D, D, C).to(tl.float32) * a[None, :], 1)
        value += tl.load(vectors + 2 * H * D + head * D + d)
    else:
        value = a
    out = tl.sum(matrix(matrices, 3 * H * D + head * D, D, C).to(tl.float32) * value[:, None], 0)
    tl.store(parts + (head * count + row) * C + c, out)


@triton.jit
def finish(row, parts, number, residual, bias, norm, out, count, eps, C: tl.constexpr, K: tl.constexpr):
    """Residual, bias and the parts of one row added up, and their LayerNorm."""
    c, k = tl.arange(0, C), tl.arange(0, K)
    x = tl.load(residual + row * C + c) + tl.load(bias + c)
    part = tl.load(parts + (k[:, None] * count + row) * C + c[None, :], mask=(k < number)[:, None], other=0.0)
    x = normed((x + tl.sum(part, 0))[None, :], norm, eps, C)
    tl.store(out + row * C + c[None, :], x.to(out.dtype.element_ty))


@triton.jit
def mlp(
    x, rows, member, members, matrices, vectors, part, M: tl.constexpr, C: tl.constexpr, R: tl.constexpr,
    BK: tl.constexpr, BH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Writes what a member's share of the hidden columns gives."""
    y = tl.zeros((R, C), tl.float32)
    for first in range(member * BH, M, members * BH):
        hidden = tl.maximum(project(x, rows, matrices, first, vectors, BH, C, R, BK, PRECISION), 0.0)
        w = matrix(matrices, M + first, BH, C)
        y = tl.dot(hidden.to(w.dtype), w, y, input_precision=PRECISION)
    store_rows(part, y, rows, R, C)


@triton.jit
def rows_at(head, first, T: tl.constexpr, H: tl.constexpr, R: tl.constexpr):
    """Where the rows of a head stand in (prompts, H, T)."""
    row = first + tl.arange(0, R)
    return (row // T * H + head) * T + row % T


@triton.jit
def image_rows(
    x, position, head, matrices, vectors, out, first, rows, T: tl.constexpr, H: tl.constexpr, D: tl.constexpr,
    C: tl.constexpr, R: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Writes W_k^T q of one head: what the image is multiplied with in place of its keys."""
    q = project(x, rows, matrices, head * D, vectors, D, C, R, BK, PRECISION, position) * (D**-0.5)
    at, there = rows_at(head, first, T, H, R), tl.arange(0, R) < rows
    spread(q, matrices, (H + head) * D, out, at, there, D, C, BK, PRECISION)


@triton.jit
def prompt_rows(
    x, position, head, matrices, vectors, keys, bias, values, first, rows, T: tl.constexpr, H: tl.constexpr,
    D: tl.constexpr, C: tl.constexpr, R: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Writes W_q^T k, b_q . k and W_o v of one head, for the image to attend to."""
    k = project(x, rows, matrices, (H + head) * D, vectors, D, C, R, BK, PRECISION, position) * (D**-0.5)
    at, there = rows_at(head, first, T, H, R), tl.arange(0, R) < rows
    tl.store(bias + at, tl.sum(k * tl.load(vectors + head * D + tl.arange(0, D))[None, :], 1), mask=there)
    spread(k, matrices, head * D, keys, at, there, D, C, BK, PRECISION)
    v = project(x, rows, matrices, (2 * H + head) * D, vectors, D, C, R, BK, PRECISION)
    spread(v, matrices, (3 * H + head) * D, values, at, there, D, C, BK, PRECISION)


@jit
def tokens_kernel(
    acc, top, weight, splits, prompt, tokens, work, parts, matrices, vectors, keys, bias, values, queries, counters,
    per_block, count, blocks, members, eps,
    T: tl.constexpr, H: tl.constexpr, D: tl.constexpr, M: tl.constexpr, C: tl.constexpr, R: tl.constexpr,
    W: tl.constexpr, S: tl.constexpr, BK: tl.constexpr, BH: tl.constexpr, K: tl.constexpr, LAST: tl.constexpr,
    COUNTERS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """From the partial sums of prompt to image to the rows of image to prompt, and to the queries of the next prompt to
    image, which do not depend on the image. ``tokens`` (count, C) is read and written. Grid (members times groups), at
    most one a multiprocessor; a group takes every so many-th block."""
    member, groups = tl.program_id(0) % members, tl.num_programs(0) // members
    I: tl.constexpr = H * D  # noqa: E741
    NORM: tl.constexpr = 3 * I + C  # in the vectors: biases of the attention, LayerNorm, MLP, LayerNorm, attention
    MLP: tl.constexpr = NORM + 2 * C
    TO_PROMPT: tl.constexpr = MLP + M + 3 * C
    NEXT: tl.constexpr = TO_PROMPT + 3 * I + 3 * C
    after_mlp, next_matrices = matrices + (4 * I + 2 * M) * C, matrices + (8 * I + 2 * M) * C
    shares = tl.minimum(members, M // BH)
    for block in range(tl.program_id(0) // members, blocks, groups):
        counter, first = counters + block * COUNTERS, block * per_block
        rows = tl.minimum(per_block, count - first)
        for job in range(member, rows * H, members):
            combine(job, acc, top, weight, splits, matrices, vectors, parts, first, count, T, H, D, C, W, S)
        meet(counter, members)
        for row in range(first + member, first + rows, members):
            finish(row, parts, H, tokens, vectors + 3 * I, vectors + NORM, work, count, eps, C, K)
        meet(counter + 1, members)
        if member < shares:
            mlp(work + first * C, rows, member, shares, matrices + 4 * I * C, vectors + MLP,
                parts + (member * count + first) * C, M, C, R, BK, BH, PRECISION)  # fmt: skip
        meet(counter + 2, members)
        for row in range(first + member, first + rows, members):
            finish(row, parts, shares, work, vectors + MLP + M, vectors + MLP + M + C, tokens, count, eps, C, K)
        meet(counter + 3, members)
        x, position = tokens + first * C, prompt + first * C
        for job in range(member, 2 * H, members):
            head = job % H
            if job < H:
                prompt_rows(x, position, head, after_mlp, vectors + TO_PROMPT, keys, bias, values, first, rows,
                            T, H, D, C, R, BK, PRECISION)  # fmt: skip
            elif LAST:
                image_rows(x, position, head, next_matrices, vectors + NEXT, queries, first, rows,
                           T, H, D, C, R, BK, PRECISION)  # fmt: skip
            else:
                self_attention(x, position, head, next_matrices, vectors + NEXT, parts + (head * count + first) * C,
                               rows, T, C // H, C, R, BK, PRECISION)  # fmt: skip
        if not LAST:
            meet(counter + 4, members)
            for row in range(first + member, first + rows, members):
                finish(row, parts, H, tokens, vectors + NEXT + 3 * C, vectors + NEXT + 4 * C, work, count, eps, C, K)
            meet(counter + 5, members)
            for head in range(member, H, members):
                image_rows(work + first * C, position, head, next_matrices + 4 * C * C, vectors + NEXT + 6 * C, queries,
                           first, rows, T, H, D, C, R, BK, PRECISION)  # fmt: skip


@jit
def last_kernel(
    acc, top, weight, splits, tokens, parts, matrices, vectors, out, counters, per_block, count, blocks, members, eps,
    T: tl.constexpr, H: tl.constexpr, D: tl.constexpr, C: tl.constexpr, S: tl.constexpr, K: tl.constexpr,
    COUNTERS: tl.constexpr,
):  # fmt: skip
    """The end of the last attention of the tokens to the image. Grid as for tokens_kernel."""
    member, groups = tl.program_id(0) % members, tl.num_programs(0) // members
    for block in range(tl.program_id(0) // members, blocks, groups):
        first = block * per_block
        rows = tl.minimum(per_block, count - first)
        for job in range(member, rows * H, members):
            combine(job, acc, top, weight, splits, matrices, vectors, parts, first, count, T, H, D, C, C, S)
        meet(counters + block * COUNTERS, members)
        for row in range(first + member, first + rows, members):
            bias, norm = vectors + 3 * H * D, vectors + 3 * H * D + C
            finish(row, parts, H, tokens, bias, norm, out, count, eps, C, K)
