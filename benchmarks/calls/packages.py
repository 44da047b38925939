"""Picture and click through the predictors of segment-anything, mobile_sam and sam2."""

import functools
import importlib

import numpy as np
import torch
from calls.weights import draw, trained


def segment_anything(kind, small):
    build_sam = importlib.import_module("segment_anything.build_sam")
    torch.manual_seed(0)
    if not small:
        return predictor("segment_anything", build_sam.build_sam_vit_b())
    return predictor("segment_anything", build_sam._build_sam(64, 1, 2, []))


def mobile_sam(kind, small):
    torch.manual_seed(0)
    return predictor("mobile_sam", importlib.import_module("mobile_sam").sam_model_registry["vit_t"]())


def predictor(package, model):
    return importlib.import_module(package).SamPredictor(trained(model))


SMALL = (
    "++model.image_size=256",
    "++model.image_encoder.trunk.embed_dim=32",
    "++model.image_encoder.trunk.stages=[1,1,2,1]",
    "++model.image_encoder.trunk.global_att_blocks=[3]",
    "++model.image_encoder.neck.backbone_channel_list=[256,128,64,32]",
)
LIKE_THE_REST = (  # of `apply_postprocessing`, without its holes, which want a GPU
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98",
    "++model.binarize_mask_from_pts_for_mem_enc=true",
)


def sam2(small, build="build_sam2"):
    """The model of the package: SAM 2.1, Hiera-T."""
    more = [*LIKE_THE_REST, *(SMALL if small else ())]
    torch.manual_seed(0)
    build = getattr(importlib.import_module("sam2.build_sam"), build)
    return trained(
        build("configs/sam2.1/sam2.1_hiera_t.yaml", None, "cpu", hydra_overrides_extra=more, apply_postprocessing=False)
    )


def sam2_predictor(kind, small):
    model = sam2(small)
    found = importlib.import_module("sam2.sam2_image_predictor").SAM2ImagePredictor(model)
    found._bb_feat_sizes = [(model.image_size // k,) * 2 for k in (4, 8, 16)]  # the host's are those of 1024
    return found


def picture():
    """As a camera has it, so that the predictor resizes it."""
    return np.random.default_rng(0).integers(0, 256, (768, 1024, 3), np.uint8)


def embeddings(predictor):
    side = side_of(predictor) // 16
    image = draw(1, 256, side, side, scale=0.3)
    if not is_sam2(predictor):
        return [image]
    return [draw(1, 32, 4 * side, 4 * side, seed=2), draw(1, 64, 2 * side, 2 * side, seed=3), image]


def is_sam2(predictor):
    return type(predictor).__name__ == "SAM2ImagePredictor"


def side_of(predictor):
    return predictor.model.image_size if is_sam2(predictor) else predictor.model.image_encoder.img_size


def encode(predictor):
    image = picture()

    def run():
        predictor.set_image(image)
        if is_sam2(predictor):
            return [*predictor._features["high_res_feats"], predictor._features["image_embed"]]
        return predictor.features

    return run


def click(predictor):
    *details, image = embeddings(predictor)
    if is_sam2(predictor):
        predictor._features = {"image_embed": image, "high_res_feats": details}
        predictor._is_image_set, predictor._orig_hw = True, [(768, 1024)]
    else:
        predictor.features, predictor.is_image_set = image, True
        predictor.original_size = predictor.input_size = (768, 1024)
    point, label = np.array([[400.0, 500.0]]), np.array([1])
    return lambda: torch.from_numpy(predictor.predict(point, label)[2])[None]


class Encode(torch.nn.Module):
    def __init__(self, predictor):
        super().__init__()
        self.model, self.sam2 = predictor.model, is_sam2(predictor)

    def forward(self, picture):
        if not self.sam2:
            return self.model.image_encoder(picture)
        *details, image = self.model.forward_image(picture)["backbone_fpn"]
        return [*details, image + self.model.no_mem_embed.view(1, -1, 1, 1)]


class Click(torch.nn.Module):
    """One point of the object, written out: the prompt encoder asks for labels in a way that no exporter gets right."""

    def __init__(self, predictor):
        super().__init__()
        self.model, self.sam2, self.side = predictor.model, is_sam2(predictor), side_of(predictor)

    def forward(self, points, *embeddings):
        prompts = self.model.sam_prompt_encoder if self.sam2 else self.model.prompt_encoder
        decoder = self.model.sam_mask_decoder if self.sam2 else self.model.mask_decoder
        more = {"high_res_features": list(embeddings[:-1]), "repeat_image": False} if self.sam2 else {}
        point = prompts.pe_layer.forward_with_coords(points + 0.5, prompts.input_image_size)
        sparse = torch.cat([point + prompts.point_embeddings[1].weight, prompts.not_a_point_embed.weight[None]], 1)
        dense = prompts.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(1, -1, *prompts.image_embedding_size)
        masks = decoder(
            image_embeddings=embeddings[-1],
            image_pe=prompts.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            **more,
        )[0]
        enlarge = functools.partial(torch.nn.functional.interpolate, mode="bilinear", align_corners=False)
        if self.sam2:
            return [masks.clamp(-32, 32), enlarge(masks, (768, 1024)) > 0]
        return [masks, enlarge(enlarge(masks, (self.side, self.side))[..., :768, :1024], (768, 1024)) > 0]


def plain_encode(predictor):
    """The encoder alone: without resizing the picture."""
    image = torch.from_numpy(picture()).permute(2, 0, 1).float()
    if is_sam2(predictor):
        return Encode(predictor), (predictor._transforms(picture())[None],)
    return Encode(predictor), (predictor.model.preprocess(image)[None],)


def plain_click(predictor):
    point = [400 / 1024 * side_of(predictor), 500 / 768 * side_of(predictor)] if is_sam2(predictor) else [400, 500]
    points = torch.tensor([[point]], dtype=torch.float32)
    return Click(predictor), (points, *embeddings(predictor))
