"""The mask decoder of SAM 2, which transformers has under three names."""

from typing import Any

import torch
from torch import Tensor

from fastprompt.nn.parts.decoder import TransformersDecoder, one_position


class Sam2Decoder(TransformersDecoder):
    """Mixin: as SAM's, with a token for "is the object there", finer features, and a choice among all masks."""

    obj_score_token: Any
    pred_obj_score_head: Any
    dynamic_multimask_via_stability: bool
    _dynamic_multimask_via_stability: Any

    def forward(
        self,
        image_embeddings: Tensor,
        image_positional_embeddings: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        high_resolution_features: list[Tensor],
        attention_similarity: Tensor | None = None,
        target_embedding: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        inputs = (image_embeddings, image_positional_embeddings, sparse_prompt_embeddings, dense_prompt_embeddings)
        unused = self.uncovered(attention_similarity, target_embedding, **kwargs)
        if self.falls_back(*inputs, *high_resolution_features, **unused) or not one_position(inputs[1]):
            rest = (multimask_output, high_resolution_features, attention_similarity, target_embedding)
            return super().forward(*inputs, *rest, **kwargs)
        return self.run(*inputs, multimask_output, high_resolution_features)

    def predict(
        self, image: Tensor, position: Tensor, sparse: Tensor, dense: Tensor, multimask: bool, detail: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch, prompts = image.shape[0], sparse.shape[1]
        own = torch.cat([self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(batch, prompts, -1, -1), sparse], 2).flatten(0, 1)
        finer, fine = detail
        choose = not multimask and self.dynamic_multimask_via_stability and not self.training
        wanted = slice(1, None) if multimask else slice(0, 1)
        needed = slice(0, None) if choose else wanted
        others = [(1, self.iou_prediction_head), (0, self.pred_obj_score_head)]
        tokens, masks, (scores, objects) = self.decode(tokens, image, dense, position, 2, needed, others, (fine, finer))
        masks, mask_tokens = masks.unflatten(0, (batch, prompts)), tokens[:, 2 : 2 + self.num_mask_tokens]
        scores = scores[:, needed].unflatten(0, (batch, prompts))
        if choose:
            masks, scores = self._dynamic_multimask_via_stability(masks, scores)
        objects = objects.unflatten(0, (batch, prompts))
        return masks, scores, mask_tokens[:, wanted].unflatten(0, (batch, prompts)), objects
