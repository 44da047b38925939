"""SAM 2 for videos: what is computed for a frame, as four modules with few plain inputs. Which frames a memory holds,
and at which time, stays the host's: it is no arithmetic."""

from typing import Any

import torch
from torch import Tensor, nn

from fastprompt.export._onnx.sam import SamDecoder, options, size_of


class VideoEncoder(nn.Module):
    """Pixels (1, 3, H, W) to the embedding of the frame, and the features at four and two times its size."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        levels = self.model.get_image_features(pixels, return_dict=True).fpn_hidden_states
        sizes = self.model.backbone_feature_sizes
        finest, finer, image = (x.permute(1, 2, 0).unflatten(2, size) for x, size in zip(levels, sizes, strict=True))
        return image, finest, finer


class MemoryAttention(nn.Module):
    """The embedding of a frame (1, C, h, w) and what is remembered of each object, to an embedding for each object.

    ``memory`` (F h w, objects, c) are F frames one after the other, ``pointers`` (P, objects, c) the tokens behind
    them, each with its positions.
    """

    position: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.attention = model.memory_attention
        self.size = [int(n) for n in model.backbone_feature_sizes[-1]]
        self.register_buffer("position", position_of_frame(model))

    def forward(
        self, image_embeddings: Tensor, memory: Tensor, memory_positions: Tensor, pointers: Tensor,
        pointer_positions: Tensor,
    ) -> Tensor:  # fmt: skip
        objects = memory.shape[1]
        of_frame = (x.flatten(2).permute(2, 0, 1).expand(-1, objects, -1) for x in (image_embeddings, self.position))
        features, place = of_frame  # views: what depends on the frame alone is computed once
        all_tokens, all_places = torch.cat([memory, pointers]), torch.cat([memory_positions, pointer_positions])
        found = self.attention(features, all_tokens, place, all_places, pointers.shape[0])
        return found[0].transpose(1, 2).unflatten(2, self.size)


def position_of_frame(model: Any) -> Tensor:
    """(1, C, h, w), as the neck of the encoder gives it."""
    channels, size = model.hidden_dim, [int(n) for n in model.backbone_feature_sizes[-1]]
    like = next(model.parameters())
    with torch.no_grad():
        found: Tensor = model.vision_encoder.neck.position_encoding((1, channels, *size), like.device, like.dtype)
    return found.clone()


class MemoryEncoder(nn.Module):
    """The embedding of a frame (1, C, h, w) and a mask for each object (objects, 1, H, W), scaled as the host does it,
    to what is remembered: (objects, c, h, w), and its positions."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.memory_encoder

    def forward(self, image_embeddings: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        # Repeated, as the host does it: OpenVINO 2026.4 fuses the sum of one frame and many masks wrongly.
        image = image_embeddings.expand(masks.shape[0], -1, -1, -1)
        memory, positions = self.encoder(image, masks)
        return memory, positions.expand(memory.shape)


class VideoDecoder(SamDecoder):
    """An embedding (objects, C, h, w) and clicks (objects, N, 2) of each object, and the frame's features, to masks
    (objects, K, 4 h, 4 w), scores (objects, K), the object's score, and a pointer for each mask (objects, K, C)."""

    def __init__(self, model: Any, multimask: bool) -> None:
        super().__init__(model, multimask)
        self.pointer, self.no_pointer = model.object_pointer_proj, model.no_object_pointer

    def forward(  # type: ignore[override]
        self, image_embeddings: Tensor, features_4: Tensor, features_2: Tensor, points: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count = image_embeddings.shape[0]
        sparse, dense = self.embed(points, labels)[:, None], self.without_mask(image_embeddings)
        finer = [x.expand(count, -1, -1, -1) for x in (features_4, features_2)]
        given = (image_embeddings, self.position.expand(count, -1, -1, -1), sparse, dense.expand(count, -1, -1, -1))
        masks, scores, tokens, objects = self.decoder(*given, self.multimask, finer)
        there = (objects > 0).to(tokens.dtype)[..., None]
        pointers = there * self.pointer(tokens) + (1 - there) * self.no_pointer
        return masks[:, 0], scores[:, 0], objects[:, 0], pointers[:, 0]


# ---------------------------------------------------------------- what a file of each holds


def of_part(model: Any, part: str, multimask: bool) -> tuple[nn.Module, dict[str, Any]]:
    """The module, and the options of the export."""
    if part == "encoder":
        inputs, free = {"pixels": torch.randn(1, 3, *size_of(model))}, None
        return VideoEncoder(model), options(inputs, ["image_embeddings", "features_4", "features_2"], free)
    if part == "memory_encoder":
        rows, columns = size_of(model)
        inputs = {"image_embeddings": frame_of(model), "masks": torch.randn(2, 1, rows, columns)}
        free = {"image_embeddings": None, "masks": {0: "objects"}}
        return MemoryEncoder(model), options(inputs, ["memory", "memory_positions"], free)
    return of_attention(model) if part == "memory_attention" else of_decoder(model, multimask)


def frame_of(model: Any, count: int = 1, scale: int = 1) -> Tensor:
    """Features at ``scale`` times the size of the embedding."""
    channels = model.hidden_dim // {1: 1, 2: 4, 4: 8}[scale]
    return torch.randn(count, channels, *(scale * int(n) for n in model.backbone_feature_sizes[-1]))


def of_attention(model: Any) -> tuple[nn.Module, dict[str, Any]]:
    image = frame_of(model)
    tokens = image.shape[2] * image.shape[3]
    draw = lambda count, objects: torch.randn(count, objects, model.mem_dim)  # noqa: E731

    def example(frames: int, pointers: int, objects: int) -> dict[str, Tensor]:
        memory, positions = (draw(tokens * frames, objects) for _ in range(2))
        of_pointers = {"pointers": draw(pointers, objects), "pointer_positions": draw(pointers, objects)}
        return {"image_embeddings": image, "memory": memory, "memory_positions": positions} | of_pointers

    objects, frames, count = (torch.export.Dim(name, max=1 << 16) for name in ("objects", "frames", "tokens"))
    of_memory, of_pointers = {0: tokens * frames, 1: objects}, {0: count, 1: objects}
    free = {"image_embeddings": None, "memory": of_memory, "memory_positions": of_memory}
    free |= {"pointers": of_pointers, "pointer_positions": of_pointers}
    made = options(example(2, 5, 2), ["embeddings"], free)
    made["checks"] = [tuple(example(*sizes).values()) for sizes in ((1, 4, 1), (3, 0, 2), (7, 64, 1))]
    return MemoryAttention(model), made


def of_decoder(model: Any, multimask: bool) -> tuple[nn.Module, dict[str, Any]]:
    inputs = {"image_embeddings": frame_of(model, 2)}
    inputs |= {f"features_{scale}": frame_of(model, scale=scale) for scale in (4, 2)}
    inputs["points"] = torch.rand(2, 3, 2) * float(size_of(model)[0])
    inputs["labels"] = torch.tensor([[1, 0, -1], [2, 3, -1]])
    prompts = {0: "objects", 1: "points"}
    free = {"image_embeddings": {0: "objects"}, "features_4": None, "features_2": None}
    free |= {"points": prompts, "labels": prompts}
    return VideoDecoder(model, multimask), options(inputs, ["masks", "scores", "object_scores", "pointers"], free)
