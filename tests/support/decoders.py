"""Every mask decoder that has a drop-in, with its prompt encoder, small and with random weights."""

import importlib
import importlib.util
import warnings
from functools import cache

import pytest
import torch
import transformers
from hosts import randomise, stand_in_for_torchvision

SIZE = 9  # image tokens along an axis: two tiles of the kernels, the second ragged
PIXELS = 16 * SIZE
HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None


def package(name):
    """A package that wants torchvision; where that is missing, the few functions that a predictor needs stand in."""
    if not HAS_TORCHVISION and name.split(".")[0] in ("mobile_sam", "segment_anything_hq"):
        pytest.skip(f"{name.split('.')[0]} needs torchvision (it imports timm)")
    stand_in_for_torchvision()
    with warnings.catch_warnings():  # mobile_sam imports timm by names that are going
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, exc_type=ImportError, reason=f"needs the package {name.split('.')[0]}")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def points(count, each):
    return torch.rand(count, each, 2, generator=torch.Generator().manual_seed(1)) * PIXELS


def prompt(kind, count):
    """Points (P, N, 2), labels (P, N), boxes (P, 4) and masks (P, 1, h, w) of ``count`` prompts, or None for each."""
    each = {"10 points": 10, "padding": 3, "box": 0, "nothing": 0, "mask": 1}.get(kind, 1)
    labels = torch.ones(count, each, dtype=torch.int)
    if kind == "padding":
        labels[:] = torch.tensor([1, -1, -10])
    corner = points(count, 1)[:, 0] / 2
    boxes = torch.cat([corner, corner + PIXELS / 3], 1) if "box" in kind else None
    masks = draw(count, 1, 4 * SIZE, 4 * SIZE, seed=2) if kind == "mask" else None
    return (points(count, each), labels, boxes, masks) if each else (None, None, boxes, masks)


KINDS = ["point", "box", "point and box", "10 points", "mask", "padding", "nothing"]


class Host:
    """A decoder and the prompt encoder of its library; ``arguments`` are those of a call of the decoder."""

    def __init__(self, decoder, encoder):
        self.decoder, self.encoder = decoder.eval(), encoder.eval()
        randomise(self.decoder)


class TransformersHost(Host):
    def __init__(self, name, decoder, encoder):
        super().__init__(decoder, encoder)
        self.name = name

    def arguments(self, kind="point", count=1, multimask=True, images=1):
        points, labels, boxes, masks = prompt(kind, images * count)
        split = lambda x: None if x is None else x.unflatten(0, (images, count))  # noqa: E731
        masks = None if masks is None else masks[:images]  # one for an image
        sparse, dense = self.encoder(split(points), split(labels), split(boxes), masks)
        found = {
            "image_embeddings": draw(images, 256, SIZE, SIZE),
            "image_positional_embeddings": draw(1, 256, SIZE, SIZE, seed=3).repeat(images, 1, 1, 1),
            "sparse_prompt_embeddings": sparse,
            "dense_prompt_embeddings": dense,
            "multimask_output": multimask,
        }
        if self.name == "SamHQ":
            found |= {"intermediate_embeddings": [draw(images, SIZE, SIZE, 32, seed=4)], "hq_token_only": False}
        elif self.name != "Sam":
            found["high_resolution_features"] = detail(images)
            if sparse is None:  # this host does not take it
                found["sparse_prompt_embeddings"] = draw(images, 1, 0, 256)
        return found


class PackageHost(Host):
    """Of segment-anything's shape."""

    def __init__(self, name, decoder, encoder):
        super().__init__(decoder, encoder)
        self.name = name

    def arguments(self, kind="point", count=1, multimask=True):
        points, labels, boxes, masks = prompt(kind, count)
        sparse, dense = self.encoder(None if points is None else (points, labels), boxes, masks)
        found = {
            "image_embeddings": draw(1, 256, SIZE, SIZE),
            "image_pe": self.encoder.get_dense_pe(),
            "sparse_prompt_embeddings": sparse,
            "dense_prompt_embeddings": dense,
            "multimask_output": multimask,
        }
        if self.name.startswith("segment_anything_hq"):
            found |= {"hq_token_only": False, "interm_embeddings": draw(1, 1, SIZE, SIZE, 32, seed=4)}
        elif self.name.startswith("sam2"):
            found |= {"repeat_image": True, "high_res_features": detail(1) if "features" in self.name else None}
        return found


def detail(images):
    return [draw(images, 32, 4 * SIZE, 4 * SIZE, seed=5), draw(images, 64, 2 * SIZE, 2 * SIZE, seed=6)]


def of_transformers(name, folder):
    module = importlib.import_module(f"transformers.models.{folder}.modeling_{folder}")
    config = getattr(module, f"{name}MaskDecoderConfig")(**({"vit_dim": 32} if name == "SamHQ" else {}))
    config._attn_implementation = "eager"
    prompt = getattr(module, f"{name}PromptEncoderConfig")(image_size=PIXELS, patch_size=16)
    if name in ("Sam", "SamHQ"):
        prompt = getattr(transformers, f"{name}Config")(prompt_encoder_config=prompt)
    encoder = getattr(module, f"{name}PromptEncoder")(prompt)
    return TransformersHost(name, getattr(module, f"{name}MaskDecoder")(config), encoder)


def of_package(name, modeling, decoder="MaskDecoder", **options):
    module = package(f"{modeling}.mask_decoder{'_hq' if decoder.endswith('HQ') else ''}")
    transformer = package(f"{modeling}.transformer").TwoWayTransformer
    encoder = package(f"{modeling}.prompt_encoder").PromptEncoder
    return PackageHost(
        name,
        getattr(module, decoder)(
            transformer_dim=256,
            transformer=transformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
            **options,
        ),
        encoder(256, image_embedding_size=(SIZE, SIZE), input_image_size=(PIXELS, PIXELS), mask_in_chans=16),
    )


SAM2 = {
    "use_high_res_features": True,
    "iou_prediction_use_sigmoid": True,
    "dynamic_multimask_via_stability": True,
    "pred_obj_scores": True,
    "pred_obj_scores_mlp": True,
    "use_multimask_token_for_obj_ptr": True,
}
BUILDERS = {
    "Sam": lambda: of_transformers("Sam", "sam"),
    "SamHQ": lambda: of_transformers("SamHQ", "sam_hq"),
    "Sam2": lambda: of_transformers("Sam2", "sam2"),
    "Sam3Tracker": lambda: of_transformers("Sam3Tracker", "sam3_tracker"),
    "EdgeTam": lambda: of_transformers("EdgeTam", "edgetam"),
    "Sam2Video": lambda: of_transformers("Sam2Video", "sam2_video"),
    "Sam3TrackerVideo": lambda: of_transformers("Sam3TrackerVideo", "sam3_tracker_video"),
    "EdgeTamVideo": lambda: of_transformers("EdgeTamVideo", "edgetam_video"),
    "segment_anything": lambda: of_package("segment_anything", "segment_anything.modeling"),
    "mobile_sam": lambda: of_package("mobile_sam", "mobile_sam.modeling"),
    "segment_anything_hq": lambda: of_package("segment_anything_hq", "segment_anything_hq.modeling"),
    "segment_anything_hq HQ": lambda: of_package(
        "segment_anything_hq HQ", "segment_anything_hq.modeling", "MaskDecoderHQ", vit_dim=32
    ),
    "sam2": lambda: of_package("sam2", "sam2.modeling.sam"),
    "sam2 features": lambda: of_package("sam2 features", "sam2.modeling.sam", **SAM2),
}


@cache
def host(name):
    """Built once; leave it as it is: a test that changes it takes a copy."""
    torch.manual_seed(0)
    return BUILDERS[name]()
