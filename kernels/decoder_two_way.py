"""SAM's two-way transformer on a GPU: 2 launches, then for each layer one on the token side and one over the image, and
a last one for the tokens, whatever the number of prompts and images.

``image`` (B', N, C) and ``position`` (N, C) lie token by token, ``keys`` and ``values`` (B', H, N, D) are those of the
first attention to the image: what is known before there is a prompt. ``matrices`` and ``vectors`` as
``two_way_tokens.py`` has them.
"""

from typing import NamedTuple

import torch
import triton
from fastprompt.kernels import attention
from fastprompt.kernels.decoder_two_way_tokens import first_kernel, last_kernel, self_kernel, tokens_kernel

STAGES = 8  # counters of a launch of the token side, which meets up to six times
# Of a block of tokens, at most. With 64 rows of three products of TF32, Triton 3.6 makes wgmma of them on an H100, and
# the first launches then read where nothing is; 32 rows are mma, as everywhere else.
ROWS, ROWS_THRICE = 64, 32


class Blocks(NamedTuple):
    """How the tokens of all prompts are shared out: R rows, ``each`` of them used, in a block; a number of programs for
    each of a number of blocks at a time."""

    rows: int
    each: int
    number: int
    members: int
    groups: int


def rows_of(precision: str) -> int:
    """Rows of a block of tokens, and so tokens of a prompt, at most."""
    return ROWS_THRICE if precision == "tf32x3" else ROWS


def blocks_of(prompts: int, images: int, tokens: int, device: torch.device, precision: str) -> Blocks:
    """At most one program a multiprocessor: all programs of a launch must be resident, as they wait for each other."""
    on_one = prompts // images  # prompts of one image, which a block does not leave
    most = min(on_one, max(1, rows_of(precision) // tokens))
    fitting = next(n for n in range(most, 0, -1) if images == 1 or on_one % n == 0)
    rows = attention.power_of_two(fitting * tokens)
    number, programs = triton.cdiv(prompts, fitting), attention.multiprocessors(device)
    members = max(1, min(32, programs // min(number, max(1, programs // 8))))
    return Blocks(rows, fitting * tokens, number, members, min(number, programs // members))


class Tiles(NamedTuple):
    """Of the pass over the image: image tokens and columns of image to prompt; rows and image tokens of the next prompt
    to image; channels at a time; warps; stages of the loads' pipelines."""

    tokens: int
    columns: int
    rows: int
    next_tokens: int
    channels: int
    warps: int
    stages: int


def tiles_of(rows: int, columns: int, channels: int, dtype: torch.dtype, precision: str) -> Tiles:
    """The largest that do not spill on sm_80 to sm_120: float32 takes twice the registers of bfloat16, and "tf32x3" has
    every operand twice."""
    wide, thrice = dtype == torch.float32, precision == "tf32x3"
    tokens, block, most = 16 if thrice else 32, max(32 if wide else 64, columns), 32 if thrice else 64
    step = min(32 if wide else 64, channels)
    return Tiles(tokens, block, min(most, attention.power_of_two(rows)), tokens, step, 8, 2)


def two_way(
    prompt: torch.Tensor, image: torch.Tensor, position: torch.Tensor, keys: torch.Tensor, values: torch.Tensor,
    matrices: torch.Tensor, vectors: torch.Tensor, heads: int, width: int, mlp: int, depth: int, eps: list[float],
    precision: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Tokens (B, T, C) and image tokens (B, N, C) after all layers; B is a multiple of the images."""
    return Run(prompt, image, position, keys, values, matrices, vectors, heads, width, mlp, depth, precision).layers(
        eps
    )


class Run:
    """The memory and the launches of one call."""

    def __init__(
        self, prompt: torch.Tensor, image: torch.Tensor, position: torch.Tensor, keys: torch.Tensor,
        values: torch.Tensor, matrices: torch.Tensor, vectors: torch.Tensor, heads: int, width: int, mlp: int,
        depth: int, precision: str | None,
    ) -> None:  # fmt: skip
        self.prompts, tokens, channels = prompt.shape
        self.prompt, self.image, self.position, self.kept = prompt.contiguous(), image, position, (keys, values)
        self.matrices, self.vectors, self.inner, self.mlp, self.depth = matrices, vectors, heads * width, mlp, depth
        self.count, self.pixels, device = self.prompts * tokens, image.shape[1], prompt.device
        self.precision = precision or attention.input_precision(image)
        self.sizes = {"T": tokens, "H": heads, "D": width, "C": channels}
        self.total, self.columns = heads * tokens, triton.next_power_of_2(tokens)
        self.blocks = blocks_of(self.prompts, len(image), tokens, device, self.precision)
        step = 32 if image.dtype == torch.float32 else 64  # channels of a product at a time, or registers spill
        self.blocked = {"R": self.blocks.rows, "BK": min(step, channels), "PRECISION": self.precision}
        # No fma: where a thread adds its product to a neighbour's, the two would round differently, and write so.
        self.blocked |= {"num_warps": 8, "num_stages": 2, "enable_fp_fusion": False}
        self.shares = min(self.blocks.members, mlp // self.hidden())
        floats = torch.empty(2 + max(heads, self.shares), self.count, channels, device=device)
        self.tokens, self.work, self.parts = floats[0], floats[1], floats[2:]
        self.counters = torch.empty(
            self.blocks.number, triton.next_power_of_2(STAGES * (depth + 1)), dtype=torch.int32, device=device
        )
        self.rows = image.new_empty(3, self.prompts, self.total, channels)
        self.bias = torch.empty(self.prompts, self.total, device=device)
        self.out = image.new_empty(self.prompts, self.pixels, channels)

    def hidden(self) -> int:
        """Columns of the MLP at a time."""
        return min(32, self.mlp & -self.mlp)

    def layers(self, eps: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
        sums = self.first(eps[0])
        for layer in range(self.depth):
            self.token_side(layer, sums, eps[0])
            sums = self.pass_over(layer, eps[0])
        return self.last(sums, eps[1]), self.out

    def meeting(self, sums: tuple[torch.Tensor, ...]) -> dict[str, int]:
        """What the kernels take whose programs wait for each other: a cooperative launch is refused, not stuck."""
        return {
            "S": min(attention.SPLITS, triton.next_power_of_2(sums[0].shape[1])),
            "K": triton.next_power_of_2(len(self.parts)),
            "COUNTERS": self.counters.shape[1],
            "launch_cooperative_grid": True,
        }

    def own(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Matrices and vectors from the attention to the image of this layer on."""
        channels, inner = self.sizes["C"], self.inner
        rows = 4 * channels + 8 * inner + 2 * self.mlp
        numbers = 6 * inner + self.mlp + 15 * channels
        first = 4 * channels if layer < self.depth else 0, 6 * channels if layer < self.depth else 0
        return self.matrices[layer * rows + first[0] :], self.vectors[layer * numbers + first[1] :]

    def first(self, eps: float) -> tuple[torch.Tensor, ...]:
        """Two launches: the first self-attention, and the first attention to the image."""
        b, s = self.blocks, self.sizes
        self_kernel[(s["H"], b.number)](
            self.prompt, self.matrices, self.vectors, self.parts, self.counters, b.each, self.count,
            T=s["T"], H=s["H"], C=s["C"], COUNTERS=self.counters.shape[1], **self.blocked,
        )  # fmt: skip
        splits, each = attention.splits_of(self.pixels, b.number * s["H"], 64, self.prompt.device)
        sums = attention.partials(self.prompts, splits, self.total, s["D"], self.prompt.device)
        first_kernel[(s["H"], splits, b.number)](
            self.parts, self.prompt, *self.kept, self.matrices, self.vectors, self.tokens, *sums, b.each, self.count,
            self.pixels, each, self.prompts // len(self.image), eps, **s, **self.blocked, BN=64,
        )  # fmt: skip
        return sums

    def token_side(self, layer: int, sums: tuple[torch.Tensor, ...], eps: float) -> None:
        b, s, last = self.blocks, self.sizes, layer == self.depth - 1
        queries, keys, values = self.rows
        narrow = {"BK": 16} if self.precision == "tf32x3" else {}  # with 32, 8 bytes spill
        tokens_kernel[(b.members * b.groups,)](
            *sums, sums[0].shape[1], self.prompt, self.tokens, self.work, self.parts, *self.own(layer), keys, self.bias,
            values, queries, self.counters.view(-1)[STAGES * layer :], b.each, self.count, b.number, b.members, eps,
            **s, M=self.mlp, W=sums[0].shape[3], BH=self.hidden(), LAST=last, **self.meeting(sums),
            **self.blocked | narrow,
        )  # fmt: skip
        if not last:
            self.tokens, self.work = self.work, self.tokens

    def pass_over(self, layer: int, eps: float) -> tuple[torch.Tensor, ...]:
        """The image attends to the tokens, then the tokens to what it has become."""
        s, device = self.sizes, self.prompt.device
        tiles = tiles_of(self.total, self.columns, s["C"], self.image.dtype, self.precision)
        image = self.out if layer else self.image
        queries, keys, values = self.rows
        splits, each = attention.splits_of(self.pixels, self.prompts, tiles.tokens, device)
        sums = attention.partials(self.prompts, splits, self.total, s["C"], device)
        vectors = self.own(layer)[1][6 * self.inner + self.mlp + 6 * s["C"] :]  # bias of the output, then LayerNorm
        attention.image_kernel[(splits, self.prompts)](
            image, self.position, keys, self.bias, values, self.bias, vectors, vectors[s["C"] :], self.out, queries,
            *sums, self.pixels, each, s["C"], 1, self.prompts // len(image), eps, C=s["C"], BC=s["C"],
            BK=tiles.channels,
            H=s["H"], T=s["T"], TP=self.columns, BJ=tiles.columns, BN=tiles.tokens, BQ=tiles.rows, BM=tiles.next_tokens,
            HAS_POSITION=True, HAS_LENGTHS=False, RESIDUAL=True, NORM=True, NEXT=True, PRECISION=self.precision,
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
        return sums

    def last(self, sums: tuple[torch.Tensor, ...], eps: float) -> torch.Tensor:
        b, s, out = self.blocks, self.sizes, torch.empty_like(self.prompt)
        last_kernel[(b.members * b.groups,)](
            *sums, sums[0].shape[1], self.tokens, self.parts, *self.own(self.depth), out,
            self.counters.view(-1)[STAGES * self.depth :], b.each, self.count, b.number, b.members, eps,
            **s, **self.meeting(sums), num_warps=8, num_stages=2, enable_fp_fusion=False,
        )  # fmt: skip
        return out
