"""SAM's decoder and encoder as modules with few plain inputs, whatever library the model comes from."""

from typing import Any

import torch
from torch import Tensor, nn


class SamDecoder(nn.Module):
    """Image embedding (1, C, h, w), points (P, N, 2) and labels (P, N) to masks (P, K, 4 h, 4 w) and scores (P, K).

    Points are (x, y) pixels of the network's input. Labels: 1 foreground, 0 background, 2 and 3 the upper left and
    lower right corner of a box, -1 padding: P prompts may have points in different number, and a prompt without a box
    needs one point of padding at its end, which the hosts add themselves.
    """

    position: Tensor
    kinds: Tensor

    def __init__(self, model: Any, multimask: bool) -> None:
        super().__init__()
        self.decoder, self.multimask = model.mask_decoder, multimask
        encoder = model.prompt_encoder
        self.of_transformers = hasattr(encoder, "shared_embedding")
        self.size = size_of(model)
        embeddings = encoder.point_embed if self.of_transformers else encoder.point_embeddings
        self.features = encoder.shared_embedding if self.of_transformers else encoder.pe_layer
        self.not_a_point, self.no_mask = encoder.not_a_point_embed, encoder.no_mask_embed
        with torch.no_grad():
            host = model.get_image_wide_positional_embeddings if self.of_transformers else encoder.get_dense_pe
            position = host()
            kinds = torch.cat([self.not_a_point.weight, *(e.weight for e in embeddings)])
        self.register_buffer("position", position.clone())
        self.register_buffer("kinds", kinds.clone())  # of label -1, 0, 1, 2, 3

    def forward(self, image_embeddings: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        sparse = self.embed(points, labels)
        dense = self.no_mask.weight[:, :, None, None].expand(-1, -1, *image_embeddings.shape[2:])
        arguments = (image_embeddings, self.position)
        if self.of_transformers:
            masks, scores = self.decoder(*arguments, sparse[None], dense, self.multimask)[:2]
            return masks[0], scores[0]
        masks, scores = self.decoder(*arguments, sparse, dense, self.multimask)
        return masks, scores

    def embed(self, points: Tensor, labels: Tensor) -> Tensor:
        at = (points + 0.5) / torch.tensor([float(self.size[1]), float(self.size[0])])
        features = self.features(at) if self.of_transformers else self.features._pe_encoding(at)
        kept = torch.where((labels == -1)[..., None], torch.zeros_like(features), features)
        return kept + self.kinds[labels + 1]


class SamEncoder(nn.Module):
    """Pixels (B, 3, H, W), normalised as the host does it, to the image embedding (B, C, H / 16, W / 16)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.image_encoder if hasattr(model, "image_encoder") else model.vision_encoder

    def forward(self, pixels: Tensor) -> Tensor:
        found = self.encoder(pixels)
        return found if isinstance(found, Tensor) else found[0]


def size_of(model: Any) -> tuple[int, int]:
    encoder = model.prompt_encoder
    size = getattr(encoder, "input_image_size", None)
    size = size if size is not None else encoder.shared_embedding.config.image_size
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def is_sam(model: Any) -> bool:
    """transformers' SamModel or segment-anything's Sam."""
    return type(model).__name__ in ("Sam", "SamModel") and hasattr(model, "mask_decoder")


def channels_of(model: Any) -> int:
    return int(model.mask_decoder.iou_token.weight.shape[1])


def decoder(model: Any, multimask: bool) -> tuple[nn.Module, dict[str, Any]]:
    """The module, and the options of the export."""
    module = SamDecoder(model, multimask)
    rows, columns = (int(n) for n in module.position.shape[2:])
    points = torch.rand(3, 4, 2) * float(module.size[0])
    labels = torch.tensor([[1, 0, -1, -1], [2, 3, 1, 0], [1, 1, 1, -1]])
    return module, {
        "args": (torch.randn(1, channels_of(model), rows, columns), points, labels),
        "input_names": ["image_embeddings", "points", "labels"],
        "output_names": ["masks", "scores"],
        "dynamic_shapes": {
            "image_embeddings": None,
            "points": {0: "prompts", 1: "points"},
            "labels": {0: "prompts", 1: "points"},
        },
    }


def encoder(model: Any) -> tuple[nn.Module, dict[str, Any]]:
    module = SamEncoder(model)
    size = size_of(model)
    return module, {
        "args": (torch.randn(2, 3, *size),),
        "input_names": ["pixels"],
        "output_names": ["image_embeddings"],
        "dynamic_shapes": {"pixels": {0: "batch"}},
    }
