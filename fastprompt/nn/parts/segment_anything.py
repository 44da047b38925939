"""The mask decoder of segment-anything's own code, which several packages carry under their name."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from fastprompt.nn.parts.decoder import Attended, Decoder, one_position
from fastprompt.nn.parts.known import other_parts


class PackageDecoder(Decoder):
    """Mixin of the decoders of that shape: prompts without an axis of images."""

    output_upscaling: Any
    parts: ClassVar[tuple[str, ...]] = (
        "transformer", "iou_token", "mask_tokens", "output_upscaling",
        "output_hypernetworks_mlps", "iou_prediction_head",
    )  # fmt: skip

    @classmethod
    def unsupported(cls, host: Any) -> str | None:
        return other_parts(host, *cls.parts) or super().unsupported(host)

    def covers(self, image: Tensor, position: Tensor, *others: Tensor) -> bool:
        # A batch of images is no use of this decoder: the host repeats each for every prompt of all.
        return not self.falls_back(image, position, *others) and image.shape[0] == 1 and one_position(position)

    def upscaling(self) -> tuple[Any, Any, Any]:
        conv1, norm, _, conv2, _ = self.output_upscaling
        return conv1, norm, conv2

    def activations(self) -> list[Any]:
        return [self.output_upscaling[2], self.output_upscaling[4]]

    def attend_each(self, tokens: Tensor, image: Tensor, dense: Tensor, position: Tensor) -> tuple[Tensor, Attended]:
        """``dense`` may differ from prompt to prompt (mask prompts): then every prompt has an image of its own."""
        if dense.shape[0] == 1 or dense.stride(0) == 0:
            return self.attend(tokens, image, dense[:1], position)
        return self.attend(tokens, image.expand(dense.shape[0], -1, -1, -1), dense, position)


class SegmentAnythingDecoder(PackageDecoder):
    """Mixin of a ``MaskDecoder``."""

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        inputs = (image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings)
        return (
            self.run(*inputs, multimask_output) if self.covers(*inputs) else super().forward(*inputs, multimask_output)
        )

    def predict(
        self, image: Tensor, position: Tensor, sparse: Tensor, dense: Tensor, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        own = [x.weight.expand(len(sparse), -1, -1) for x in (self.iou_token, self.mask_tokens)]
        tokens, wanted = torch.cat([*own, sparse], 1), slice(1, None) if multimask else slice(0, 1)
        others = [(0, self.iou_prediction_head)]
        _, masks, (scores,) = self.decode(tokens, image, dense, position, 1, wanted, others)
        return masks, scores[:, wanted]
