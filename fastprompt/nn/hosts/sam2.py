"""Drop-ins for the package ``sam2``."""

from typing import Any

import torch
from sam2.modeling import position_encoding
from sam2.modeling.sam import mask_decoder as host
from torch import Tensor

from fastprompt.nn.parts.positions import SegmentAnythingPositions, SinePositions
from fastprompt.nn.parts.segment_anything import PackageDecoder


class MaskDecoder(PackageDecoder, host.MaskDecoder):
    """``MaskDecoder`` in three kernels; the image is neither repeated for the prompts nor prepared twice."""

    parts = (*PackageDecoder.parts, "conv_s0", "conv_s1", "obj_score_token", "pred_obj_score_head")
    obj_score_token: Any
    pred_obj_score_head: Any
    _dynamic_multimask_via_stability: Any

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        repeat_image: bool,
        high_res_features: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        inputs = (image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings)
        detail = high_res_features if self.use_high_res_features else None
        # One image for all prompts, or one for each; anything else the host repeats, or refuses.
        images, fits = image_embeddings.shape[0], 1 if repeat_image else sparse_prompt_embeddings.shape[0]
        fits_too = image_pe.shape[0] == 1 and self.use_high_res_features == (detail is not None)
        if self.falls_back(*inputs, *(detail or ())) or images != fits or not fits_too:
            return host.MaskDecoder.forward(self, *inputs, multimask_output, repeat_image, high_res_features)
        return self.run(*inputs, multimask_output, detail)

    def predict(
        self, image: Tensor, position: Tensor, sparse: Tensor, dense: Tensor, multimask: bool, detail: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        own = [self.obj_score_token.weight] if self.pred_obj_scores else []
        first = len(own)  # the token of the score; those of the masks follow
        own += [self.iou_token.weight, self.mask_tokens.weight]
        tokens = torch.cat([torch.cat(own).expand(len(sparse), -1, -1), sparse], 1)
        choose = not multimask and self.dynamic_multimask_via_stability and not self.training
        wanted = slice(1, None) if multimask else slice(0, None if choose else 1)
        detail = None if detail is None else (detail[1], detail[0])
        others = [(first, self.iou_prediction_head)]
        tokens, masks, (scores,) = self.decode(tokens, image, dense, position, first + 1, wanted, others, detail)
        mask_tokens = tokens[:, first + 1 : first + 1 + self.num_mask_tokens]
        scores = scores[:, wanted]
        if choose:
            masks, scores = self._dynamic_multimask_via_stability(masks, scores)
        kept = slice(1, None) if multimask and self.use_multimask_token_for_obj_ptr else slice(0, 1)
        objects = self.pred_obj_score_head(tokens[:, 0]) if first else scores.new_full((len(scores), 1), 10.0)
        return masks, scores, mask_tokens[:, kept], objects


class PositionEmbeddingRandom(SegmentAnythingPositions, position_encoding.PositionEmbeddingRandom):
    """``PositionEmbeddingRandom`` that computes the positions of the image's tokens once."""


class PositionEmbeddingSine(SinePositions, position_encoding.PositionEmbeddingSine):
    """``PositionEmbeddingSine`` that keeps the positions of a pyramid's levels: the host copies them for a picture."""

    numbers = ("num_pos_feats", "normalize", "scale", "temperature")
    cache: dict[Any, Tensor]

    def forward(self, x: Tensor) -> Tensor:
        host = super().forward

        def make() -> Tensor:
            self.cache.pop((x.shape[-2], x.shape[-1]), None)  # it is what the caller had, who may have written into it
            return host(x)

        return self.kept((len(x), x.shape[-2:]), x.device, make)
