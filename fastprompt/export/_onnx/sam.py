"""The decoders and encoders of the SAM family as modules with few plain inputs, whatever library they come from."""

from typing import Any

import torch
from torch import Tensor, nn


class SamDecoder(nn.Module):
    """Image embedding (1, C, h, w), points (P, N, 2) and labels (P, N) to masks (P, K, 4 h, 4 w) and scores (P, K).

    Points are (x, y) pixels of the network's input. Labels: 1 foreground, 0 background, 2 and 3 the upper left and
    lower right corner of a box, -1 padding: P prompts may have points in different number, and a prompt without a box
    needs one point of padding at its end, which the hosts add themselves. Another label is an error in ONNX Runtime,
    and masks of NaN elsewhere.
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
        self.mask_features = encoder.mask_embed if self.of_transformers else encoder.mask_downscaling
        self.no_mask = encoder.no_mask_embed
        with torch.no_grad():
            host = model.get_image_wide_positional_embeddings if self.of_transformers else encoder.get_dense_pe
            position = host()
            rows = [embeddings.weight] if hasattr(embeddings, "weight") else [e.weight for e in embeddings]
            kinds = torch.cat([encoder.not_a_point_embed.weight, *rows])
        self.register_buffer("position", position.clone())
        self.register_buffer("kinds", kinds.clone())  # of label -1, 0, 1, 2, 3

    def forward(self, image_embeddings: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.decode(image_embeddings, self.embed(points, labels), self.without_mask(image_embeddings))

    def decode(self, image: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Of one image; ``dense`` of all prompts or of each."""
        if not self.of_transformers:
            found: tuple[Tensor, Tensor] = self.decoder(image, self.position, sparse, dense, self.multimask)
            return found
        if dense.shape[0] == 1:
            masks, scores = self.of_host(image, sparse[None], dense)
            return masks[0], scores[0]
        masks, scores = self.of_host(image.expand(sparse.shape[0], -1, -1, -1), sparse[:, None], dense)
        return masks[:, 0], scores[:, 0]

    def of_host(self, image: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """transformers' decoder of B images, of each P prompts: masks (B, P, K, 4 h, 4 w)."""
        position = self.position.expand(image.shape[0], -1, -1, -1)
        masks, scores, *_ = self.decoder(image, position, sparse, dense, self.multimask)
        return masks, scores

    def without_mask(self, image: Tensor) -> Tensor:
        return self.no_mask.weight[:, :, None, None].expand(-1, -1, *image.shape[2:])

    def embed(self, points: Tensor, labels: Tensor) -> Tensor:
        at = (points + 0.5) / torch.tensor([float(self.size[1]), float(self.size[0])])
        features = self.features(at) if self.of_transformers else self.features._pe_encoding(at)
        kept = torch.where((labels == -1)[..., None], torch.zeros_like(features), features)
        # A graph cannot refuse another label: ONNX Runtime does, at the row behind the last; elsewhere it gives NaN.
        known = (labels >= -1) & (labels < len(self.kinds) - 1)
        found = kept + self.kinds[torch.where(known, labels + 1, len(self.kinds))]
        return torch.where(known[..., None], found, torch.full_like(found, torch.nan))


class MaskPromptDecoder(SamDecoder):
    """As :class:`SamDecoder`, with a mask for each prompt: logits (P, 1, 4 h, 4 w), of the last click say, which count
    where ``has_mask_input`` (P) is not 0."""

    def forward(  # type: ignore[override]
        self, image_embeddings: Tensor, points: Tensor, labels: Tensor, mask_input: Tensor, has_mask_input: Tensor
    ) -> tuple[Tensor, Tensor]:
        there = (has_mask_input != 0)[:, None, None, None]
        dense = torch.where(there, self.mask_features(mask_input), self.no_mask.weight[:, :, None, None])
        return self.decode(image_embeddings, self.embed(points, labels), dense)


class ManyImagesDecoder(SamDecoder):
    """As :class:`SamDecoder`, of B images: points (B, P, N, 2), labels (B, P, N), masks (B, P, K, 4 h, 4 w)."""

    def forward(self, image_embeddings: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        dense = self.without_mask(image_embeddings).expand(image_embeddings.shape[0], -1, -1, -1)
        return self.of_host(image_embeddings, self.embed(points, labels), dense)


class HqDecoder(SamDecoder):
    """SAM-HQ's: also takes the encoder's early features (1, h, w, C')."""

    def forward(  # type: ignore[override]
        self, image_embeddings: Tensor, early_features: Tensor, points: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        sparse, dense = self.embed(points, labels)[None], self.without_mask(image_embeddings)
        masks, scores = self.decoder(
            image_embeddings, self.position, sparse, dense, self.multimask, False, [early_features]
        )
        return masks[0], scores[0]


class Sam2Decoder(SamDecoder):
    """SAM 2's: also takes features (1, C / 8, 4 h, 4 w) and (1, C / 4, 2 h, 2 w), and gives an object score."""

    def forward(  # type: ignore[override]
        self, image_embeddings: Tensor, features_4: Tensor, features_2: Tensor, points: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        sparse, dense = self.embed(points, labels)[None], self.without_mask(image_embeddings)
        masks, scores, _, objects = self.decoder(
            image_embeddings, self.position, sparse, dense, self.multimask, [features_4, features_2]
        )
        return masks[0], scores[0], objects[0]


class SamEncoder(nn.Module):
    """Pixels (B, 3, H, W), normalised as the host does it, to the image embedding (B, C, H / 16, W / 16)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.image_encoder if hasattr(model, "image_encoder") else model.vision_encoder

    def forward(self, pixels: Tensor) -> Any:
        found = self.encoder(pixels)
        return found if isinstance(found, Tensor) else found[0]


class HqEncoder(SamEncoder):
    """SAM-HQ's, with the features of its first layer without windows."""

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        found = self.encoder(pixels)
        return found[0], found[1][0]


class Sam2Encoder(nn.Module):
    """SAM 2's, of one image: the embedding, and the features at two and four times its size."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        finest, finer, image = self.model.get_image_embeddings(pixels)
        return image, finest, finer


def size_of(model: Any) -> tuple[int, int]:
    encoder = model.prompt_encoder
    size = getattr(encoder, "input_image_size", None)
    size = size if size is not None else encoder.shared_embedding.config.image_size
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def options(inputs: dict[str, Any], outputs: list[str], free: Any) -> dict[str, Any]:
    names = {"input_names": list(inputs), "output_names": outputs}
    return {"args": tuple(inputs.values()), **names, "dynamic_shapes": free}
