"""SAM's mask head on a GPU: from image tokens to the logits of every mask in one launch.

The arithmetic of ``fastprompt.reference.masks``. A transposed convolution of kernel and stride 2 is a product with its
weights as they lie, (C, 4 M): column 4 m + 2 y + x is channel m of sub-pixel (y, x). So a tile of tokens goes through
both convolutions, LayerNorm, GELU and the masks' vectors in registers: the up-scaled image, 16 times as many pixels, is
never written.

Sums, LayerNorm and GELU in float32; products in the type of the image, float32 ones as ``precision`` says.
"""

import torch
import triton
import triton.language as tl
from fastprompt.kernels.attention import power_of_two
from fastprompt.kernels.jit import jit

from fastprompt._gpu import products

# Tokens, channels of a step, warps, stages; 72 KiB of shared memory in either: one table for all from sm_80 on.
# 32 tokens are 128 programs for SAM's 4096, about one per multiprocessor of a large GPU, and both products are mma;
# with 64, float32 spills. float32: three products of TF32 take 200 registers with 8 warps and spill with 4. Half
# precision: with two stages ptxas spills on sm_100.
TILES = {torch.float32: (32, 32, 8, 2), torch.float16: (32, 64, 8, 3), torch.bfloat16: (32, 64, 8, 3)}


@triton.jit
def gelu(x):
    return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))


@triton.jit
def write(
    features, vectors, out, x, y, inside, masks, height, width, D: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr
):
    """Products of the features (BN, 4 BD) of 2 x 2 pixels from (x, y) on with the vector of every mask."""
    d, s = tl.arange(0, 4 * BD) // 4, tl.arange(0, 4)
    at = (y[:, None] + (s // 2)[None, :]) * 4 * width + x[:, None] + (s % 2)[None, :]
    for k in range(masks):
        vector = tl.load(vectors + k * D + d, mask=d < D, other=0.0).to(tl.float32)
        pixels = tl.sum(tl.reshape(features * vector[None, :], (BN, BD, 4)), 1)
        tl.store(out + tl.cast(k, tl.int64) * 16 * height * width + at, pixels, mask=inside[:, None])


@jit
def mask_head_kernel(
    image, vectors, conv1, bias1, norm_weight, norm_bias, conv2, bias2, detail1, detail2, out,
    prompt_stride, stride, masks, height, width, shared_by, eps,
    C: tl.constexpr, M: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr,
    BC: tl.constexpr, CHANNELS_LAST: tl.constexpr, HAS_DETAIL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BN tokens of one prompt to 16 BN pixels of every mask. Grid (tiles of tokens x prompts)."""
    count = height * width
    tiles = tl.cdiv(count, BN)
    b = (tl.program_id(0) // tiles).to(tl.int64)
    n, c, column = tl.program_id(0) % tiles * BN + tl.arange(0, BN), tl.arange(0, BC), tl.arange(0, 4 * BM)
    inside, m, s = n < count, column // 4, column % 4
    image += b * prompt_stride
    up = tl.zeros((BN, 4 * BM), tl.float32)
    for first in range(0, C, BC):
        there = first + c < C
        at = n[:, None] * stride + (first + c)[None, :] if CHANNELS_LAST else n[:, None] + (first + c)[None, :] * stride
        token = tl.load(image + at, mask=inside[:, None] & there[None, :], other=0.0)
        conv = tl.load(conv1 + (first + c)[:, None] * 4 * M + column[None, :],
                       mask=there[:, None] & (column < 4 * M)[None, :], other=0.0)  # fmt: skip
        up = tl.dot(token, conv.to(token.dtype), up, input_precision=PRECISION)
    up += tl.load(bias1 + m, mask=m < M, other=0.0).to(tl.float32)[None, :]
    x, y = n % width, n // width
    if HAS_DETAIL:
        of_image = b // shared_by * count
        detail1 += of_image * 4 * M
        detail2 += of_image * 16 * D
        at = ((m * 2 * height + s // 2)[None, :] + 2 * y[:, None]) * 2 * width + (s % 2)[None, :] + 2 * x[:, None]
        up += tl.load(detail1 + at, mask=inside[:, None] & (m < M)[None, :], other=0.0).to(tl.float32)
    vectors += b * masks * D
    out += b * masks * 16 * count
    m, column = tl.arange(0, BM), tl.arange(0, 4 * BD)
    norm = tl.load(norm_weight + m, mask=m < M, other=0.0).to(tl.float32)
    shift = tl.load(norm_bias + m, mask=m < M, other=0.0).to(tl.float32)
    d, s = column // 4, column % 4
    left, right = tl.split(tl.reshape(up, (BN, BM, 2, 2)))
    u0, u2 = tl.split(left)
    u1, u3 = tl.split(right)
    for quarter in range(4):  # sub-pixel (sy, sx) of the first convolution; not unrolled: a third of the instructions
        sy, sx = quarter // 2, quarter % 2
        u = tl.where(sy == 0, tl.where(sx == 0, u0, u1), tl.where(sx == 0, u2, u3))
        u = tl.where((m < M)[None, :], u - tl.sum(u, 1, keep_dims=True) / M, 0.0)
        u *= tl.rsqrt(tl.sum(u * u, 1, keep_dims=True) / M + eps)
        u = gelu(u * norm[None, :] + shift[None, :]).to(image.dtype.element_ty)
        conv = tl.load(conv2 + m[:, None] * 4 * D + column[None, :],
                       mask=(m < M)[:, None] & (column < 4 * D)[None, :], other=0.0)  # fmt: skip
        fine = tl.dot(u, conv.to(u.dtype), input_precision=PRECISION)
        fine += tl.load(bias2 + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
        if HAS_DETAIL:
            line = (d * 4 * height + 2 * sy + s // 2)[None, :] + 4 * y[:, None]
            place = line * 4 * width + (2 * sx + s % 2)[None, :] + 4 * x[:, None]
            fine += tl.load(detail2 + place, mask=inside[:, None] & (d < D)[None, :], other=0.0).to(tl.float32)
        write(gelu(fine), vectors, out, 4 * x + 2 * sx, 4 * y + 2 * sy, inside, masks, height, width, D, BD, BN)


def mask_head(
    image: torch.Tensor, vectors: torch.Tensor, conv1: torch.Tensor, bias1: torch.Tensor, norm_weight: torch.Tensor,
    norm_bias: torch.Tensor, conv2: torch.Tensor, bias2: torch.Tensor, detail1: torch.Tensor | None,
    detail2: torch.Tensor | None, eps: float, precision: str | None = None,
) -> torch.Tensor:  # fmt: skip
    """As ``fastprompt.mask_head``: (B, K, 4 H, 4 W) in the type of the image.

    An image (B, C, H, W) that is a view of tokens (B, H W, C) is read as it lies, and one image of many prompts may be
    expanded over them. All weights contiguous.
    """
    (batch, channels, height, width), masks = image.shape, vectors.shape[1]
    middle, depth = conv2.shape[:2]
    out = image.new_empty(batch, masks, 4 * height, 4 * width)
    if out.numel() == 0:
        return out
    own = image.stride()
    channels_last = own[1] == 1 and own[2] == width * own[3]
    if not channels_last and own[2:] != (width, 1):
        image, own = image.contiguous(), (channels * height * width, height * width, width, 1)
    block, step, warps, stages = TILES[image.dtype]
    mask_head_kernel[(triton.cdiv(height * width, block) * batch,)](
        image, vectors, conv1, bias1, norm_weight, norm_bias, conv2, bias2,
        out if detail1 is None else detail1, out if detail2 is None else detail2, out,
        own[0], own[3] if channels_last else own[1], masks, height, width,
        1 if detail1 is None else batch // len(detail1), eps,
        C=channels, M=middle, D=depth, BM=power_of_two(middle), BD=power_of_two(depth), BN=block, BC=step,
        CHANNELS_LAST=channels_last, HAS_DETAIL=detail1 is not None, PRECISION=precision or products(image),
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return out
