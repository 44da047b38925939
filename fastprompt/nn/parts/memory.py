"""Memory attention of SAM 2's video models, whatever library it comes from."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastprompt import _gpu
from fastprompt._runtime import matmul_precision
from fastprompt.nn.parts.host_path import falls_back
from fastprompt.nn.parts.image_cache import ImageCache
from fastprompt.nn.parts.memory_layers import MemoryLayers, Parts
from fastprompt.nn.parts.relative import weights
from fastprompt.ops.encoder.operators import normalised_linear, residual_mlp
from fastprompt.ops.memory.operators import projected_memory_read, turned_memory_read

WHOLE = int, torch.SymInt  # in an export sizes, and what is made of them, may be symbols, which ``len`` would fix


class Turns(NamedTuple):
    """Cosines and sines of a layer's rotary positions, in float32."""

    own: list[Tensor]  # (N, D) twice, of queries and keys
    query: list[Tensor]  # (N, D) twice
    key: list[Tensor]  # (R, D) twice, of the positions of a frame
    size: tuple[int, int]  # rows and columns of these


class Memory(NamedTuple):
    """What the layers read: frames of the positions of ``Turns.key``, and then tokens that are not turned."""

    source: Tensor  # (B, M, c), of which keys are made
    value: Tensor  # (B, M, c)
    unturned: int


class MemoryAttention(MemoryLayers):
    """Mixin: a layer is a read of the frame by itself, one of the memory, and an MLP; neither keys of the memory nor
    weights are ever in memory (on a GPU the host's own layers, keys among them, and the reads). What depends on the
    frame alone, the first layer's read of itself, is computed once for all objects of the frame."""

    devices = "cpu", "cuda"

    def refuses(
        self, features: Tensor, positions: Tensor | None, memory: Tensor, memory_positions: Tensor | None, count: int
    ) -> bool:
        """Whether a call takes the host's path, the last ``count`` tokens of the memory being no frame."""
        tensors = (features, memory, memory_positions)
        if not all(isinstance(x, Tensor) and x.dim() == 3 for x in tensors) or not isinstance(count, WHOLE):
            return falls_back(self, "its arguments are not three tensors of three axes and a number")
        if self.falls_back(features, positions, memory, memory_positions):
            return True
        assert memory_positions is not None
        fits = positions is None or (positions.dim() == 3 and positions.shape[::2] == features.shape[::2])
        fits = fits and features.shape[1] == memory.shape[1] > 0 and memory.shape[::2] == memory_positions.shape[::2]
        fits = fits and all(x is None or x.shape[1] in (1, features.shape[1]) for x in (positions, memory_positions))
        cross = self.parts(self.layers[0]).cross
        fits = fits and (features.shape[2], memory.shape[2]) == (cross.query.in_features, cross.key.in_features)
        reason = None if fits and 0 <= count <= memory.shape[0] > 0 else "its arguments do not fit each other"
        return falls_back(self, "it is in training" if self.training else reason)

    def result_dtype(self, arguments: Any) -> torch.dtype:
        """Residuals are added to the features, which autocast does not lower; on a GPU it lowers no norm."""
        if _gpu.is_cuda(arguments[0]) and torch.is_autocast_enabled("cuda"):
            return torch.float32
        features, positions = arguments[:2]
        return features.dtype if positions is None else torch.promote_types(features.dtype, positions.dtype)

    # ------------------------------------------------------------ what is computed

    def turns(self, count: int) -> list[Turns]:
        """Of every layer, for ``count`` tokens of a frame."""
        raise NotImplementedError

    def memory(self, source: Tensor, value: Tensor, count: int, frames: int) -> Memory:
        """``count`` tokens at the end are not turned."""
        return Memory(source, value, count)

    def predict(
        self, features: Tensor, positions: Tensor | None, memory: Tensor, memory_positions: Tensor, count: int,
        frames: int = 0,
    ) -> tuple[Tensor]:  # fmt: skip
        """(B, N, C) of features (N, B, C) and a memory (M, B, c)."""
        all_turns, parts = self.turns(features.shape[0]), [self.parts(layer) for layer in self.layers]
        value = memory.transpose(0, 1).contiguous()
        read = self.memory((memory + memory_positions).transpose(0, 1).contiguous(), value, count, frames)
        x = self.first(features, positions, parts[0], all_turns[0]).expand(features.shape[1], -1, -1)
        for n, (layer, turns) in enumerate(zip(parts, all_turns, strict=True)):
            y = x if n == 0 else self.read_itself(x, layer, turns)
            x = self.read_memory(y, layer, turns, read)
        norm = getattr(self, self.final)
        return (F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps),)

    def first(self, features: Tensor, positions: Tensor | None, layer: Parts, turns: Turns) -> Tensor:
        """What depends on the frame alone: (B, N, C), or (1, N, C) where the objects of a batch share the frame."""
        given = [features] if positions is None else [features, positions]
        if all(x.shape[1] == 1 or x.stride(1) == 0 for x in given):
            given = [x[:, :1] for x in given]

        def make() -> Tensor:
            x = given[0] if positions is None else given[0] + 0.1 * given[1]
            return self.read_itself(x.transpose(0, 1).contiguous(), layer, turns)

        own = [w for linear in layer.own[:4] for w in (linear.weight, linear.bias) if w is not None]
        own += [layer.norm1.weight, layer.norm1.bias, *turns.own]
        # Which traces no question for the precision; and a GPU would have to be waited for.
        if torch.compiler.is_compiling() or _gpu.is_cuda(features):
            return make()
        numbers = matmul_precision(), layer.own.scale, layer.norm1.eps
        return cached(self, "first", given[0], numbers, own, make, given[1:])

    def read_itself(self, x: Tensor, layer: Parts, turns: Turns) -> Tensor:
        """x + its self-attention."""
        norm, (query, key, value, out, scale) = layer.norm1, layer.own
        if _gpu.is_cuda(x):
            rows = norm(x)
            return x + out(turned(query(rows), key(rows), value(rows), [*turns.own, *turns.own], 0, scale))
        stacked = [torch.cat(both) for both in zip(*map(weights, (query, key, value)), strict=True)]
        rows = normalised_linear(x, [norm.weight, norm.bias], norm.eps, stacked)
        heads = rows[:, :, None].chunk(3, -1)
        read = turned_memory_read(*heads, *turns.own, *turns.own, 0, scale)[:, :, 0]
        y: Tensor = x + normalised_linear(read, [], 0.0, weights(out))
        return y

    def read_memory(self, y: Tensor, layer: Parts, turns: Turns, memory: Memory) -> Tensor:
        """y + its read of the memory, and the MLP. Weights of a softmax add up to 1, so the layer of the values comes
        behind the read: of 64 numbers a token, not 256."""
        (query, key, value, out, scale), norm = layer.cross, layer.norm2
        if _gpu.is_cuda(y):
            q, k = query(norm(y)), key(memory.source)
            y = y + out(value(turned(q, k, memory.value, [*turns.query, *turns.key], memory.unturned, scale)))
            return y + layer.mlp2(F.relu(layer.mlp1(layer.norm3(y))))
        q = normalised_linear(y, [norm.weight, norm.bias], norm.eps, weights(query))
        tables = (*turns.query, *turns.key, turns.size)
        read = projected_memory_read(q, memory.source, memory.value, weights(key), *tables, memory.unturned, scale)
        norm, mlp = layer.norm3, [*weights(layer.mlp1), *weights(layer.mlp2)]
        x: Tensor = residual_mlp(y, read, joined(value, out), [norm.weight, norm.bias], norm.eps, mlp, "relu")
        return x


def turned(q: Tensor, k: Tensor, v: Tensor, tables: list[Tensor], unturned: int, scale: float) -> Tensor:
    """A read of one head, (B, N, C) of (B, N, D), (B, M, D), (B, M, C), in the dtype of the queries."""
    heads = (x[:, :, None] for x in (q, k.to(q.dtype), v.to(q.dtype)))
    read: Tensor = turned_memory_read(*heads, *tables, unturned, scale)[:, :, 0]
    return read


def joined(first: nn.Linear, second: nn.Linear) -> list[Tensor]:
    """Weight and bias of second(first(x)), which one layer computes; in float64, whatever torch multiplies in."""
    (weight, bias), (weight2, bias2) = ([x.double() for x in weights(linear)] for linear in (first, second))
    return [(weight2 @ weight).float(), (weight2 @ bias + bias2).float()]


def cached(
    module: Any, name: str, image: Tensor, numbers: tuple[float, ...], parameters: list[Tensor],
    make: Callable[[], Any], others: Sequence[Tensor] = (),
) -> Any:  # fmt: skip
    """The last result of ``make``, for these tensors and numbers."""
    if torch.compiler.is_compiling():
        return make()
    kept: ImageCache = module.__dict__.setdefault(f"_fastprompt_{name}", ImageCache())
    return kept.get(image, [*others, torch.tensor(numbers, dtype=torch.float64)], parameters, make)


# ---------------------------------------------------------------- transformers


class TransformersMemoryAttention(MemoryAttention):
    """Mixin of the two modules of transformers that are SAM 2's."""

    config: Any
    rotary_emb: Any
    position_ids: Tensor

    def forward(
        self,
        current_vision_features: Tensor,
        memory: Tensor,
        current_vision_position_embeddings: Tensor | None = None,
        memory_posision_embeddings: Tensor | None = None,
        num_object_pointer_tokens: int = 0,
    ) -> Tensor:
        frame, rest = (current_vision_features, current_vision_position_embeddings), num_object_pointer_tokens
        given = (*frame, memory, memory_posision_embeddings, rest)
        tokens = len(self.position_ids)
        whole = frame[0].shape[0] == tokens and isinstance(rest, WHOLE) and (memory.shape[0] - rest) % tokens == 0
        if not whole or self.refuses(*given):
            return super().forward(frame[0], memory, frame[1], memory_posision_embeddings, rest)
        (x,) = self.run(*given)
        return x.unsqueeze(1).transpose(0, 1)

    def turns(self, count: int) -> list[Turns]:
        def make() -> Turns:
            own = rotary(self, self.position_ids)
            return Turns(own, own, own, grid(self.position_ids, self.config.memory_attention_rope_feat_sizes))

        key = self.rotary_emb.inv_freq, (self.rotary_emb.attention_scaling,), [self.position_ids]
        return [cached(self, "turns", *key, make)] * len(self.layers)


def rotary(host: Any, places: Tensor) -> list[Tensor]:
    """Cosines and sines of the host at these places."""
    return [x[0].contiguous() for x in host.rotary_emb(places, places)]


def grid(places: Tensor, sizes: Any) -> tuple[int, int]:
    """Rows and columns of places row by row, of a configuration's (columns, rows); the kernel looks whether it is."""
    columns, rows = sizes
    return (rows, columns) if rows * columns == len(places) else (1, len(places))


__all__ = ["Memory", "MemoryAttention", "TransformersMemoryAttention", "Turns", "cached", "grid", "rotary"]
