"""SAM's image encoders with some of their windows: exact within each, attention between those that are left."""

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastprompt._drop_ins import full_name, original
from fastprompt._pruning import Prune, Pruned
from fastprompt._switches import is_disabled
from fastprompt.nn.parts.encoder import RelativeLayer
from fastprompt.nn.parts.known import touched
from fastprompt.nn.parts.pruned import (
    PrunedEncoder,
    at_is_too_high,
    convolution_weights,
    linear_weights,
    of_windows,
    scores,
)
from fastprompt.nn.parts.relative import RelativeAttention
from fastprompt.ops.encoder.relative import relative_position_attention
from fastprompt.ops.pruning.operators import gather_rows, scatter_rows
from fastprompt.ops.pruning.selection import prune_tokens


class Kept(NamedTuple):
    """Rows (T, C): the tokens of the kept windows, image by image, window by window, those of a shape together."""

    size: tuple[int, int]  # of the grid
    window: int
    tokens: Tensor  # (1, T), int64: which of all images' tokens they are
    coordinates: Tensor  # (T, 2), int32: (row, column)
    images: list[slice]
    windows: list[tuple[slice, tuple[int, int]]]  # rows of windows of one shape, and this shape


def corners(size: tuple[int, int], window: int) -> list[tuple[int, int]]:
    """First row and column of every window, as the host cuts them: those at the far sides may be smaller."""
    return [(y, x) for y in range(0, size[0], window) for x in range(0, size[1], window)]


def keep_windows(chosen: list[list[int]], size: tuple[int, int], window: int, device: Any = None) -> Kept:
    """``chosen``: the numbers of the windows that stay, of every image. The tensors go to ``device``."""
    grid, places = torch.arange(size[0] * size[1]).view(size), corners(size, window)
    cut = lambda n: grid[places[n][0] :, places[n][1] :][:window, :window]  # noqa: E731
    parts, images, end = [], [], 0
    for image, numbers in enumerate(chosen):
        cuts = sorted((cut(n) for n in numbers), key=lambda c: tuple(c.shape), reverse=True)  # stable
        parts += [(c.reshape(-1) + image * grid.numel(), (len(c), c.shape[1])) for c in cuts]
        start, end = end, end + sum(c.numel() for c in cuts)
        images.append(slice(start, end))
    windows, end = [], 0
    for shape, same in itertools.groupby(shape for _, shape in parts):
        start, end = end, end + len(list(same)) * shape[0] * shape[1]
        windows.append((slice(start, end), shape))
    tokens = torch.cat([part for part, _ in parts]).to(device)
    inside = tokens % grid.numel()
    coordinates = torch.stack((inside // size[1], inside % size[1]), 1).int()
    return Kept(size, window, tokens[None], coordinates, images, windows)


def layer_rows(layer: Any, rows: Tensor, kept: Kept) -> Tensor:
    """One layer of a host, for rows (T, C): all that is done with the tokens that are left."""
    attend = in_windows if layer.window_size else among_all
    if isinstance(layer, RelativeLayer) and layer.refusal(rows) is None and not is_disabled():
        return layer.finish(rows, attend(layer.attn, layer.queries_keys_values(rows), kept))
    norm1, norm2 = (getattr(layer, f"layer_norm{n}", None) or getattr(layer, f"norm{n}") for n in (1, 2))
    heads = getattr(layer.attn, "num_attention_heads", None) or layer.attn.num_heads
    qkv = layer.attn.qkv(norm1(rows)).unflatten(1, (3, heads, -1))
    rows = rows + layer.attn.proj(attend(layer.attn, qkv, kept))
    return rows + layer.mlp(norm2(rows))


def in_windows(attention: Any, qkv: Tensor, kept: Kept) -> Tensor:
    """(T, C) of (T, 3, heads, width): every window by itself. What the host pads is one more key, exactly."""
    tables, found = tables_of(attention, (kept.window, kept.window)), []
    for part, size in kept.windows:
        q, k, v = qkv[part].unflatten(0, (-1, size[0] * size[1])).unbind(2)
        padded: Any = {}
        if size != (kept.window, kept.window):
            padded = {"window": kept.window, "padding": padding(attention.qkv, qkv)}
        found.append(relative_position_attention(q, k, v, *tables, size=size, scale=attention.scale, **padded))
    return joined([x.flatten(0, 1) for x in found])


def padding(layer: Any, qkv: Tensor) -> tuple[Tensor, Tensor]:
    """Key and value of a position outside the grid: the host pads the input of its qkv layer with zeros."""
    bias = layer.bias if type(layer) is nn.Linear else layer(qkv.new_zeros(1, qkv[0, 0].numel()))[0]
    _, key, value = (qkv.new_zeros(qkv[0].numel()) if bias is None else bias).view(qkv.shape[1:]).unbind(0)
    return key, value


def among_all(attention: Any, qkv: Tensor, kept: Kept) -> Tensor:
    """(T, C) of (T, 3, heads, width): the tokens of an image attend to each other."""
    tables, found = tables_of(attention, kept.size), []
    for part in kept.images:
        q, k, v = qkv[part].unbind(1)
        where: Any = {"size": kept.size, "coordinates": kept.coordinates[part]}
        found.append(relative_position_attention(q, k, v, *tables, scale=attention.scale, **where))
    return joined(found)


def joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def tables_of(attention: Any, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    table: Any = RelativeAttention.table  # the modules are its drop-ins, or hosts
    return table(attention, "rel_pos_h", size[0]), table(attention, "rel_pos_w", size[1])


class PrunedWindows(PrunedEncoder):
    """Mixin of a host's encoder: what its blocks do, with some of the windows."""

    LAYER: str  # name of the class of a layer, which is in the host's file
    INTERMEDIATE = False  # whether the host returns the output of its global layers as well
    patch_embed: Any
    neck: Any
    pos_embed: Tensor | None

    @classmethod
    def parts(cls, host: Any) -> tuple[Any, Any]:
        """Convolution of the patches, and the blocks."""
        raise NotImplementedError

    @classmethod
    def unsupported(cls, host: Any, prune: Prune) -> str | None:
        _, layers = cls.parts(host)
        windows = {layer.window_size for layer in layers} - {0}
        if prune.score == "cls":
            return 'score="cls" needs a class token'
        if {full_name(original(type(x))) for x in layers} != {f"{original(type(host)).__module__}.{cls.LAYER}"}:
            return f"its layers must be {cls.LAYER}"
        if len(windows) != 1:
            return f"it must have windows of one size, got {sorted(windows)}"
        if not all(hasattr(layer.attn, "rel_pos_h") for layer in layers):
            return "it has no relative position"
        return at_is_too_high(prune, layers)

    def dense_only(self, x: Tensor) -> dict[str, bool]:
        """Reasons for the host's path."""
        patches, layers = self.parts(self)
        known = {torch.float32, torch.float16, torch.bfloat16}
        return {
            "there is no kernel for this dtype": not {x.dtype, patches.weight.dtype} <= known,
            "attention dropout in training": self.training and bool(getattr(layers[0].attn, "dropout", 0.0)),
            "its layers have hooks or a forward of their own": any(
                touched(m) for layer in layers[self._fastprompt_prune.at :] for m in (layer, layer.attn)
            ),
        }

    def through(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, h, w, C) to the same, and to the output of every global layer, where the host returns that."""
        prune, (_, layers), outputs = self._fastprompt_prune, self.parts(self), []
        for layer in layers[: prune.at]:
            x = layer(x)
            outputs += [x] if self.INTERMEDIATE and not layer.window_size else []
        kept, tokens = self.select(x), x.flatten(0, 2)[None]
        rows = gather_rows(tokens, kept.tokens)[0]
        for layer in layers[prune.at :]:
            rows = layer_rows(layer, rows, kept)
            wanted = self.INTERMEDIATE and not layer.window_size
            if wanted or layer is layers[-1]:
                full = scatter_rows(tokens.to(rows.dtype), rows[None], kept.tokens, tokens.shape[1])
                x = full.view_as(x)
            outputs += [x] if wanted else []
        return x, outputs

    def select(self, x: Tensor) -> Kept:
        prune, (patches, layers), size = self._fastprompt_prune, self.parts(self), (x.shape[1], x.shape[2])
        window = max(layer.window_size for layer in layers)
        found = of_windows(prune, scores(prune, x.flatten(1, 2), size, patches.stride), size, window)
        chosen = prune_tokens(found[..., None], found, count=prune.count(found.shape[1])).indices
        # The only wait for a GPU: how many tokens stay depends on which windows do, those at the far sides are smaller.
        return keep_windows(chosen.tolist(), size, window, x.device)

    def pruned(self) -> Pruned:
        prune, (patches, layers), size = self._fastprompt_prune, self.parts(self), self.grid()
        window = max(layer.window_size for layer in layers)
        areas = [min(window, size[0] - y) * min(window, size[1] - x) for y, x in corners(size, window)]
        count, part = prune.count(len(areas)), prune.count(len(areas)) / len(areas)
        tokens, within = sum(areas), sum(a * a for a in areas)

        def work(parts: list[float]) -> float:
            total = float(tokens * convolution_weights(self.patch_embed, self.neck))
            for layer, p in zip(layers, parts, strict=True):
                pairs = p * within if layer.window_size else (p * tokens) ** 2
                total += p * tokens * linear_weights(layer) + 2 * pairs * patches.out_channels
            return total

        parts = [1.0 if n < prune.at else part for n in range(len(layers))]
        counts = tuple(round(p * tokens) for p in parts)
        return Pruned(prune, counts, (count, len(areas)), work(parts) / work([1.0] * len(parts)))

    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        raise NotImplementedError


class TransformersEncoder(PrunedWindows):
    """Mixin of the encoders of transformers."""

    config: Any

    @classmethod
    def parts(cls, host: Any) -> tuple[Any, Any]:
        return host.patch_embed.projection, host.layers

    def grid(self) -> tuple[int, int]:
        n = self.config.image_size // self.config.patch_size
        return n, n

    def forward(self, pixel_values: Tensor | None = None, **more: Any) -> Any:
        names = ("output_hidden_states", "output_attentions")
        asked = {"layers are asked for": any(more.get(name, getattr(self.config, name, False)) for name in names)}
        if pixel_values is None or self.falls_back(pixel_values, asked | self.dense_only(pixel_values)):
            return super().forward(pixel_values, **more)
        x = self.patch_embed(pixel_values)
        x, outputs = self.through(x if self.pos_embed is None else x + self.pos_embed)
        result = self.result(self.neck(x), outputs)
        as_dict = more.get("return_dict", getattr(self.config, "return_dict", True))
        return result.to_tuple() if as_dict is False else result

    def result(self, x: Tensor, outputs: list[Tensor]) -> Any:
        """As the host returns it."""
        raise NotImplementedError


class SegmentAnythingEncoder(PrunedWindows):
    """Mixin of ``ImageEncoderViT`` of segment-anything's own code."""

    LAYER = "Block"
    img_size: int

    @classmethod
    def parts(cls, host: Any) -> tuple[Any, Any]:
        return host.patch_embed.proj, host.blocks

    def grid(self) -> tuple[int, int]:
        n = self.img_size // self.patch_embed.proj.stride[0]
        return n, n

    def forward(self, x: Tensor) -> Any:
        if self.falls_back(x, self.dense_only(x)):
            return super().forward(x)
        x = self.patch_embed(x)
        x, _ = self.through(x if self.pos_embed is None else x + self.pos_embed)
        return self.neck(x.permute(0, 3, 1, 2))
