"""Hosts that are asked with a text or with an example, in one call."""

import itertools

import torch
import transformers
from calls import images
from calls.weights import draw


def clipseg(kind, small):
    options = {}
    if small:
        tiny = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
        options = {"vision_config": tiny | {"image_size": 64, "patch_size": 16}, "text_config": tiny}
        options |= {"extract_layers": [1, 2], "reduce_dim": 16, "decoder_num_attention_heads": 2, "projection_dim": 32}
    return images.built(transformers.CLIPSegForImageSegmentation, transformers.CLIPSegConfig(**options), kind)


def seggpt(kind, small):
    options = {"num_hidden_layers": 6, "intermediate_hidden_state_indices": [1, 2, 3, 5], "merge_index": 1}
    if small:
        options |= {"hidden_size": 32, "num_attention_heads": 2, "mlp_dim": 64, "image_size": [64, 32]}
        options |= {"pretrain_image_size": 32, "decoder_hidden_size": 16}
    return images.built(transformers.SegGptForImageSegmentation, transformers.SegGptConfig(**options), kind)


def sam3(kind, small):
    """One layer of every part."""
    config = transformers.Sam3Config(
        vision_config=images.perception(1, small),
        text_config={"num_hidden_layers": 1} | ({"hidden_size": 64, "num_attention_heads": 2} if small else {}),
        geometry_encoder_config={"num_layers": 1},
        detr_encoder_config={"num_layers": 1},
        detr_decoder_config={"num_layers": 1},
    )
    return images.built(transformers.Sam3Model, config, kind)


class Asked(torch.nn.Module):
    """The model asked with these names; its answer is the masks."""

    def __init__(self, model, names, answer):
        super().__init__()
        self.model, self.names, self.answer = model, names, answer

    def forward(self, *inputs):
        return getattr(self.model(**dict(zip(self.names, inputs, strict=True))), self.answer)


WORDS = torch.tensor([[49406, 320, 2368, 49407]])


def picture(model, seed=1):
    size = getattr(model.config, "vision_config", model.config)
    size = getattr(size, "backbone_config", size).image_size
    return draw(1, 3, *((size, size) if isinstance(size, int) else size), seed=seed)


def plain_encode(model):
    kind = type(model).__name__
    if kind.startswith("SegGpt"):
        height, width = model.config.image_size
        parts = [draw(1, 3, height // 2, width, seed=1 + k) for k in range(3)]
        return Asked(model, ("pixel_values", "prompt_pixel_values", "prompt_masks"), "pred_masks"), parts
    names = ("input_ids", "attention_mask", "pixel_values")
    answer = "logits" if kind.startswith("CLIPSeg") else "pred_masks"
    return Asked(model, names, answer), (WORDS, torch.ones_like(WORDS), picture(model))


def encode(model):
    """A picture that has not been seen: every call has another one than the last."""
    module, (*words, first) = plain_encode(model)
    pictures = itertools.cycle([first, draw(*first.shape, seed=9)])
    return lambda: module(*words, next(pictures))


def plain_click(model):
    return plain_encode(model)


def click(model):
    """A text on a known picture."""
    module, inputs = plain_click(model)
    return lambda: module(*inputs)
