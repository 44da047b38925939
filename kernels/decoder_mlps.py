"""The small MLPs behind SAM's output tokens on a GPU: a few prompts, and weights that one multiprocessor would stream
for too long. So the hidden columns of every MLP are split over programs, and all MLPs share each launch.

Two launches for three layers: ``layer_kernel`` makes a hidden layer; ``last_kernel`` the last hidden columns and what
they add to the outputs, and the program that comes last sums the parts, in the same order in every run.

Sums in float32; products in the type of the tokens, float32 ones as ``precision`` says.
"""

import torch
import triton
import triton.language as tl
from fastprompt.kernels.attention import power_of_two
from fastprompt.kernels.jit import jit

from fastprompt._gpu import products


@triton.jit
def chosen(pointers, k):
    """``pointers[k]`` of a tuple, for a k that is known in the program only."""
    found = pointers[0]
    for n in tl.static_range(1, len(pointers)):
        found = tl.where(k == n, pointers[n], found)
    return found


@triton.jit
def hidden(
    x, row, p, prompts, weight, bias, column,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, BP: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr,
    TYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """ReLU(W x + b) for BP prompts and BO columns."""
    total = tl.zeros((BP, BO), tl.float32)
    for first in range(0, INPUTS, BI):
        i = first + tl.arange(0, BI)
        value = tl.load(
            x + p[:, None] * row + i[None, :], mask=(p < prompts)[:, None] & (i < INPUTS)[None, :], other=0.0
        )
        w = tl.load(weight + column[:, None] * INPUTS + i[None, :],
                    mask=(column < OUTPUTS)[:, None] & (i < INPUTS)[None, :], other=0.0)  # fmt: skip
        total = tl.dot(value.to(TYPE), tl.trans(w.to(TYPE)), total, input_precision=PRECISION)
    total += tl.load(bias + column, mask=column < OUTPUTS, other=0.0).to(tl.float32)[None, :]
    return tl.where(total < 0, 0.0, total)


@jit
def layer_kernel(
    x, row, starts, weights, biases, out, arrived, prompts,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, BP: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr,
    PRECISION: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """A hidden layer of every MLP: (MLPs, prompts, OUTPUTS) float32. Grid (blocks of columns, MLPs, blocks of prompts).
    ``starts``: where x of each MLP begins. ``arrived``: cleared for ``last_kernel``."""
    k = tl.program_id(1)
    p, column = tl.program_id(2) * BP + tl.arange(0, BP), tl.program_id(0) * BO + tl.arange(0, BO)
    value = hidden(x + chosen(starts, k), row, p, prompts, chosen(weights, k), chosen(biases, k), column,
                   INPUTS, OUTPUTS, BP, BI, BO, TYPE, PRECISION)  # fmt: skip
    tl.store(out + (k * prompts + p)[:, None] * OUTPUTS + column[None, :], value,
             mask=(p < prompts)[:, None] & (column < OUTPUTS)[None, :])  # fmt: skip
    if tl.program_id(0) == 0:
        tl.store(arrived + tl.program_id(2) * tl.num_programs(1) + k, 0)


@jit
def last_kernel(
    x, row, starts, weights, biases, last_weights, last_biases, widths, outs, parts, arrived, prompts,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, BP: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr, BW: tl.constexpr,
    PRECISION: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """The last hidden layer and the outputs, ``widths`` of them. Grid (blocks of columns, MLPs, blocks of prompts)."""
    k, blocks = tl.program_id(1), tl.num_programs(0)
    p, column = tl.program_id(2) * BP + tl.arange(0, BP), tl.program_id(0) * BO + tl.arange(0, BO)
    value = hidden(x + chosen(starts, k), row, p, prompts, chosen(weights, k), chosen(biases, k), column,
                   INPUTS, OUTPUTS, BP, BI, BO, TYPE, PRECISION)  # fmt: skip
    j, width = tl.arange(0, BW), chosen(widths, k)
    w = tl.load(chosen(last_weights, k) + j[:, None] * OUTPUTS + column[None, :],
                mask=(j < width)[:, None] & (column < OUTPUTS)[None, :], other=0.0)  # fmt: skip
    part = tl.dot(value.to(TYPE), tl.trans(w.to(TYPE)), input_precision=PRECISION)
    mine = tl.program_id(2) * tl.num_programs(1) + k
    at = tl.arange(0, BP)[:, None] * BW + j[None, :]
    parts += mine * blocks * BP * BW
    tl.store(parts + tl.program_id(0) * BP * BW + at, part)
    tl.debug_barrier()  # all of the part is written before the program says so; Triton 3.8 waits of its own accord
    if tl.atomic_add(arrived + mine, 1, sem="acq_rel") == blocks - 1:
        total = tl.zeros((BP, BW), tl.float32)
        for n in range(blocks):
            total += tl.load(parts + n * BP * BW + at, volatile=True)
        total += tl.load(chosen(last_biases, k) + j, mask=j < width, other=0.0).to(tl.float32)[None, :]
        out = chosen(outs, k)
        tl.store(out + p[:, None] * width + j[None, :], total.to(out.dtype.element_ty),
                 mask=(p < prompts)[:, None] & (j < width)[None, :])  # fmt: skip


def token_mlps(
    tokens: torch.Tensor, rows: list[int], weights: list[torch.Tensor], layers: int, precision: str | None = None
) -> list[torch.Tensor]:
    """``mlp(tokens[:, row])`` of each MLP: tokens (B, T, C) and ``layers`` >= 2 linear layers with ReLU between them,
    whose weights and biases follow each other in ``weights``, contiguous. Hidden widths are the same in all MLPs."""
    tokens = tokens.contiguous()
    (prompts, count, channels), mlps = tokens.shape, len(rows)
    own = [weights[2 * layers * k : 2 * layers * (k + 1)] for k in range(mlps)]
    stage = [(tuple(w[2 * n] for w in own), tuple(w[2 * n + 1] for w in own)) for n in range(layers)]
    outs = tuple(tokens.new_empty(prompts, len(w)) for w in stage[-1][0])
    if prompts == 0:
        return list(outs)
    block = 16  # of prompts, and of columns: 80 programs for SAM's five MLPs of 256 hidden columns
    tiles = triton.cdiv(prompts, block)
    arrived = (torch.empty if layers > 2 else torch.zeros)(tiles * mlps, dtype=torch.int32, device=tokens.device)
    kind = getattr(tl, str(tokens.dtype).removeprefix("torch."))
    shared = {"BP": block, "BO": block, "PRECISION": precision or products(tokens), "TYPE": kind, "num_warps": 4}
    x, row, starts = tokens, count * channels, tuple(channels * r for r in rows)
    for n in range(layers - 1):
        inputs, outputs = x.shape[-1], len(stage[n][0][0])
        grid = triton.cdiv(outputs, block), mlps, tiles
        sizes = {"INPUTS": inputs, "OUTPUTS": outputs, "BI": min(128, power_of_two(inputs)), **shared}
        if n < layers - 2:
            out = tokens.new_empty(mlps, prompts, outputs, dtype=torch.float32)
            layer_kernel[grid](x, row, starts, *stage[n], out, arrived, prompts, **sizes)
            x, row, starts = out, outputs, tuple(k * prompts * outputs for k in range(mlps))
    widths = tuple(o.shape[1] for o in outs)
    padded = power_of_two(max(widths))
    parts = tokens.new_empty(tiles, mlps, grid[0], block, padded, dtype=torch.float32)
    last_kernel[grid](x, row, starts, *stage[-2], *stage[-1], widths, outs, parts, arrived, prompts, BW=padded, **sizes)
    return list(outs)
