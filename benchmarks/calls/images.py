"""Picture and click of the models of transformers that have ``get_image_embeddings``."""

import torch
import transformers
from calls.weights import draw, trained


def built(cls, config, kind):
    config._attn_implementation = kind
    torch.manual_seed(0)  # of what is no parameter
    return trained(cls(config))


def sam(name, kind, small):
    options = {"global_attn_indexes": [2, 5, 8, 11]}
    if small:
        options = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 64}
        options |= {"image_size": 256, "global_attn_indexes": [1]}
    vision = getattr(transformers, f"{name}VisionConfig")(**options)
    prompt = getattr(transformers, f"{name}PromptEncoderConfig")(image_size=vision.image_size)
    decoder = getattr(transformers, f"{name}MaskDecoderConfig")(
        **({"vit_dim": 32} if small and name == "SamHQ" else {})
    )
    config = getattr(transformers, f"{name}Config")
    config = config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    return built(getattr(transformers, f"{name}Model"), config, kind)


HIERA = {  # by size: of Sam2VisionConfig, and of its backbone
    "T": ({}, {}),
    "B+": (
        {"backbone_channel_list": [896, 448, 224, 112]},
        {
            "hidden_size": 112,
            "num_attention_heads": 2,
            "embed_dim_per_stage": [112, 224, 448, 896],
            "num_attention_heads_per_stage": [2, 4, 8, 16],
            "blocks_per_stage": [2, 3, 16, 3],
            "global_attention_blocks": [12, 16, 20],
            "window_positional_embedding_background_size": [14, 14],
        },
    ),
    "small": (
        {"backbone_channel_list": [256, 128, 64, 32], "backbone_feature_sizes": [[64, 64], [32, 32], [16, 16]]},
        {
            "hidden_size": 32,
            "embed_dim_per_stage": [32, 64, 128, 256],
            "blocks_per_stage": [1, 1, 2, 1],
            "global_attention_blocks": [3],
            "image_size": 256,
        },
    ),
}


def hiera(size):
    vision, backbone = HIERA[size]
    return transformers.Sam2VisionConfig(backbone_config=transformers.Sam2HieraDetConfig(**backbone), **vision)


def sam2(size, kind, small):
    prompt = transformers.Sam2PromptEncoderConfig(**({"image_size": 256} if small else {}))
    config = transformers.Sam2Config(vision_config=hiera("small" if small else size), prompt_encoder_config=prompt)
    return built(transformers.Sam2Model, config, kind)


def repvit(small):
    sizes = {"backbone_feature_sizes": [[64, 64], [32, 32], [16, 16]]} if small else {}
    trunk = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    trunk = transformers.TimmWrapperConfig(architecture="repvit_m1", model_args=trunk)
    return transformers.EdgeTamVisionConfig(backbone_config=trunk, **sizes)


def edgetam(kind, small):
    prompt = transformers.EdgeTamPromptEncoderConfig(**({"image_size": 256} if small else {}))
    config = transformers.EdgeTamConfig(vision_config=repvit(small), prompt_encoder_config=prompt)
    return built(transformers.EdgeTamModel, config, kind)


def perception(layers, small):
    """SAM 3's image encoder of so many layers, the last one global."""
    options = {"num_hidden_layers": layers, "global_attn_indexes": [layers - 1]}
    if small:
        options |= {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2}
        options |= {"image_size": 224, "window_size": 8}
    sizes = [[64, 64], [32, 32], [16, 16]] if small else [[288, 288], [144, 144], [72, 72]]
    backbone = transformers.Sam3ViTConfig(**options)
    return transformers.Sam3VisionConfig(backbone_config=backbone, backbone_feature_sizes=sizes)


def sam3_tracker(layers, kind, small):
    prompt = transformers.Sam3TrackerPromptEncoderConfig(**({"image_size": 224} if small else {}))
    vision = perception(1 if small else layers, small)
    config = transformers.Sam3TrackerConfig(vision_config=vision, prompt_encoder_config=prompt)
    return built(transformers.Sam3TrackerModel, config, kind)


class Encode(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, picture):
        return flat(self.model.get_image_embeddings(picture))


class Click(torch.nn.Module):
    """A click on a picture whose embeddings are given."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, points, labels, *embeddings):
        given = dict.fromkeys(self.names)
        if "intermediate_embeddings" in given:
            given = {"image_embeddings": embeddings[0], "intermediate_embeddings": list(embeddings[1:])}
        else:
            given["image_embeddings"] = list(embeddings) if len(embeddings) > 1 else embeddings[0]
        return self.model(input_points=points, input_labels=labels, multimask_output=True, **given).pred_masks


def flat(x):
    return [x] if isinstance(x, torch.Tensor) else [t for part in x for t in flat(part)]


def pixels(model):
    return model.config.prompt_encoder_config.image_size


def plain_encode(model):
    return Encode(model), (draw(1, 3, pixels(model), pixels(model)),)


def plain_click(model):
    size, side = pixels(model), model.prompt_encoder.image_embedding_size[0]
    points = torch.tensor([[[[0.4 * size, 0.6 * size]]]])
    embeddings, names = [draw(1, 256, side, side, scale=0.3)], ["image_embeddings"]
    if "HQ" in type(model).__name__:
        vision = model.config.vision_config
        embeddings += [
            draw(1, side, side, vision.hidden_size, seed=2 + k) for k, _ in enumerate(vision.global_attn_indexes)
        ]
        names.append("intermediate_embeddings")
    elif type(model).__name__ != "SamModel":
        details = [draw(1, 32, 4 * side, 4 * side, seed=2), draw(1, 64, 2 * side, 2 * side, seed=3)]
        embeddings = details + embeddings
    return Click(model, names), (points, torch.ones(1, 1, 1, dtype=torch.int32), *embeddings)


def encode(model):
    module, inputs = plain_encode(model)
    return lambda: module(*inputs)


def click(model):
    module, inputs = plain_click(model)
    return lambda: module(*inputs)
