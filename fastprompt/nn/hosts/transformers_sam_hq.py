"""Drop-ins for ``transformers.models.sam_hq``."""

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers.models.sam_hq import modeling_sam_hq as host

from fastprompt.nn.parts.around import WideModel
from fastprompt.nn.parts.decoder import TransformersDecoder, constant, one_position
from fastprompt.nn.parts.encoder import TransformersLayer
from fastprompt.nn.parts.positions import TransformersPositions
from fastprompt.nn.parts.recording import passes_for
from fastprompt.nn.parts.relative import TransformersAttention
from fastprompt.nn.parts.sam_hq import HqDecoder, HqLayers, between
from fastprompt.nn.parts.windows import TransformersEncoder


class SamHQMaskDecoder(TransformersDecoder, HqDecoder, host.SamHQMaskDecoder):
    """``SamHQMaskDecoder``: the transformer in two kernels, and a product for each mask.

    Unlike SAM-HQ's own package, this host up-scales not the image that the transformer returns, but the one that it is
    given, and with its axes exchanged (transformers 5.24: ``point_embedding, iou_token_out = self.transformer(...)``).
    So do we: then all but the vectors of the masks is of the image alone, and kept for the next prompt.
    """

    @classmethod
    def unsupported(cls, host_module: Any) -> str | None:
        try:
            known = "iou_token_out = self.transformer(" in inspect.getsource(host.SamHQMaskDecoder.forward)
        except OSError:
            known = False
        return super().unsupported(host_module) if known else "this version of transformers up-scales another image"

    def forward(
        self,
        image_embeddings: Tensor,
        image_positional_embeddings: Tensor,
        sparse_prompt_embeddings: Tensor | None,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        hq_token_only: bool,
        intermediate_embeddings: list[Tensor] | None = None,
        attention_similarity: Tensor | None = None,
        target_embedding: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        inputs = (image_embeddings, image_positional_embeddings, sparse_prompt_embeddings, dense_prompt_embeddings)
        early = intermediate_embeddings[0] if intermediate_embeddings else None
        unused = self.uncovered(attention_similarity, target_embedding)
        if self.falls_back(*inputs, early, **unused) or not one_position(image_positional_embeddings):
            options = (multimask_output, hq_token_only, intermediate_embeddings, attention_similarity, target_embedding)
            return super().forward(*inputs, *options)
        return self.run(*inputs, multimask_output, hq_token_only, early)

    def predict(
        self, image: Tensor, position: Tensor, sparse: Any, dense: Tensor, multimask: bool, only: bool, early: Any
    ) -> tuple[Tensor, Tensor]:
        batch, prompts = image.shape[0], 1 if sparse is None else sparse.shape[1]
        tokens = self.own_tokens().expand(batch, prompts, -1, -1)
        if sparse is not None:
            tokens = torch.cat([tokens, sparse], 2)
        tokens, _ = self.attend(tokens.flatten(0, 1), image, dense, position)
        wanted = slice(1, None) if multimask else slice(0, 1)
        embeddings = self.embeddings(image, dense, early)
        masks, fine = (self.products(v, x) for v, x in zip(self.vectors(tokens, wanted), embeddings, strict=True))
        scores = self.from_token(tokens, 0, self.iou_prediction_head)[:, wanted]
        if multimask:
            scores, order = torch.sort(scores, 1, descending=True)
            masks = masks.gather(1, order[..., None, None].expand_as(masks))
        masks = fine if only else masks + fine
        return masks.unflatten(0, (batch, prompts)), scores.unflatten(0, (batch, prompts))

    def embeddings(self, image: Tensor, dense: Tensor, early: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, D, 4 H, 4 W) for the masks of SAM, and for that of HQ."""

        def make() -> tuple[Tensor, Tensor]:
            up = self.upscaled((image + dense).transpose(2, 3).reshape(image.shape))
            return up, between(up, self.hq().refine) + self.features(image, early)

        hq = self.hq()
        layers = (*self.upscaling(), *hq.encode, *hq.compress, *hq.refine)
        # A mask prompt makes another image every time.
        return self.once(image, [dense[:, :, 0, 0], early], layers, make) if constant(dense) else make()

    @staticmethod
    def products(vectors: Tensor, embedding: Tensor) -> Tensor:
        """(B P, K, 4 H, 4 W) for vectors (B P, K, D) and embeddings (B, D, 4 H, 4 W)."""
        rows = vectors.reshape(len(embedding), -1, vectors.shape[2]) @ embedding.flatten(2)
        return rows.view(*vectors.shape[:2], *embedding.shape[2:])

    def hq(self) -> HqLayers:
        return HqLayers(
            self.hq_token,
            self.hq_mask_mlp,
            (self.encoder_conv1, self.encoder_norm, self.encoder_conv2),
            (self.compress_vit_conv1, self.compress_vit_norm, self.compress_vit_conv2),
            (self.mask_conv1, self.mask_norm, self.mask_conv2),
        )


class SamHQPositionalEmbedding(TransformersPositions, host.SamHQPositionalEmbedding):
    """``SamHQPositionalEmbedding`` that computes the positions of the image's tokens once."""


class SamHQVisionAttention(TransformersAttention, host.SamHQVisionAttention):
    """``SamHQVisionAttention`` without the N x N numbers of every head: bias and weights are never in memory."""


class SamHQVisionSdpaAttention(TransformersAttention, host.SamHQVisionSdpaAttention):
    """``SamHQVisionSdpaAttention`` without the N x N numbers of every head: bias and weights are never in memory."""


class SamHQVisionLayer(TransformersLayer, host.SamHQVisionLayer):
    """``SamHQVisionLayer`` in three operators, its windows where they are."""


class SamHQVisionEncoder(TransformersEncoder, host.SamHQVisionEncoder):
    """``SamHQVisionEncoder`` that drops windows before one of its layers, in its intermediate embeddings as well."""

    LAYER = "SamHQVisionLayer"
    INTERMEDIATE = True

    def result(self, x: Tensor, outputs: list[Tensor]) -> Any:
        return host.SamHQVisionEncoderOutput(last_hidden_state=x, intermediate_embeddings=outputs)


passes_for(SamHQVisionEncoder, host.SamHQVisionEncoder)


class SamHQModel(WideModel, host.SamHQModel):
    """``SamHQModel`` that hands the positions of the image on, and copies them for no click."""


passes_for(SamHQModel, host.SamHQModel)
