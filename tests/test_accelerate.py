"""``accelerate``: the drop-ins against their hosts, call by call."""

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from hosts import PROMPTS, embedding, fast, model, no_grad, points, randomise, sam, same, stand_in_for_torchvision  # noqa: E402, F401


@pytest.mark.parametrize("prompt", PROMPTS)
def test_transformers_sam(fast, isa, prompt):
    arguments = {"image_embeddings": embedding(2 if prompt == "two images" else 1)} | PROMPTS[prompt]
    with fp.disabled():
        want = fast(**arguments)
    for _ in range(2):  # an image that is new, and one that is known
        got = fast(**arguments)
        same(got.pred_masks, want.pred_masks)
        same(got.iou_scores, want.iou_scores)


def test_sixty_four_prompts_and_threads(fast):
    arguments = {"image_embeddings": embedding(), "input_points": points(1, 64, 1)}
    with fp.disabled():
        want = fast(**arguments).pred_masks
    try:
        for threads in (1, 2, 3):
            fp.set_num_threads(threads)
            same(fast(**arguments).pred_masks, want)
            few = {**arguments, "input_points": arguments["input_points"][:, :1]}
            same(fast(**few).pred_masks, want[:, :1])
    finally:
        fp.set_num_threads(None)


def test_another_size(isa):
    model = fp.accelerate(sam(size=9))
    arguments = {"image_embeddings": embedding(size=9), "input_points": points(1, 2, 1) / 8}
    with fp.disabled():
        want = model(**arguments).pred_masks
    same(model(**arguments).pred_masks, want)


# ---------------------------------------------------------------- SAM 2 and its kin


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("name", ["Sam2", "Sam3Tracker", "EdgeTam"])
def test_transformers_sam2(name, multimask, dynamic):
    module = __import__(f"transformers.models.{MODULES[name]}.modeling_{MODULES[name]}", fromlist=["x"])
    config = getattr(transformers, f"{name}MaskDecoderConfig")(dynamic_multimask_via_stability=dynamic)
    config._attn_implementation = "eager"
    decoder = getattr(module, f"{name}MaskDecoder")(config).eval()
    randomise(decoder)
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g) * 0.3  # noqa: E731
    for images, prompts in ((1, 1), (2, 3)):
        detail = [draw(images, 32, 64, 64), draw(images, 64, 32, 32)]
        position = draw(1, 256, 16, 16).expand(images, -1, -1, -1)
        dense = draw(1, 256, 1, 1).expand(images, -1, 16, 16)
        arguments = (draw(images, 256, 16, 16), position, draw(images, prompts, 3, 256), dense, multimask, detail)
        want = fp.restore(decoder)(*arguments)
        fp.accelerate(decoder)
        assert list(fp.report(decoder).replaced.values()) == [f"{module.__name__}.{name}MaskDecoder"]
        for _ in range(2):
            for x, y in zip(decoder(*arguments), want, strict=True):
                same(x, y)


MODULES = {"Sam2": "sam2", "Sam3Tracker": "sam3_tracker", "EdgeTam": "edgetam"}


def test_transformers_sam_hq():
    from transformers.models.sam_hq import modeling_sam_hq

    config = transformers.SamHQMaskDecoderConfig(vit_dim=64)
    config._attn_implementation = "eager"
    decoder = modeling_sam_hq.SamHQMaskDecoder(config).eval()
    randomise(decoder)
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g) * 0.3  # noqa: E731
    for images, prompts in ((1, 1), (2, 3)):
        arguments = {
            "image_embeddings": draw(images, 256, 16, 16),
            "image_positional_embeddings": draw(1, 256, 16, 16).expand(images, -1, -1, -1),
            "sparse_prompt_embeddings": draw(images, prompts, 3, 256),
            "dense_prompt_embeddings": draw(1, 256, 1, 1).expand(images, -1, 16, 16),
            "intermediate_embeddings": [draw(images, 16, 16, 64)],
            "multimask_output": True,
            "hq_token_only": False,
        }
        want = fp.restore(decoder)(**arguments)
        tokens = draw(images, prompts, 8, 256), draw(images * prompts, 256, 16, 16), draw(1, 256, 16, 16)
        tokens = (*tokens[:2], tokens[2].expand(images * prompts, -1, -1, -1), None)
        plain = decoder.transformer(*tokens)
        fp.accelerate(decoder)
        assert list(fp.report(decoder).replaced) == ["transformer"]
        for x, y in zip((*decoder(**arguments), *decoder.transformer(*tokens)), (*want, *plain), strict=True):
            same(x, y)


# ---------------------------------------------------------------- segment-anything


@pytest.fixture(scope="module")
def predictor():
    stand_in_for_torchvision()
    segment_anything = pytest.importorskip("segment_anything")
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    torch.manual_seed(0)
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    model = Sam(
        ImageEncoderViT(depth=1, embed_dim=32, img_size=1024, num_heads=2, patch_size=16, out_chans=256),
        PromptEncoder(embed_dim=256, image_embedding_size=(64, 64), input_image_size=(1024, 1024), mask_in_chans=16),
        MaskDecoder(transformer_dim=256, transformer=transformer),
    ).eval()
    randomise(model.mask_decoder)
    predictor = segment_anything.SamPredictor(fp.accelerate(model))
    predictor.set_image(np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8))
    return predictor


CLICKS = {
    "point": {"point_coords": np.array([[100.0, 200.0]]), "point_labels": np.array([1])},
    "box": {"box": np.array([50.0, 60.0, 300.0, 400.0])},
    "one mask": {"point_coords": np.array([[9.0, 9.0]]), "point_labels": np.array([1]), "multimask_output": False},
    "mask": {"box": np.array([50.0, 60.0, 300.0, 400.0]), "mask_input": np.ones((1, 256, 256), np.float32)},
}


@pytest.mark.parametrize("click", CLICKS)
def test_segment_anything_predictor(predictor, click):
    assert fp.report(predictor.model).replaced == {"mask_decoder": "segment_anything.modeling.mask_decoder.MaskDecoder"}
    with fp.disabled():
        want = predictor.predict(**CLICKS[click], return_logits=True)
    got = predictor.predict(**CLICKS[click], return_logits=True)
    for x, y in zip(got, want, strict=True):
        same(torch.from_numpy(x), torch.from_numpy(y))


def test_segment_anything_many_prompts(predictor):
    boxes = torch.tensor([[50.0, 60.0, 300.0, 400.0], [10.0, 10.0, 90.0, 80.0], [5.0, 5.0, 600.0, 400.0]])
    masks = torch.randn(3, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    for mask_input in (None, masks):
        with fp.disabled():
            want = predictor.predict_torch(None, None, boxes, mask_input, return_logits=True)
        got = predictor.predict_torch(None, None, boxes, mask_input, return_logits=True)
        for x, y in zip(got, want, strict=True):
            same(x, y)
