"""Drop-ins for ``transformers.models.sam``."""

from typing import Any

import torch
from torch import Tensor
from transformers.models.sam import modeling_sam as host

from fastprompt.nn.parts.around import WideModel
from fastprompt.nn.parts.decoder import TransformersDecoder, one_position
from fastprompt.nn.parts.encoder import TransformersLayer
from fastprompt.nn.parts.positions import TransformersPositions
from fastprompt.nn.parts.recording import passes_for
from fastprompt.nn.parts.relative import TransformersAttention
from fastprompt.nn.parts.windows import TransformersEncoder


class SamMaskDecoder(TransformersDecoder, host.SamMaskDecoder):
    """``SamMaskDecoder`` in three kernels; the image is neither repeated for the prompts nor prepared twice."""

    def forward(
        self,
        image_embeddings: Tensor,
        image_positional_embeddings: Tensor,
        sparse_prompt_embeddings: Tensor | None,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        attention_similarity: Tensor | None = None,
        target_embedding: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        inputs = (image_embeddings, image_positional_embeddings, sparse_prompt_embeddings, dense_prompt_embeddings)
        unused = self.uncovered(attention_similarity, target_embedding)
        if self.falls_back(*inputs, **unused) or not one_position(image_positional_embeddings):
            return super().forward(*inputs, multimask_output, attention_similarity, target_embedding)
        return self.run(*inputs, multimask_output)

    def predict(
        self, image: Tensor, position: Tensor, sparse: Tensor | None, dense: Tensor, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        batch, prompts = image.shape[0], 1 if sparse is None else sparse.shape[1]
        own = [x.weight.expand(batch, prompts, -1, -1) for x in (self.iou_token, self.mask_tokens)]
        tokens = torch.cat(own if sparse is None else [*own, sparse], 2).flatten(0, 1)
        wanted = slice(1, None) if multimask else slice(0, 1)
        others = [(0, self.iou_prediction_head)]
        _, masks, (scores,) = self.decode(tokens, image, dense, position, 1, wanted, others)
        return masks.unflatten(0, (batch, prompts)), scores[:, wanted].unflatten(0, (batch, prompts))


class SamPositionalEmbedding(TransformersPositions, host.SamPositionalEmbedding):
    """``SamPositionalEmbedding`` that computes the positions of the image's tokens once."""


class SamVisionAttention(TransformersAttention, host.SamVisionAttention):
    """``SamVisionAttention`` without the N x N numbers of every head: bias and weights are never in memory."""


class SamVisionSdpaAttention(TransformersAttention, host.SamVisionSdpaAttention):
    """``SamVisionSdpaAttention`` without the N x N numbers of every head: bias and weights are never in memory."""


class SamVisionLayer(TransformersLayer, host.SamVisionLayer):
    """``SamVisionLayer`` in three operators, its windows where they are."""


class SamVisionEncoder(TransformersEncoder, host.SamVisionEncoder):
    """``SamVisionEncoder`` that drops windows before one of its layers."""

    LAYER = "SamVisionLayer"

    def result(self, x: Tensor, outputs: list[Tensor]) -> Any:
        return host.SamVisionEncoderOutput(last_hidden_state=x)


passes_for(SamVisionEncoder, host.SamVisionEncoder)


class SamModel(WideModel, host.SamModel):
    """``SamModel`` that hands the positions of the image on, and copies them for no click."""


passes_for(SamModel, host.SamModel)
