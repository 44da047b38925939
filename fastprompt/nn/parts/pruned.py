"""What pruned encoders have in common, windows or not."""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastprompt._pruning import Prune, Pruned, current_prompt
from fastprompt._switches import is_off
from fastprompt.nn.parts.host_path import say_once
from fastprompt.nn.parts.transforms import transformed
from fastprompt.ops.pruning.scoring import token_scores


class PrunedEncoder(nn.Module):
    """Mixin of a host's image encoder."""

    _fastprompt_prune: Prune

    @classmethod
    def unsupported(cls, host: Any, prune: Prune) -> str | None:
        """Why a host cannot be pruned in this way; None: it can."""
        raise NotImplementedError

    def pruned(self) -> Pruned:
        """How much is pruned."""
        raise NotImplementedError

    def falls_back(self, x: Tensor, reasons: dict[str, Any]) -> bool:
        """Whether this call takes the host's path, with all tokens: the first reason that holds is said once."""
        if is_off():
            return True
        reasons = {"there is no kernel for this device": x.device.type not in ("cpu", "cuda")} | reasons
        reason = transformed(x) or next((text for text, holds in reasons.items() if holds), None)
        if reason:
            say_once(f"fastprompt: {type(self).__name__} takes the host's path, nothing is pruned: {reason}")
        return reason is not None


def at_is_too_high(prune: Prune, blocks: Any) -> str | None:
    return None if prune.at < len(blocks) else f"at must be below the number of blocks {len(blocks)}, got {prune.at}"


@torch.no_grad()
def scores(
    prune: Prune, tokens: Tensor, size: tuple[int, int], patch: tuple[int, int], cls: Tensor | None = None
) -> Tensor:
    """(B, N) of tokens (B, N, C), the positions of a grid, row by row; ``cls`` (B, 1, C) is the class token."""
    if prune.score == "norm":
        return torch.linalg.vector_norm(tokens.float(), dim=-1)
    if prune.score == "cls":
        return token_scores(tokens, prompts=cls)
    if prune.score == "prompt":
        as_tensor = functools.partial(torch.as_tensor, dtype=torch.float32, device=tokens.device)
        given: Any = {name: as_tensor(x) for name, x in current_prompt().items()}
        return token_scores(tokens, grid=size, patch=patch, **given)
    coordinates = torch.cartesian_prod(*map(torch.arange, size)).to(tokens.device)
    made: Any = prune.score(tokens, coordinates)
    if not isinstance(made, Tensor) or made.shape != tokens.shape[:2]:
        got = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise ValueError(f"score must give a tensor of shape {tuple(tokens.shape[:2])}, got {got}")
    return made.float()


def of_windows(prune: Prune, found: Tensor, size: tuple[int, int], window: int) -> Tensor:
    """(B, windows) of the scores (B, N) of tokens."""
    grid = found.view(-1, 1, *size)
    if prune.score == "prompt":
        return F.max_pool2d(grid, window, ceil_mode=True).flatten(1)
    return F.avg_pool2d(grid, window, ceil_mode=True, count_include_pad=False).flatten(1)


def linear_weights(block: nn.Module) -> int:
    """Multiplications of a token in the linear layers of a block."""
    return sum(m.weight.numel() for m in block.modules() if isinstance(m, nn.Linear))


def convolution_weights(*parts: nn.Module) -> int:
    """Multiplications of a token in the convolutions before and after the blocks."""
    return sum(m.weight.numel() for part in parts for m in part.modules() if isinstance(m, nn.Conv2d))
