"""Attention between prompt and image tokens on a GPU, with the projections of the image side folded into the prompt.

The image is read once, in place of three projections of it: a row ``r = W_k^T q`` for every prompt token and head gives
the score ``r . (x + position)``, and the values stay in image space until the few mixed rows are projected.

prompt_to_image   one program per split of the image tokens and block of rows, online softmax; a second launch combines.
image_to_prompt   one program per tile of image tokens: all heads, residual and LayerNorm in one pass.

Sums, softmax and LayerNorm in float32; products in the type of the image, float32 ones as ``precision`` says.
"""

import torch
import triton
import triton.language as tl

ABSENT = -1e30  # score of a prompt token that is not there


@triton.jit
def split_kernel(
    image, position, rows, acc, top, weight, count, per_split, image_stride, shared_by, row_count,
    C: tl.constexpr, BC: tl.constexpr, BJ: tl.constexpr, BN: tl.constexpr, HAS_POSITION: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Softmax-weighted sums of the image tokens of one split, for BJ rows. Grid (splits, row blocks, prompts)."""
    split, b = tl.program_id(0), tl.program_id(2).to(tl.int64)
    c, j, tile = tl.arange(0, BC), tl.program_id(1) * BJ + tl.arange(0, BJ), tl.arange(0, BN)
    row = rows + (b * row_count + j)[:, None] * C + c[None, :]
    query = tl.load(row, mask=(j < row_count)[:, None] & (c < C)[None, :], other=0.0)
    image += b // shared_by * image_stride
    m, w = tl.full((BJ,), -float("inf"), tl.float32), tl.zeros((BJ,), tl.float32)
    a = tl.zeros((BJ, BC), tl.float32)
    for first in range(split * per_split, tl.minimum((split + 1) * per_split, count), BN):
        n = first + tile
        inside = (n < count)[:, None] & (c < C)[None, :]
        value = tl.load(image + n[:, None] * C + c[None, :], mask=inside, other=0.0)
        key = value
        if HAS_POSITION:
            key += tl.load(position + n[:, None] * C + c[None, :], mask=inside, other=0.0)
        score = tl.dot(query, tl.trans(key), input_precision=PRECISION)
        score = tl.where((n < count)[None, :], score, -float("inf"))
        new_m = tl.maximum(m, tl.max(score, 1))
        p, shrink = tl.exp(score - new_m[:, None]), tl.exp(m - new_m)
        w = w * shrink + tl.sum(p, 1)
        a = tl.dot(p.to(value.dtype), value, a * shrink[:, None], input_precision=PRECISION)
        m = new_m
    part = (b * tl.num_programs(0) + split) * row_count + j
    there = j < row_count
    tl.store(acc + part[:, None] * C + c[None, :], a, mask=there[:, None] & (c < C)[None, :])
    tl.store(top + part, m, mask=there)
    tl.store(weight + part, w, mask=there)


@triton.jit
def combine_kernel(acc, top, weight, out, splits, row_count, C: tl.constexpr, BC: tl.constexpr, S: tl.constexpr):
    """Merges the splits of one row. Grid (rows, prompts)."""
    j, b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    c, s = tl.arange(0, BC), tl.arange(0, S)
    part = (b * splits + s) * row_count + j
    m = tl.load(top + part, mask=s < splits, other=-float("inf"))
    scale = tl.exp(m - tl.max(m, 0))
    total = tl.sum(scale * tl.load(weight + part, mask=s < splits, other=0.0), 0)
    a = tl.load(acc + part[:, None] * C + c[None, :], mask=(s < splits)[:, None] & (c < C)[None, :], other=0.0)
    tl.store(out + (b * row_count + j) * C + c, tl.sum(a * scale[:, None], 0) / total, mask=c < C)


@triton.jit
def image_kernel(
    image, position, keys, bias, values, out_bias, norm_weight, norm_bias, out, count, image_stride, shared_by, eps,
    C: tl.constexpr, BC: tl.constexpr, H: tl.constexpr, T: tl.constexpr, BN: tl.constexpr,
    HAS_POSITION: tl.constexpr, RESIDUAL: tl.constexpr, NORM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BN image tokens attend to the T (padded) prompt tokens of every head. Grid (tiles of tokens, prompts)."""
    b = tl.program_id(1).to(tl.int64)
    c, t, n = tl.arange(0, BC), tl.arange(0, T), tl.program_id(0) * BN + tl.arange(0, BN)
    at, inside = n[:, None] * C + c[None, :], (n < count)[:, None] & (c < C)[None, :]
    x = tl.load(image + b // shared_by * image_stride + at, mask=inside, other=0.0)
    query = x
    if HAS_POSITION:
        query += tl.load(position + at, mask=inside, other=0.0)
    new = tl.zeros((BN, BC), tl.float32) + tl.load(out_bias + c, mask=c < C, other=0.0)[None, :]
    for h in range(H):
        row = (b * H + h) * T + t
        key = tl.load(keys + row[:, None] * C + c[None, :], mask=(c < C)[None, :], other=0.0)
        added = tl.load(bias + row)  # ABSENT: no such token
        score = tl.dot(query, tl.trans(key), input_precision=PRECISION) + added[None, :]
        p = tl.where(added[None, :] > -1e29, tl.exp(score - tl.max(score, 1, keep_dims=True)), 0.0)
        p = (p / tl.maximum(tl.sum(p, 1, keep_dims=True), 1e-30)).to(x.dtype)
        value = tl.load(values + row[:, None] * C + c[None, :], mask=(c < C)[None, :], other=0.0)
        new = tl.dot(p, value, new, input_precision=PRECISION)
    if RESIDUAL:
        new += x.to(tl.float32)
    if NORM:
        new = tl.where((c < C)[None, :], new - tl.sum(new, 1, keep_dims=True) / C, 0.0)
        new *= tl.rsqrt(tl.sum(new * new, 1, keep_dims=True) / C + eps)
        new *= tl.load(norm_weight + c, mask=c < C, other=0.0)[None, :]
        new += tl.load(norm_bias + c, mask=c < C, other=0.0)[None, :]
    tl.store(out + b * count * C + at, new.to(out.dtype.element_ty), mask=inside)


def heads_of(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """(H d, ...) as (H, d, ...)."""
    return weight.float().unflatten(0, (heads, -1))


def project(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, heads: int) -> torch.Tensor:
    """(B, T, C) as (B, H, T, d), float32."""
    y = torch.nn.functional.linear(x.float(), weight.float(), None if bias is None else bias.float())
    return y.unflatten(-1, (heads, -1)).transpose(1, 2)


def prompt_to_image(
    prompt: torch.Tensor, prompt_position: torch.Tensor | None, image: torch.Tensor, position: torch.Tensor | None,
    weights: object, heads: int, scale: float, precision: str = "ieee", splits: int = 32,
) -> torch.Tensor:  # fmt: skip
    """Prompt tokens (B, T, C) attend to image tokens (B', N, C), B' a divisor of B; (B, T, C) float32.
    ``position`` is (1, N, C), the same for all images.

    ``weights`` has query_weight ... out_bias, as ``fastprompt.reference.attention`` takes them.
    """
    (batch, count, channels), w, n = prompt.shape, weights, image.shape[1]
    query = project(
        prompt if prompt_position is None else prompt + prompt_position, w.query_weight, w.query_bias, heads
    )
    rows = scale * torch.einsum("bhtd,hdc->bhtc", query, heads_of(w.key_weight, heads))  # W_k's bias: alike for all n
    rows, total, block = rows.to(image.dtype).contiguous(), heads * count, 64
    per_split = triton.cdiv(triton.cdiv(n, splits), 32) * 32
    splits = triton.cdiv(n, per_split)
    acc = torch.empty(batch, splits, total, channels, device=image.device)
    top, weight = torch.empty(2, batch, splits, total, device=image.device).unbind()
    width = max(16, triton.next_power_of_2(channels))
    split_kernel[(splits, triton.cdiv(total, block), batch)](
        image, image if position is None else position, rows, acc, top, weight, n, per_split, n * channels,
        batch // len(image), total,
        C=channels, BC=width, BJ=block, BN=32, HAS_POSITION=position is not None, PRECISION=precision,
        num_warps=8, num_stages=2,
    )  # fmt: skip
    mixed = torch.empty(batch, heads, count, channels, device=image.device)
    combine_kernel[(total, batch)](
        acc, top, weight, mixed, splits, total, C=channels, BC=width, S=triton.next_power_of_2(splits), num_warps=4
    )
    value = torch.einsum("bhtc,hdc->bhtd", mixed, heads_of(w.value_weight, heads))
    if w.value_bias is not None:
        value = value + heads_of(w.value_bias, heads)[:, None]
    value = value.transpose(1, 2).flatten(2)
    return torch.nn.functional.linear(value, w.out_weight.float(), None if w.out_bias is None else w.out_bias.float())


def image_to_prompt(
    image: torch.Tensor, position: torch.Tensor | None, prompt: torch.Tensor, prompt_position: torch.Tensor | None,
    weights: object, heads: int, scale: float, lengths: torch.Tensor | None = None, residual: bool = False,
    norm: tuple[torch.Tensor, torch.Tensor, float] | None = None, precision: str = "ieee",
) -> torch.Tensor:  # fmt: skip
    """Image tokens (B', N, C) attend to prompt tokens (B, T, C), the first ``lengths`` (B) of them; (B, N, C)."""
    (batch, count, channels), w, n = prompt.shape, weights, image.shape[1]
    key = project(prompt if prompt_position is None else prompt + prompt_position, w.key_weight, w.key_bias, heads)
    value = project(prompt, w.value_weight, w.value_bias, heads)
    padded = max(16, triton.next_power_of_2(count))
    keys, values = torch.zeros(2, batch, heads, padded, channels, dtype=image.dtype, device=image.device).unbind()
    keys[:, :, :count] = scale * torch.einsum("bhtd,hdc->bhtc", key, heads_of(w.query_weight, heads))
    values[:, :, :count] = torch.einsum("bhtd,chd->bhtc", value, w.out_weight.float().unflatten(1, (heads, -1)))
    bias = torch.full((batch, heads, padded), ABSENT, device=image.device)
    bias[:, :, :count] = 0 if w.query_bias is None else scale * (key * heads_of(w.query_bias, heads)[:, None]).sum(-1)
    if lengths is not None:
        absent = torch.arange(padded, device=image.device) >= lengths[:, None]
        bias.masked_fill_(absent[:, None], ABSENT)
    out_bias = torch.zeros(channels, device=image.device) if w.out_bias is None else w.out_bias.float()
    out = image.new_empty(batch, n, channels)
    image_kernel[(triton.cdiv(n, 32), batch)](
        image, image if position is None else position, keys, bias, values, out_bias,
        out_bias if norm is None else norm[0].float(), out_bias if norm is None else norm[1].float(), out,
        n, n * channels, batch // len(image), 0.0 if norm is None else norm[2],
        C=channels, BC=max(16, triton.next_power_of_2(channels)), H=heads, T=padded, BN=32,
        HAS_POSITION=position is not None, RESIDUAL=residual, NORM=norm is not None, PRECISION=precision,
        num_warps=8, num_stages=1,
    )  # fmt: skip
    return out
