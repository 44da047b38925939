"""The MLPs behind SAM's output tokens, all in one operator. No gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastprompt import _C
from fastprompt._runtime import current_backend, get_num_threads
from fastprompt.ops._arrays import address, addresses
from fastprompt.ops._library import define


def _fake(tokens: Tensor, rows: list[int], weights: list[Tensor], layers: int) -> list[Tensor]:
    last = weights[2 * layers - 2 :: 2 * layers]
    return [tokens.new_empty(tokens.shape[0], weight.shape[0]) for weight in last]


def _cpu(tokens: Tensor, rows: list[int], weights: list[Tensor], layers: int) -> list[Tensor]:
    if any(x.dtype != torch.float32 for x in (tokens, *weights)):
        return formula(tokens, rows, weights, layers)
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


def formula(tokens: Tensor, rows: list[int], weights: list[Tensor], layers: int) -> list[Tensor]:
    found = []
    for k, row in enumerate(rows):
        x, own = tokens[:, row].float(), [w.float() for w in weights[2 * layers * k : 2 * layers * (k + 1)]]
        for n in range(layers):
            x = F.linear(x if n == 0 else x.relu(), own[2 * n], own[2 * n + 1])
        found.append(x.to(tokens.dtype))
    return found


def _gpu(tokens: Tensor, rows: list[int], weights: list[Tensor], layers: int) -> list[Tensor]:
    own = [weights[2 * layers * k : 2 * layers * (k + 1)] for k in range(len(rows))]
    alike = len({tuple(w.shape for w in mlp[: 2 * layers - 2]) for mlp in own}) == 1  # but for the outputs
    if layers < 2 or not alike or current_backend() == "reference":
        return formula(tokens, rows, weights, layers)
    from fastprompt.kernels import decoder_mlps as kernels

    found: list[Tensor] = kernels.token_mlps(tokens, rows, [w.contiguous() for w in weights], layers)
    return found


token_mlps = define(
    "token_mlps(Tensor tokens, int[] rows, Tensor[] weights, int layers) -> Tensor[]", cpu=_cpu, fake=_fake, gpu=_gpu
)
