"""What a file of each model of the SAM family holds: the module, example inputs, names and free axes."""

from typing import Any

import torch
from torch import nn

from fastprompt.export._onnx import sam, sam2_video

KINDS = ("Sam", "SamModel", "SamHQModel", "Sam2Model", "Sam2VideoModel")
PROMPTS = {0: "prompts", 1: "points"}


def is_sam(model: Any) -> bool:
    """transformers' SamModel, SamHQModel, Sam2Model and Sam2VideoModel, or segment-anything's Sam."""
    return type(model).__name__ in KINDS and hasattr(model, "mask_decoder")


def of_part(
    model: Any, part: str, multimask: bool, mask_prompts: bool, images: bool
) -> tuple[nn.Module, dict[str, Any]]:
    """The module, and the options of the export."""
    kind = type(model).__name__
    if kind == "Sam2VideoModel":
        refuse(kind, mask_prompts, images)
        return sam2_video.of_part(model, part, multimask)
    if part not in ("decoder", "encoder"):
        raise ValueError(f"part must be 'decoder' or 'encoder' for {kind}, got {part!r}")
    return decoder(model, multimask, mask_prompts, images) if part == "decoder" else encoder(model)


def decoder(model: Any, multimask: bool, mask_prompts: bool, images: bool) -> tuple[nn.Module, dict[str, Any]]:
    """The module, and the options of the export."""
    kind = type(model).__name__
    refuse(kind, mask_prompts, images)
    module = decoder_class(kind, mask_prompts, images)(model, multimask)
    rows, columns = (int(n) for n in module.position.shape[2:])
    channels = int(model.mask_decoder.iou_token.weight.shape[1])
    points = torch.rand(3, 4, 2) * float(module.size[0])
    labels = torch.tensor([[1, 0, -1, -1], [2, 3, 1, 0], [1, 1, 1, -1]])
    inputs = {"image_embeddings": torch.randn(1, channels, rows, columns)}
    free: dict[str, Any] = {"image_embeddings": None}
    outputs = ["masks", "scores"]
    if images:
        inputs["image_embeddings"] = torch.randn(2, channels, rows, columns)
        points, labels = points.repeat(2, 1, 1, 1), labels.repeat(2, 1, 1)
        free["image_embeddings"] = {0: "images"}
    if kind == "SamHQModel":
        early = model.mask_decoder.compress_vit_conv1.weight.shape[0]
        inputs["early_features"], free["early_features"] = torch.randn(1, rows, columns, early), None
    if kind == "Sam2Model":
        for scale, part in ((4, channels // 8), (2, channels // 4)):
            name = f"features_{scale}"
            inputs[name], free[name] = torch.randn(1, part, scale * rows, scale * columns), None
        outputs.append("object_scores")
    prompts = {0: "images", 1: "prompts", 2: "points"} if images else PROMPTS
    inputs |= {"points": points, "labels": labels}
    free |= {"points": prompts, "labels": prompts}
    if mask_prompts:
        inputs |= {"mask_input": torch.randn(3, 1, 4 * rows, 4 * columns), "has_mask_input": torch.tensor([1.0, 0, 1])}
        free |= {"mask_input": {0: "prompts"}, "has_mask_input": {0: "prompts"}}
    return module, sam.options(inputs, outputs, free)


def refuse(kind: str, mask_prompts: bool, images: bool) -> None:
    if mask_prompts and images:
        raise ValueError("mask_prompts and images cannot both be in a file: export two")
    if mask_prompts and kind not in ("Sam", "SamModel"):
        raise ValueError(f"mask_prompts must be False for {kind}: only files of SAM's own decoder have them")
    if images and kind != "SamModel":
        raise ValueError(f"images must be False for {kind}: its decoder takes one image (SamModel's several)")


def decoder_class(kind: str, mask_prompts: bool, images: bool) -> Any:
    if kind == "SamHQModel":
        return sam.HqDecoder
    if kind == "Sam2Model":
        return sam.Sam2Decoder
    return sam.MaskPromptDecoder if mask_prompts else sam.ManyImagesDecoder if images else sam.SamDecoder


def encoder(model: Any) -> tuple[nn.Module, dict[str, Any]]:
    kind, size = type(model).__name__, sam.size_of(model)
    if kind == "Sam2Model":  # its windows are counted in Python, for the batch of the example
        outputs = ["image_embeddings", "features_4", "features_2"]
        return sam.Sam2Encoder(model), sam.options({"pixels": torch.randn(1, 3, *size)}, outputs, None)
    inputs, free = {"pixels": torch.randn(2, 3, *size)}, {"pixels": {0: "batch"}}
    if kind == "SamHQModel":
        return sam.HqEncoder(model), sam.options(inputs, ["image_embeddings", "early_features"], free)
    return sam.SamEncoder(model), sam.options(inputs, ["image_embeddings"], free)
