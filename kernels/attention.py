"""Attention between prompt and image tokens on a GPU, with the projections of the image side folded into the prompt.

The image is read once, in place of three projections of it: a row ``r = W_k^T q`` for every prompt token and head gives
the score ``r . (x + position)``, and the values stay in image space until the few mixed rows are projected.

split_kernel     prompt to image: one program per split of the image tokens and block of rows, online softmax;
combine_kernel   merges the splits.
image_kernel     image to prompt: all heads, residual and LayerNorm in one pass; with NEXT also the prompt to image that
                 follows, whose rows do not depend on this pass, split by split.

Sums, softmax and LayerNorm in float32; products in the type of the image, float32 ones as ``precision`` says. Image
tokens may lie token by token or, as feature maps do, channel by channel.
"""

import torch
import triton
import triton.language as tl
from fastprompt.kernels.jit import jit

from fastprompt._gpu import products as products_of_float32


@triton.jit
def load_tile(image, position, n, c, count, token_stride, channel_stride, C: tl.constexpr, HAS_POSITION: tl.constexpr):
    """(n, c) of the image, plus its positions."""
    at, inside = n[:, None] * token_stride + c[None, :] * channel_stride, (n < count)[:, None] & (c < C)[None, :]
    x = tl.load(image + at, mask=inside, other=0.0)
    if HAS_POSITION:
        x += tl.load(position + at, mask=inside, other=0.0)
    return x


@triton.jit
def products(
    rows, row, there, image, position, n, count, token_stride, channel_stride, C: tl.constexpr, BK: tl.constexpr,
    HAS_POSITION: tl.constexpr, ROWS_FIRST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of rows (.., C) with image tokens n, BK channels at a time: all of them would fill the registers."""
    if ROWS_FIRST:
        score = tl.zeros((row.shape[0], n.shape[0]), tl.float32)
    else:
        score = tl.zeros((n.shape[0], row.shape[0]), tl.float32)
    for first in range(0, C, BK):
        c = first + tl.arange(0, BK)
        x = load_tile(image, position, n, c, count, token_stride, channel_stride, C, HAS_POSITION)
        r = tl.load(rows + row[:, None] * C + c[None, :], mask=there[:, None] & (c < C)[None, :], other=0.0)
        if ROWS_FIRST:
            score = tl.dot(r, tl.trans(x), score, input_precision=PRECISION)
        else:
            score = tl.dot(x, tl.trans(r), score, input_precision=PRECISION)
    return score


@triton.jit
def mix_split(
    image, position, rows, hidden, acc, top, weight, b, split, splits, j, per_split, count, token_stride,
    channel_stride, row_count, prompt_tokens, C: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr, BN: tl.constexpr,
    HAS_POSITION: tl.constexpr, HAS_HIDDEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Softmax-weighted sums of the image tokens of one split, for the rows j of prompt b."""
    c, there = tl.arange(0, BC), j < row_count
    m, w = tl.full(j.shape, -float("inf"), tl.float32), tl.zeros(j.shape, tl.float32)
    a = tl.zeros((j.shape[0], BC), tl.float32)
    for first in range(split * per_split, tl.minimum((split + 1) * per_split, count), BN):
        n = first + tl.arange(0, BN)
        score = products(rows, b * row_count + j, there, image, position, n, count, token_stride, channel_stride,
                         C, BK, HAS_POSITION, True, PRECISION)  # fmt: skip
        if HAS_HIDDEN:  # (prompts, prompt tokens, image tokens)
            place = (b * prompt_tokens + j % prompt_tokens)[:, None] * count + n[None, :]
            score += tl.load(hidden + place, mask=there[:, None] & (n < count)[None, :], other=0.0)
        score = tl.where((n < count)[None, :], score, -float("inf"))
        new = tl.maximum(m, tl.max(score, 1))
        peak = tl.where(new > -float("inf"), new, 0.0)  # it saw no token so far
        p, shrink = tl.exp(score - peak[:, None]), tl.exp(m - peak)
        value = load_tile(image, position, n, c, count, token_stride, channel_stride, C, False)
        a = tl.dot(p.to(value.dtype), value, a * shrink[:, None], input_precision=PRECISION)
        m, w = new, w * shrink + tl.sum(p, 1)
    part = (b * splits + split) * row_count + j
    tl.store(acc + part[:, None] * C + c[None, :], a, mask=there[:, None] & (c < C)[None, :])
    tl.store(top + part, m, mask=there)
    tl.store(weight + part, w, mask=there)


@jit
def split_kernel(
    image, position, rows, hidden, acc, top, weight, count, per_split, token_stride, channel_stride, shared_by,
    row_count, prompt_tokens, C: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr, BJ: tl.constexpr, BN: tl.constexpr,
    HAS_POSITION: tl.constexpr, HAS_HIDDEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The rows of all prompts. Grid (splits, row blocks, prompts)."""
    b, j = tl.program_id(2).to(tl.int64), tl.program_id(1) * BJ + tl.arange(0, BJ)
    mix_split(
        image + b // shared_by * count * C, position, rows, hidden, acc, top, weight, b, tl.program_id(0),
        tl.num_programs(0), j, per_split, count, token_stride, channel_stride, row_count, prompt_tokens,
        C, BC, BK, BN, HAS_POSITION, HAS_HIDDEN, PRECISION,
    )  # fmt: skip


@triton.jit
def merged(acc, top, weight, first, step, splits, W: tl.constexpr, BW: tl.constexpr, S: tl.constexpr):
    """(BW,): one row of all splits, the first at ``first``, S at a time; 0 where there was nothing to see."""
    c, peak, total, a = tl.arange(0, BW), -float("inf"), 0.0, tl.zeros((BW,), tl.float32)
    for start in range(0, splits, S):
        s = start + tl.arange(0, S)
        part = first + s.to(tl.int64) * step
        m = tl.load(top + part, mask=s < splits, other=-float("inf"))
        new = tl.maximum(peak, tl.max(m, 0))
        safe = tl.where(new > -float("inf"), new, 0.0)
        share, shrink = tl.exp(m - safe), tl.exp(peak - safe)
        total = total * shrink + tl.sum(share * tl.load(weight + part, mask=s < splits, other=0.0), 0)
        tile = tl.load(acc + part[:, None] * W + c[None, :], mask=(s < splits)[:, None] & (c < W)[None, :], other=0.0)
        a = a * shrink + tl.sum(tile * share[:, None], 0)
        peak = new
    return a / tl.maximum(total, 1e-37)


@jit
def combine_kernel(acc, top, weight, out, splits, row_count, C: tl.constexpr, BC: tl.constexpr, S: tl.constexpr):
    """Merges the splits of one row. Grid (rows, prompts)."""
    j, b, c = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.arange(0, BC)
    a = merged(acc, top, weight, b * splits * row_count + j, row_count, splits, C, BC, S)
    tl.store(out + (b * row_count + j) * C + c, a, mask=c < C)


@triton.jit
def attend(
    image, position, keys, bias, values, b, first, n, length, new, count, token_stride, channel_stride,
    C: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr, H: tl.constexpr, T: tl.constexpr, TP: tl.constexpr,
    BJ: tl.constexpr, HAS_POSITION: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds to ``new`` what the heads of BJ columns give, TP columns of each of which T are tokens."""
    c, j = tl.arange(0, BC), first + tl.arange(0, BJ)
    head, t = j // TP, j % TP
    row, there = (b * H + head) * T + t, (head < H) & (t < tl.minimum(T, length))
    score = products(keys, row, there, image, position, n, count, token_stride, channel_stride, C, BK, HAS_POSITION,
                     False, PRECISION)  # fmt: skip
    score += tl.load(bias + row, mask=there, other=0.0)[None, :]
    score = tl.where(there[None, :], score, -1e30)
    p = tl.reshape(score, (n.shape[0], BJ // TP, TP))
    p = tl.exp(p - tl.max(p, 2, keep_dims=True))
    p = tl.reshape(p / tl.sum(p, 2, keep_dims=True), (n.shape[0], BJ))
    p = tl.where(there[None, :], p, 0.0)  # a head that is not there sees all alike
    value = tl.load(values + row[:, None] * C + c[None, :], mask=there[:, None] & (c < C)[None, :], other=0.0)
    return tl.dot(p.to(value.dtype), value, new, input_precision=PRECISION)


@jit
def image_kernel(
    image, position, keys, bias, values, lengths, out_bias, norm, out, rows, acc, top, weight, count, per_split,
    token_stride, channel_stride, shared_by, eps,
    C: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr, H: tl.constexpr, T: tl.constexpr, TP: tl.constexpr,
    BJ: tl.constexpr, BN: tl.constexpr, BQ: tl.constexpr, BM: tl.constexpr, HAS_POSITION: tl.constexpr,
    HAS_LENGTHS: tl.constexpr, RESIDUAL: tl.constexpr, NORM: tl.constexpr, NEXT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Image tokens of one split attend to the T prompt tokens of every head. Grid (splits, prompts). ``out`` may be
    ``image``. ``norm``: weight and bias. With NEXT the rows then attend to what was written, which is still near."""
    split, b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    c = tl.arange(0, BC)
    image += b // shared_by * count * C
    out += b * count * C
    length = T
    if HAS_LENGTHS:
        length = tl.load(lengths + b).to(tl.int32)
    for first in range(split * per_split, tl.minimum((split + 1) * per_split, count), BN):
        n = first + tl.arange(0, BN)
        new = tl.zeros((BN, BC), tl.float32) + tl.load(out_bias + c, mask=c < C, other=0.0)[None, :]
        for column in range(0, H * TP, BJ):
            new = attend(image, position, keys, bias, values, b, column, n, length, new, count, token_stride,
                         channel_stride, C, BC, BK, H, T, TP, BJ, HAS_POSITION, PRECISION)  # fmt: skip
        if RESIDUAL:
            new += load_tile(image, position, n, c, count, token_stride, channel_stride, C, False).to(tl.float32)
        if NORM:
            new = tl.where((c < C)[None, :], new - tl.sum(new, 1, keep_dims=True) / C, 0.0)
            new *= tl.rsqrt(tl.sum(new * new, 1, keep_dims=True) / C + eps)
            new *= tl.load(norm + c, mask=c < C, other=0.0)[None, :]
            new += tl.load(norm + C + c, mask=c < C, other=0.0)[None, :]
        at, inside = n[:, None] * token_stride + c[None, :] * channel_stride, (n < count)[:, None] & (c < C)[None, :]
        tl.store(out + at, new.to(out.dtype.element_ty), mask=inside)
    if NEXT:
        tl.debug_barrier()  # other warps wrote what this one reads
        for block in range(0, H * T, BQ):
            mix_split(
                out, position, rows, rows, acc, top, weight, b, split, tl.num_programs(0), block + tl.arange(0, BQ),
                per_split, count, token_stride, channel_stride, H * T, T, C, BC, BK, BM, HAS_POSITION, False, PRECISION,
            )  # fmt: skip


# ---------------------------------------------------------------- launch


SPLITS = 32  # merged at a time: 32 sums of 256 channels are 64 registers of 128 threads


def multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4


def input_precision(x: torch.Tensor) -> str:
    """How ``tl.dot`` multiplies: other types than float32 as they are, with one name, or each name compiles anew."""
    return products_of_float32(x) if x.is_cuda and x.dtype == torch.float32 else "ieee"


def power_of_two(count: int, least: int = 16) -> int:
    return max(least, triton.next_power_of_2(count))


def splits_of(count: int, prompts: int, tile: int, device: torch.device) -> tuple[int, int]:
    """(number of splits, image tokens of each): programs for half of the multiprocessors, as every one leaves a sum of
    64 KB behind; more than one a multiprocessor with many prompts, which have no choice."""
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

    ``image`` is (B', C, ...), B' a divisor of B, ``position`` (1, C, ...) the same for all, ``hidden`` (B, T, ...)
    added to the products of all heads.
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
        prompts // len(image), total, tokens, C=channels, BC=width, BK=min(64, width), BJ=block, BN=32,
        HAS_POSITION=position is not None, HAS_HIDDEN=hidden is not None,
        PRECISION=precision or input_precision(image), num_warps=8, num_stages=1,
    )  # fmt: skip
    mixed = torch.empty(prompts, heads, tokens, channels, device=image.device)
    combine_kernel[(total, prompts)](
        acc,
        top,
        weight,
        mixed,
        splits,
        total,
        C=channels,
        BC=width,
        S=min(SPLITS, triton.next_power_of_2(splits)),
        num_warps=4,
    )
    return mixed


def image_to_prompt(
    image: torch.Tensor, position: torch.Tensor | None, keys: torch.Tensor, bias: torch.Tensor, values: torch.Tensor,
    out_bias: torch.Tensor, norm: torch.Tensor | None = None, lengths: torch.Tensor | None = None,
    residual: bool = False, eps: float = 0.0, precision: str | None = None,
) -> torch.Tensor:  # fmt: skip
    """(B, C, ...), float32: the image's tokens attend to the first ``lengths`` of the tokens (B, H, T, C); ``norm`` is
    (2, C)."""
    prompts, heads, tokens, channels = keys.shape
    image, position = plain(image), plain(position, image)
    keys, values = (x.to(image.dtype).contiguous() for x in (keys, values))
    count, columns, tile = image[0, 0].numel(), triton.next_power_of_2(tokens), 16
    splits, each = splits_of(count, prompts, tile, image.device)
    out, unused = torch.empty(prompts, *image.shape[1:], device=image.device), keys
    image_kernel[(splits, prompts)](
        image, image if position is None else position, keys, bias.float().contiguous(), values,
        keys if lengths is None else lengths, out_bias, out_bias if norm is None else norm, out, *[unused] * 4,
        count, each, 1, count, prompts // len(image), eps,
        C=channels, BC=power_of_two(channels), BK=min(32, power_of_two(channels)), H=heads, T=tokens, TP=columns,
        BJ=max(32, columns), BN=tile, BQ=16, BM=16, HAS_POSITION=position is not None, HAS_LENGTHS=lengths is not None,
        RESIDUAL=residual, NORM=norm is not None, NEXT=False, PRECISION=precision or input_precision(image),
        num_warps=8, num_stages=1,
    )  # fmt: skip
    return out


def plain(x: torch.Tensor | None, like: torch.Tensor | None = None) -> torch.Tensor | None:
    """Contiguous, and of one type with ``like``: the kernels add and multiply the two."""
    if x is None:
        return None
    return (x if like is None else x.to(like.dtype)).contiguous()
