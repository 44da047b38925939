"""The MLPs behind SAM's output tokens, all in one operator. No gradient."""

from torch import Tensor

from fastprompt import _C
from fastprompt._runtime import get_num_threads
from fastprompt.ops._arrays import address, addresses
from fastprompt.ops._library import define


def _fake(tokens: Tensor, rows: list[int], weights: list[Tensor], layers: int) -> list[Tensor]:
    last = weights[2 * layers - 2 :: 2 * layers]
    return [tokens.new_empty(tokens.shape[0], weight.shape[0]) for weight in last]


def _cpu(tokens: Tensor, rows: list[int], weights: list[Tensor], layers: int) -> list[Tensor]:
    tokens, weights = tokens.contiguous(), [w.contiguous() for w in weights]
    found, jobs = _fake(tokens, rows, weights, layers), []
    prompts, count, channels = tokens.shape
    for k, (row, out) in enumerate(zip(rows, found, strict=True)):
        own = weights[2 * layers * k : 2 * layers * (k + 1)]
        widths = [channels, *(w.shape[0] for w in own[::2])]
        start = address(tokens) + tokens.element_size() * row * channels
        jobs.append((start, count * channels, widths, addresses(own), address(out)))
    if prompts:
        _C.run_mlps(jobs, prompts, get_num_threads())
    return found


token_mlps = define(
    "token_mlps(Tensor tokens, int[] rows, Tensor[] weights, int layers) -> Tensor[]", cpu=_cpu, fake=_fake
)
