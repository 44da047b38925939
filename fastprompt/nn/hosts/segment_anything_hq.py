"""Drop-ins for the package ``segment-anything-hq``."""

from typing import Any

import torch
from segment_anything_hq.modeling import image_encoder, mask_decoder, mask_decoder_hq, prompt_encoder, sam
from torch import Tensor

from fastprompt.nn.parts.decoder import Attended
from fastprompt.nn.parts.encoder import SegmentAnythingLayer
from fastprompt.nn.parts.enlarging import SegmentAnythingModel
from fastprompt.nn.parts.positions import SegmentAnythingPositions
from fastprompt.nn.parts.relative import SegmentAnythingAttention
from fastprompt.nn.parts.sam_hq import HqDecoder, HqLayers, product
from fastprompt.nn.parts.segment_anything import PackageDecoder, SegmentAnythingDecoder


class MaskDecoder(SegmentAnythingDecoder, mask_decoder.MaskDecoder):
    """``MaskDecoder`` in three kernels; the image is neither repeated for the prompts nor prepared twice."""

    def forward(  # type: ignore[override] # this host has two arguments more
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        hq_token_only: bool,
        interm_embeddings: Any,
    ) -> tuple[Tensor, Tensor]:
        """The host does not look at the last two."""
        inputs = (image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings)
        if self.covers(*inputs):
            return self.run(*inputs, multimask_output)
        return mask_decoder.MaskDecoder.forward(self, *inputs, multimask_output, hq_token_only, interm_embeddings)


class MaskDecoderHQ(HqDecoder, PackageDecoder, mask_decoder_hq.MaskDecoderHQ):
    """``MaskDecoderHQ``: SAM's part in three kernels, and what HQ adds in torch operators, with as little as it takes;
    the image is neither repeated for the prompts nor prepared twice."""

    parts = (
        *PackageDecoder.parts, "hf_token", "hf_mlp", "compress_vit_feat", "embedding_encoder", "embedding_maskfeature"
    )  # fmt: skip
    embedding_encoder: Any
    compress_vit_feat: Any
    embedding_maskfeature: Any

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        hq_token_only: bool,
        interm_embeddings: Any,
    ) -> tuple[Tensor, Tensor]:
        inputs = (image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings)
        early = interm_embeddings[0]
        if self.covers(*inputs, early) and early.shape[0] == 1:
            return self.run(*inputs, multimask_output, hq_token_only, early)
        return mask_decoder_hq.MaskDecoderHQ.forward(self, *inputs, multimask_output, hq_token_only, interm_embeddings)

    def predict(
        self, image: Tensor, position: Tensor, sparse: Tensor, dense: Tensor, multimask: bool, only: bool, early: Tensor
    ) -> tuple[Tensor, Tensor]:
        wanted = slice(1, None) if multimask else slice(0, 1)
        tokens = torch.cat([self.own_tokens().expand(len(sparse), -1, -1), sparse], 1)
        tokens, attended = self.attend_each(tokens, image, dense, position)
        masks, fine = self.both(attended, *self.vectors(tokens, wanted), self.kept_features(image, early))
        scores = self.from_token(tokens, 0, self.iou_prediction_head)[:, wanted]
        if multimask:
            scores, best = scores.max(1, keepdim=True)
            masks = masks.take_along_dim(best[..., None, None], 1)
        return fine if only else masks + fine, scores

    def kept_features(self, image: Tensor, early: Tensor) -> Tensor:
        layers = (*self.hq().encode, *self.hq().compress)
        found: Tensor = self.once(image, [early], layers, lambda: self.features(image, early))
        return found

    def both(self, image: Attended, vectors: Tensor, fine: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """(P, K, 4 H, 4 W) masks of SAM and (P, 1, 4 H, 4 W) of HQ, for the image tokens of the transformer.
        Prompt by prompt: what the convolutions need of one, 24 MB for SAM, is not written for all."""
        size = features.shape[2:]
        masks, refined = (features.new_empty(len(vectors), count, *size) for count in (vectors.shape[1], 1))
        for n, vector in enumerate(fine[:, 0]):
            up = self.upscaled(image[n : n + 1] if isinstance(image, Tensor) else image.of_prompt(n))
            masks[n] = torch.tensordot(vectors[n], up[0], 1)
            refined[n, 0] = product(up, vector, self.hq().refine) + torch.tensordot(vector, features[0], 1)
        return masks, refined

    def hq(self) -> HqLayers:
        encode, compress, refine = (
            (layers[0], layers[1], layers[3])
            for layers in (self.embedding_encoder, self.compress_vit_feat, self.embedding_maskfeature)
        )
        return HqLayers(self.hf_token, self.hf_mlp, encode, compress, refine)


class PositionEmbeddingRandom(SegmentAnythingPositions, prompt_encoder.PositionEmbeddingRandom):
    """``PositionEmbeddingRandom`` that computes the positions of the image's tokens once."""


class Attention(SegmentAnythingAttention, image_encoder.Attention):
    """``Attention`` without the N x N numbers of every head: bias and weights are never in memory."""


class Block(SegmentAnythingLayer, image_encoder.Block):
    """``Block`` in three operators, its windows where they are."""


class Sam(SegmentAnythingModel, sam.Sam):
    """``Sam`` that enlarges masks in one pass."""
