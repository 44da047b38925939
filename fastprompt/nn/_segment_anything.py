"""The mask decoder of segment-anything's own code, which several packages carry under their name."""

from typing import Any

import torch
from torch import Tensor

from fastprompt.nn._decoder import Decoder, constant, one_position


class SegmentAnythingDecoder(Decoder):
    """Mixin of a ``MaskDecoder``."""

    output_upscaling: Any

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        inputs = (image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings)
        # A batch of images is no use of this decoder: the host repeats each for every prompt of all.
        if self.falls_back(*inputs) or image_embeddings.shape[0] != 1 or not one_position(image_pe):
            return super().forward(*inputs, multimask_output)
        prompts = sparse_prompt_embeddings.shape[0]
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(prompts, -1, -1)
        tokens = torch.cat([tokens, sparse_prompt_embeddings], 1)
        tokens, image = self.attend_each(tokens, image_embeddings, dense_prompt_embeddings, image_pe)
        wanted = slice(1, None) if multimask_output else slice(0, 1)
        masks = self.masks(image, tokens[:, 1 : 1 + self.num_mask_tokens], wanted)
        return masks, self.from_token(tokens, 0, self.iou_prediction_head)[:, wanted]

    def upscaling(self) -> tuple[Any, Any, Any]:
        conv1, norm, _, conv2, _ = self.output_upscaling
        return conv1, norm, conv2

    def attend_each(self, tokens: Tensor, image: Tensor, dense: Tensor, position: Tensor) -> tuple[Tensor, Any]:
        """``dense`` may differ from prompt to prompt (mask prompts): then every prompt has an image of its own."""
        if constant(dense) or dense.shape[0] == 1:
            return self.attend(tokens, image, dense[:1], position)
        return self.attend(tokens, image.expand(dense.shape[0], -1, -1, -1), dense, position)
