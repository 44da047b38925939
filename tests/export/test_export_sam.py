"""Decoders of the SAM family as files: mask prompts, several images, SAM-HQ and SAM 2; what no file may hold."""

import warnings

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxscript", reason="needs the package onnxscript")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")
pytest.importorskip("transformers", reason="needs the package transformers")

import hosts
import onnx
import torch
import transformers
from test_export import SIZE, segment_anything, transformers_sam

import fastprompt as fp

# By TensorRT in a decoder: shapes made of numbers, repeats, branches.
REFUSED = {"OneHot", "Tile", "If", "Loop", "NonZero", "Range"}


def sam2():
    sizes = {"blocks_per_stage": [1] * 4, "embed_dim_per_stage": [32, 64, 128, 256]}
    sizes |= {"num_attention_heads_per_stage": [1, 2, 4, 8], "window_positional_embedding_background_size": [2, 2]}
    backbone = transformers.Sam2HieraDetConfig(hidden_size=32, num_attention_heads=1, image_size=[64, 64], **sizes)
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[256, 128, 64, 32],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
    )
    prompt = transformers.Sam2PromptEncoderConfig(image_size=64)
    model = transformers.Sam2Model(transformers.Sam2Config(vision_config=vision, prompt_encoder_config=prompt)).eval()
    hosts.randomise(model.mask_decoder)
    return model


def sam_hq():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 64}
    config = transformers.SamHQConfig(
        vision_config=transformers.SamHQVisionConfig(image_size=16 * SIZE, global_attn_indexes=[0], **sizes),
        prompt_encoder_config=transformers.SamHQPromptEncoderConfig(image_size=16 * SIZE),
        mask_decoder_config=transformers.SamHQMaskDecoderConfig(vit_dim=32),
    )
    model = transformers.SamHQModel(config).eval()
    hosts.randomise(model.mask_decoder)
    return model


def exported(model, path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter
        return fp.export.onnx(model, path, **options)


def run(path, *tensors):
    """With our library and without: both must agree."""
    import onnxruntime

    found = []
    for register in (False, True):
        options = onnxruntime.SessionOptions()
        if register:
            fp.export.onnxruntime.register(options)
        session = onnxruntime.InferenceSession(path, options)
        given = dict(zip([x.name for x in session.get_inputs()], [x.numpy() for x in tensors], strict=True))
        for _ in range(2):  # the second call finds the image prepared
            found.append(session.run(None, given))
    for other in found[1:]:
        for x, y in zip(other, found[0], strict=True):
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-4)
    return [torch.from_numpy(x) for x in found[0]]


def check(path, inputs):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [x.name for x in model.graph.input] == inputs
    kinds = {n.op_type for n in model.graph.node} | {n.op_type for f in model.functions for n in f.node}
    assert not kinds & REFUSED
    shapes = {x.name: len(x.type.tensor_type.shape.dim) for x in model.graph.input}
    assert all(shapes.values())  # no input is a number that becomes a shape


def prompts(count, points, seed=0):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count, points), generator=g)
    labels[:, -1] = -1  # the padding that hosts add themselves
    return torch.rand(count, points, 2, generator=g) * 16 * SIZE, labels


NAMES = ["image_embeddings", "points", "labels", "mask_input", "has_mask_input"]


@pytest.mark.parametrize("make", [transformers_sam, segment_anything])
def test_mask_prompts(tmp_path, make):
    model, path = make(), tmp_path / "decoder.onnx"
    assert exported(model, path, mask_prompts=True).nodes == {"MaskDecoder": 1}
    check(path, NAMES)
    image, (at, labels) = torch.randn(1, 256, SIZE, SIZE), prompts(3, 4)
    mask, there = torch.randn(3, 1, 4 * SIZE, 4 * SIZE), torch.tensor([1.0, 0.0, 1.0])
    for which in (there, torch.zeros(3)):
        masks, scores = run(path, image, at, labels, mask, which)
        for k in range(3):
            given = mask[k : k + 1] if which[k] else None
            one = (at[k : k + 1, :-1], labels[k : k + 1, :-1])
            with torch.no_grad():
                if hasattr(model, "vision_encoder"):
                    sparse, dense = model.prompt_encoder(one[0][None], one[1][None], None, given)
                    position = model.get_image_wide_positional_embeddings()
                    want = [x[0, 0] for x in model.mask_decoder(image, position, sparse, dense, True)[:2]]
                else:
                    sparse, dense = model.prompt_encoder(one, None, given)
                    position = model.prompt_encoder.get_dense_pe()
                    want = [x[0] for x in model.mask_decoder(image, position, sparse, dense, True)]
            hosts.same(masks[k], want[0])
            hosts.same(scores[k], want[1])


def test_several_images(tmp_path):
    model, path = transformers_sam(), tmp_path / "decoder.onnx"
    exported(model, path, images=True)
    check(path, NAMES[:3])
    image, (at, labels) = torch.randn(2, 256, SIZE, SIZE), prompts(6, 4)
    at, labels = at.unflatten(0, (2, 3)), labels.unflatten(0, (2, 3))
    masks, scores = run(path, image, at, labels)
    with torch.no_grad():
        want = model(image_embeddings=image, input_points=at[:, :, :-1], input_labels=labels[:, :, :-1])
    hosts.same(masks, want.pred_masks)
    hosts.same(scores, want.iou_scores)


@pytest.mark.parametrize("multimask", [True, False])
def test_sam2(tmp_path, multimask):
    model, path = sam2(), tmp_path / "decoder.onnx"
    assert exported(model, path, multimask=multimask).nodes == {"MaskDecoder": 1}
    check(path, ["image_embeddings", "features_4", "features_2", "points", "labels"])
    image, fine, finer = torch.randn(1, 256, 4, 4), torch.randn(1, 32, 16, 16), torch.randn(1, 64, 8, 8)
    at, labels = prompts(3, 4)
    got = run(path, image, fine, finer, at, labels)
    given = {"input_points": at[None, :, :-1], "input_labels": labels[None, :, :-1]}
    with torch.no_grad():
        want = model(image_embeddings=[fine, finer, image], multimask_output=multimask, **given)
    for x, y in zip(got, (want.pred_masks, want.iou_scores, want.object_score_logits), strict=True):
        hosts.same(x, y[0])


def test_sam_hq(tmp_path):
    model, path = sam_hq(), tmp_path / "decoder.onnx"
    assert exported(model, path).nodes == {"TwoWayTransformer": 1, "MaskHead": 1}
    check(path, ["image_embeddings", "early_features", "points", "labels"])
    image, early, (at, labels) = torch.randn(1, 256, SIZE, SIZE), torch.randn(1, SIZE, SIZE, 32), prompts(3, 4)
    got = run(path, image, early, at, labels)
    given = {"input_points": at[None, :, :-1], "input_labels": labels[None, :, :-1].float()}
    with torch.no_grad():
        want = model(image_embeddings=image, intermediate_embeddings=[early], **given)
    hosts.same(got[0], want.pred_masks[0])
    hosts.same(got[1], want.iou_scores[0])


@pytest.mark.parametrize("make", [sam2, sam_hq])
def test_encoders(tmp_path, make):
    model, path = make(), tmp_path / "encoder.onnx"
    found = exported(model, path, part="encoder")
    assert found.nodes == ({"GridAttention": 4} if make is sam2 else {"RelativePositionAttention": 2})
    assert max(found.errors.values()) < 1e-5
    size = 64 if make is sam2 else 16 * SIZE
    run(path, torch.randn(1, 3, size, size))
    names = [x.name for x in onnx.load(path).graph.output]
    assert names == ["image_embeddings", *(["features_4", "features_2"] if make is sam2 else ["early_features"])]


@pytest.mark.parametrize(
    ("make", "options", "text"),
    [
        (transformers_sam, {"mask_prompts": True, "images": True}, "mask_prompts and images cannot both be"),
        (segment_anything, {"images": True}, "images must be False for Sam: its decoder takes one image"),
        (sam2, {"mask_prompts": True}, "mask_prompts must be False for Sam2Model"),
    ],
)
def test_what_no_file_has(tmp_path, make, options, text):
    with pytest.raises(ValueError, match=text):
        fp.export.onnx(make(), tmp_path / "decoder.onnx", **options)
