"""Attention between prompt and image tokens on a GPU, with the projections of the image side folded into the prompt.

The image is read once, in place of three projections of it: a row ``r = W_k^T q`` for every prompt token and head gives
the score ``r . (x + position)``, and the values stay in image space until the few mixed rows are projected.

split_kernel     prompt to image: one program per split of the image tokens and block of rows, online softmax;
combine_kernel   merges the splits.
image_kernel     image to prompt: all heads, residual and LayerNorm in one pass; with NEXT also the splits of a prompt to
                 image that follows, whose rows do not depend on this pass: the image is read and written once.

Sums, softmax and LayerNorm in float32; products in the type of the image, float32 ones as ``precision`` says. Image
tokens may lie token by token or, as feature maps do, channel by channel.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def mix(query, key, value, hidden, m, w, a, PRECISION: tl.constexpr):
    """One more tile of an online softmax over the keys, which are the rows of ``key``; ``hidden`` is added."""
    score = tl.dot(query, tl.trans(key), input_precision=PRECISION) + hidden
    new = tl.maximum(m, tl.max(score, 1))
    peak = tl.where(new > -float("inf"), new, 0.0)  # no key so far
    p, shrink = tl.exp(score - peak[:, None]), tl.exp(m - peak)
    a = tl.dot(p.to(value.dtype), value, a * shrink[:, None], input_precision=PRECISION)
    return new, w * shrink + tl.sum(p, 1), a


@triton.jit
def store_split(acc, top, weight, part, c, there, m, w, a, C: tl.constexpr):
    tl.store(acc + part[:, None] * C + c[None, :], a, mask=there[:, None] & (c < C)[None, :])
    tl.store(top + part, m, mask=there)
    tl.store(weight + part, w, mask=there)


@triton.jit
def split_kernel(
    image, position, rows, hidden, acc, top, weight, count, per_split, token_stride, channel_stride, shared_by,
    row_count, prompt_tokens, C: tl.constexpr, BC: tl.constexpr, BJ: tl.constexpr, BN: tl.constexpr,
    HAS_POSITION: tl.constexpr, HAS_HIDDEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Softmax-weighted sums of the image tokens of one split, for BJ rows. Grid (splits, row blocks, prompts)."""
    split, b = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c, j, tile = tl.arange(0, BC), tl.program_id(1) * BJ + tl.arange(0, BJ), tl.arange(0, BN)
    row = rows + (b * row_count + j)[:, None] * C + c[None, :]
    query = tl.load(row, mask=(j < row_count)[:, None] & (c < C)[None, :], other=0.0)
    image += b // shared_by * count * C
    m, w = tl.full((BJ,), -float("inf"), tl.float32), tl.zeros((BJ,), tl.float32)
    a = tl.zeros((BJ, BC), tl.float32)
    for first in range(split * per_split, tl.minimum((split + 1) * per_split, count), BN):
        n = first + tile
        inside = (n < count)[:, None] & (c < C)[None, :]
        at = n[:, None] * token_stride + c[None, :] * channel_stride
        value = tl.load(image + at, mask=inside, other=0.0)
        key = value
        if HAS_POSITION:
            key += tl.load(position + at, mask=inside, other=0.0)
        beyond = tl.where(n < count, 0.0, -float("inf"))[None, :]
        if HAS_HIDDEN:  # (prompts, prompt tokens, image tokens)
            place = (b * prompt_tokens + j % prompt_tokens)[:, None] * count + n[None, :]
            beyond += tl.load(hidden + place, mask=(j < row_count)[:, None] & (n < count)[None, :], other=0.0)
        m, w, a = mix(query, key, value, beyond, m, w, a, PRECISION)
    part = (b * tl.num_programs(0) + split) * row_count + j
    store_split(acc, top, weight, part, c, j < row_count, m, w, a, C)


@triton.jit
def combine_kernel(acc, top, weight, out, splits, row_count, C: tl.constexpr, BC: tl.constexpr, S: tl.constexpr):
    """Merges the splits of one row; 0 where there was nothing to see. Grid (rows, prompts)."""
    j, b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    c, s = tl.arange(0, BC), tl.arange(0, S)
    part = (b * splits + s) * row_count + j
    m = tl.load(top + part, mask=s < splits, other=-float("inf"))
    peak = tl.max(m, 0)
    scale = tl.exp(m - tl.where(peak > -float("inf"), peak, 0.0))
    total = tl.sum(scale * tl.load(weight + part, mask=s < splits, other=0.0), 0)
    a = tl.load(acc + part[:, None] * C + c[None, :], mask=(s < splits)[:, None] & (c < C)[None, :], other=0.0)
    tl.store(out + (b * row_count + j) * C + c, tl.sum(a * scale[:, None], 0) / tl.maximum(total, 1e-38), mask=c < C)


@triton.jit
def attend(
    query, keys, bias, values, b, first, c, new, length, C: tl.constexpr, H: tl.constexpr, T: tl.constexpr,
    TP: tl.constexpr, BJ: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds to ``new`` what the heads of BJ columns give, TP columns of each of which T are tokens."""
    j = first + tl.arange(0, BJ)
    head, t = j // TP, j % TP
    row = (b * H + head) * T + t
    there = (head < H) & (t < tl.minimum(T, length))
    inside = there[:, None] & (c < C)[None, :]
    key = tl.load(keys + row[:, None] * C + c[None, :], mask=inside, other=0.0)
    score = tl.dot(query, tl.trans(key), input_precision=PRECISION)
    score += tl.load(bias + row, mask=there, other=0.0)[None, :]
    score = tl.where(there[None, :], score, -1e30)
    p = tl.reshape(score, (score.shape[0], BJ // TP, TP))
    p = tl.exp(p - tl.max(p, 2, keep_dims=True))
    p = p / tl.sum(p, 2, keep_dims=True)
    p = tl.where(there[None, :], tl.reshape(p, score.shape), 0.0)  # a head that is not there would see all alike
    value = tl.load(values + row[:, None] * C + c[None, :], mask=inside, other=0.0)
    return tl.dot(p.to(value.dtype), value, new, input_precision=PRECISION)


@triton.jit
def image_kernel(
    image, position, keys, bias, values, lengths, out_bias, norm, out, rows, acc, top, weight, count, per_split,
    token_stride, channel_stride, shared_by, eps,
    C: tl.constexpr, BC: tl.constexpr, H: tl.constexpr, T: tl.constexpr, TP: tl.constexpr, BJ: tl.constexpr,
    BQ: tl.constexpr, BN: tl.constexpr, HAS_POSITION: tl.constexpr, HAS_LENGTHS: tl.constexpr, RESIDUAL: tl.constexpr,
    NORM: tl.constexpr, NEXT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Image tokens of one split attend to the T prompt tokens of every head. Grid (splits, prompts). ``out`` may be
    ``image``. ``norm``: weight and bias."""
    split, b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    c, tile = tl.arange(0, BC), tl.arange(0, BN)
    image += b // shared_by * count * C
    out += b * count * C
    length = T
    if HAS_LENGTHS:
        length = tl.load(lengths + b).to(tl.int32)
    j = tl.arange(0, BQ)
    m, w = tl.full((BQ,), -float("inf"), tl.float32), tl.zeros((BQ,), tl.float32)
    a = tl.zeros((BQ, BC if NEXT else 1), tl.float32)
    for first in range(split * per_split, tl.minimum((split + 1) * per_split, count), BN):
        n = first + tile
        at, inside = n[:, None] * token_stride + c[None, :] * channel_stride, (n < count)[:, None] & (c < C)[None, :]
        x = tl.load(image + at, mask=inside, other=0.0)
        query = x
        if HAS_POSITION:
            query += tl.load(position + at, mask=inside, other=0.0)
        new = tl.zeros((BN, BC), tl.float32) + tl.load(out_bias + c, mask=c < C, other=0.0)[None, :]
        for column in range(0, H * TP, BJ):
            new = attend(query, keys, bias, values, b, column, c, new, length, C, H, T, TP, BJ, PRECISION)
        if RESIDUAL:
            new += x.to(tl.float32)
        if NORM:
            new = tl.where((c < C)[None, :], new - tl.sum(new, 1, keep_dims=True) / C, 0.0)
            new *= tl.rsqrt(tl.sum(new * new, 1, keep_dims=True) / C + eps)
            new *= tl.load(norm + c, mask=c < C, other=0.0)[None, :]
            new += tl.load(norm + C + c, mask=c < C, other=0.0)[None, :]
        result = new.to(out.dtype.element_ty)
        tl.store(out + at, result, mask=inside)
        if NEXT:
            asked = tl.load(rows + (b * H * T + j)[:, None] * C + c[None, :], mask=(j < H * T)[:, None], other=0.0)
            key = result
            if HAS_POSITION:
                key += tl.load(position + at, mask=inside, other=0.0)
            beyond = tl.where(n < count, 0.0, -float("inf"))[None, :]
            m, w, a = mix(asked, key, result, beyond, m, w, a, PRECISION)
    if NEXT:
        part = (b * tl.num_programs(0) + split) * (H * T) + j
        store_split(acc, top, weight, part, c, j < H * T, m, w, a, C)


# ---------------------------------------------------------------- launch


def multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4


def input_precision(x: torch.Tensor) -> str:
    """How ``tl.dot`` multiplies float32, as ``torch.get_float32_matmul_precision()`` says: float32 as three products of
    TF32, whose error is float32's. Before sm_80 there is no TF32."""
    if x.dtype != torch.float32 or x.device.type != "cuda" or torch.cuda.get_device_capability(x.device)[0] < 8:
        return "ieee"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def power_of_two(count: int, least: int = 16) -> int:
    return max(least, triton.next_power_of_2(count))


def splits_of(count: int, prompts: int, tile: int, device: torch.device) -> tuple[int, int]:
    """(number of splits, image tokens of each): programs for half of the multiprocessors, as every program leaves a
    partial sum of 64 KB; more than one a multiprocessor with many prompts, which have no such choice."""
    wanted = max(1, multiprocessors(device) // (2 * prompts))
    tiles = triton.cdiv(count, tile)
    each = triton.cdiv(tiles, min(tiles, wanted, 128)) * tile
    return triton.cdiv(count, each), each


def partials(prompts: int, splits: int, rows: int, width: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Sums, largest scores and weights of every split."""
    sums = torch.empty(prompts, splits, rows, width, device=device)
    return sums, *torch.empty(2, prompts, splits, rows, device=device).unbind()


def prompt_to_image(
    image: torch.Tensor, position: torch.Tensor | None, rows: torch.Tensor, hidden: torch.Tensor | None = None,
    precision: str | None = None,
) -> torch.Tensor:  # fmt: skip
    """Image tokens mixed by softmax of their products with rows (B, H, T, C): (B, H, T, C), float32.

    ``image`` is (B', C, ...), B' a divisor of B, ``position`` (1, C, ...) the same for all, ``hidden`` (B, T, ...) added
    to the products of all heads.
    """
    prompts, heads, tokens, channels = rows.shape
    image, position, rows = plain(image), plain(position, image), rows.to(image.dtype).contiguous()
    count, total = image[0, 0].numel(), heads * tokens
    block = min(64, power_of_two(total))
    splits, each = splits_of(count, prompts * triton.cdiv(total, block), 32, image.device)
    acc, top, weight = partials(prompts, splits, total, channels, image.device)
    width = power_of_two(channels)
    split_kernel[(splits, triton.cdiv(total, block), prompts)](
        image, image if position is None else position, rows,
        rows if hidden is None else hidden.float().contiguous(), acc, top, weight, count, each, 1, count,
        prompts // len(image), total, tokens, C=channels, BC=width, BJ=block, BN=32, HAS_POSITION=position is not None,
        HAS_HIDDEN=hidden is not None, PRECISION=precision or input_precision(image), num_warps=8, num_stages=1,
    )  # fmt: skip
    mixed = torch.empty(prompts, heads, tokens, channels, device=image.device)
    combine_kernel[(total, prompts)](
        acc, top, weight, mixed, splits, total, C=channels, BC=width, S=triton.next_power_of_2(splits), num_warps=4
    )
    return mixed


def image_to_prompt(
    image: torch.Tensor, position: torch.Tensor | None, keys: torch.Tensor, bias: torch.Tensor, values: torch.Tensor,
    out_bias: torch.Tensor, norm: torch.Tensor | None = None, lengths: torch.Tensor | None = None,
    residual: bool = False, eps: float = 0.0, precision: str | None = None,
) -> torch.Tensor:  # fmt: skip
    """(B, C, ...): the image's tokens attend to the first ``lengths`` of the tokens (B, H, T, C); ``norm`` is (2, C)."""
    prompts, heads, tokens, channels = keys.shape
    image, position = plain(image), plain(position, image)
    keys, values = (x.to(image.dtype).contiguous() for x in (keys, values))
    count, columns, tile = image[0, 0].numel(), triton.next_power_of_2(tokens), 16
    splits, each = splits_of(count, prompts, tile, image.device)
    out, unused = image.new_empty(prompts, *image.shape[1:]), keys
    image_kernel[(splits, prompts)](
        image, image if position is None else position, keys, bias.float().contiguous(), values,
        keys if lengths is None else lengths, out_bias, out_bias if norm is None else norm, out, *[unused] * 4,
        count, each, 1, count, prompts // len(image), eps,
        C=channels, BC=power_of_two(channels), H=heads, T=tokens, TP=columns, BJ=max(32, columns), BQ=16, BN=tile,
        HAS_POSITION=position is not None, HAS_LENGTHS=lengths is not None, RESIDUAL=residual, NORM=norm is not None,
        NEXT=False, PRECISION=precision or input_precision(image), num_warps=8, num_stages=1,
    )  # fmt: skip
    return out


def plain(x: torch.Tensor | None, like: torch.Tensor | None = None) -> torch.Tensor | None:
    """Contiguous, and of one type with ``like``: the kernels add and multiply the two."""
    if x is None:
        return None
    return (x if like is None else x.to(like.dtype)).contiguous()
