"""The predictors and mask generators of the hosts, unchanged, on an accelerated model."""

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from decoders import HAS_TORCHVISION, package  # noqa: E402
from hosts import no_grad, randomise, same  # noqa: E402, F401

PICTURE = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
PACKAGES = ["segment_anything", "mobile_sam", "segment_anything_hq", "segment_anything_hq HQ"]


def sam_of(name, size=256):
    """A ``Sam`` of a package of segment-anything's shape, of one small encoder layer."""
    name, _, hq = name.partition(" ")
    package(name)
    modeling = package(f"{name}.modeling")
    torch.manual_seed(0)
    transformer = modeling.TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    grid, options = (size // 16, size // 16), {"vit_dim": 32} if hq else {}
    encoder = {"depth": 1, "embed_dim": 32, "img_size": size, "num_heads": 2, "patch_size": 16, "out_chans": 256}
    model = modeling.Sam(
        modeling.ImageEncoderViT(**encoder),
        modeling.PromptEncoder(256, image_embedding_size=grid, input_image_size=(size, size), mask_in_chans=16),
        getattr(modeling, "MaskDecoderHQ" if hq else "MaskDecoder")(
            transformer_dim=256, transformer=transformer, **options
        ),
    )
    randomise(model.mask_decoder)
    return fp.accelerate(model.eval())


CLICKS = {
    "point": {"point_coords": np.array([[100.0, 60.0]]), "point_labels": np.array([1])},
    "box": {"box": np.array([10.0, 20.0, 100.0, 90.0])},
    "one mask": {"point_coords": np.array([[9.0, 9.0]]), "point_labels": np.array([1]), "multimask_output": False},
    "mask": {"box": np.array([10.0, 20.0, 100.0, 90.0]), "mask_input": np.ones((1, 64, 64), np.float32)},
}


@pytest.mark.parametrize("name", PACKAGES)
def test_predictor(name):
    model = sam_of(name)
    predictor = package(name.split()[0]).SamPredictor(model)
    predictor.set_image(PICTURE)
    assert type(model.mask_decoder).__module__.startswith("fastprompt.nn.")
    for click in CLICKS.values():
        with fp.disabled():
            want = predictor.predict(**click, return_logits=True)
        for x, y in zip(predictor.predict(**click, return_logits=True), want, strict=True):
            same(torch.from_numpy(x), torch.from_numpy(y))


@pytest.mark.parametrize("name", ["segment_anything", "segment_anything_hq HQ"])
def test_predictor_of_many_prompts(name):
    predictor = package(name.split()[0]).SamPredictor(sam_of(name))
    predictor.set_image(PICTURE)
    boxes = torch.tensor([[10.0, 20.0, 100.0, 90.0], [10.0, 10.0, 90.0, 80.0], [5.0, 5.0, 60.0, 40.0]])
    masks = torch.randn(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    for mask_input in (None, masks):
        with fp.disabled():
            want = predictor.predict_torch(None, None, boxes, mask_input, return_logits=True)
        got = predictor.predict_torch(None, None, boxes, mask_input, return_logits=True)
        for x, y in zip(got, want, strict=True):
            same(x, y)


@pytest.mark.parametrize("name", ["segment_anything", "mobile_sam", "segment_anything_hq"])
def test_masks_are_enlarged_as_the_host_does(name):
    model = sam_of(name)
    logits = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    host = type(model).__bases__[-1].postprocess_masks
    for sizes in (((192, 256), (97, 131)), ((256, 170), (500, 333)), ((300, 256), torch.Size((31, 7)))):
        got = model.postprocess_masks(logits, *sizes)
        same(got, host(model, logits, *sizes))
        assert got.is_contiguous()
    for other in (logits.double(), logits[:0], logits.requires_grad_()):  # the host's
        with torch.enable_grad():
            found = model.postprocess_masks(other, *sizes)
            assert torch.equal(found, host(model, other, *sizes))
            assert found.requires_grad == other.requires_grad
    with pytest.raises(Exception, match="size") as want:
        host(model, logits, (192, 256), (0, 5))
    with pytest.raises(type(want.value), match="size"):
        model.postprocess_masks(logits, (192, 256), (0, 5))


def test_a_method_of_ones_own_is_called(monkeypatch):
    model = sam_of("segment_anything")
    logits = torch.randn(1, 3, 64, 64)
    monkeypatch.setattr(type(model).__bases__[-1], "postprocess_masks", lambda self, masks, *sizes: masks + 1)
    assert torch.equal(model.postprocess_masks(logits, (192, 256), (97, 131)), logits + 1)


@pytest.mark.parametrize("name", ["segment_anything", "mobile_sam"])
def test_sam_forward(name):
    """Every image of a list, of a size of its own, with every kind of prompt."""
    model = sam_of(name)
    g = torch.Generator().manual_seed(0)
    image = lambda h, w: torch.rand(3, h, w, generator=g) * 255  # noqa: E731
    point = {"point_coords": torch.tensor([[[100.0, 60.0]]]), "point_labels": torch.ones(1, 1)}
    boxes = {"boxes": torch.tensor([[10.0, 20.0, 100.0, 90.0], [5.0, 5.0, 60.0, 40.0]])}
    mask = {"mask_inputs": torch.randn(1, 1, 64, 64, generator=g)}
    asked = [
        {"image": image(192, 256), "original_size": (96, 128), **point},
        {"image": image(256, 170), "original_size": (500, 333), **boxes},
        {"image": image(256, 256), "original_size": (77, 77), **point, **mask},
    ]
    for multimask in (True, False):
        with fp.disabled():
            want = model(asked, multimask)
        for x, y in zip(model(asked, multimask), want, strict=True):
            assert list(x) == list(y)
            same(x["low_res_logits"], y["low_res_logits"])
            same(x["iou_predictions"], y["iou_predictions"])
            assert x["masks"].dtype == torch.bool
            assert int((x["masks"] != y["masks"]).sum()) <= 2


# ---------------------------------------------------------------- sam2


def sam2_of(size=256):
    """The model of the smallest configuration, smaller still."""
    if not HAS_TORCHVISION:
        pytest.skip("sam2's predictor needs torchvision")
    encoders, trunk = package("sam2.modeling.backbones.image_encoder"), package("sam2.modeling.backbones.hieradet")
    position, base = package("sam2.modeling.position_encoding"), package("sam2.modeling.sam2_base")
    torch.manual_seed(0)
    neck = encoders.FpnNeck(
        position.PositionEmbeddingSine(256),
        d_model=256,
        backbone_channel_list=[128, 64, 32, 16],
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    blocks = {"stages": (1, 1, 2, 1), "global_att_blocks": (3,), "window_pos_embed_bkg_spatial_size": (7, 7)}
    hiera = trunk.Hiera(embed_dim=16, **blocks)
    model = base.SAM2Base(
        encoders.ImageEncoder(hiera, neck, scalp=1),
        memory_attention=torch.nn.Identity(),
        memory_encoder=torch.nn.Identity(),
        image_size=size,
        directly_add_no_mem_embed=True,
        use_high_res_features_in_sam=True,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        use_multimask_token_for_obj_ptr=True,
        sam_mask_decoder_extra_args={"dynamic_multimask_via_stability": True},
    )
    randomise(model.sam_mask_decoder)
    return fp.accelerate(model.eval())


def predictor_of(model):
    predictor = package("sam2.sam2_image_predictor").SAM2ImagePredictor(model)
    predictor._bb_feat_sizes = [(model.image_size // k,) * 2 for k in (4, 8, 16)]  # the host's are those of 1024
    return predictor


JIT = pytest.mark.filterwarnings("ignore:.torch.jit.script")  # sam2 calls it


@JIT
@pytest.mark.parametrize("half", [False, True])
def test_sam2_predictor(half):
    model = sam2_of()
    replaced = ["image_encoder.neck.position_encoding", "sam_mask_decoder", "sam_prompt_encoder.pe_layer"]
    assert sorted(fp.report(model).replaced) == replaced
    predictor = predictor_of(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        predictor.set_image(PICTURE)
        for click in CLICKS.values():
            with fp.disabled():
                want = predictor.predict(**click, return_logits=True)
            for x, y in zip(predictor.predict(**click, return_logits=True), want, strict=True):
                same(torch.from_numpy(x), torch.from_numpy(y), 1e-1 if half else 1e-5)


@JIT
def test_sam2_transforms_enlarge_as_the_host_does():
    predictor = predictor_of(sam2_of())
    transforms = fp.accelerate(predictor._transforms)
    assert list(fp.report(transforms).replaced) == [""]
    logits = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with fp.disabled():
        want = transforms.postprocess_masks(logits, (97, 131)), transforms.postprocess_masks(logits.half(), (97, 131))
    same(transforms.postprocess_masks(logits, (97, 131)), want[0])
    same(transforms.postprocess_masks(logits.half(), (97, 131)), want[1])
    predictor.set_image(PICTURE)
    for click in CLICKS.values():
        with fp.disabled():
            want = predictor.predict(**click)
        got = predictor.predict(**click)
        assert (got[0] != want[0]).sum() <= 2
        assert got[0].dtype == want[0].dtype
    transforms.max_hole_area = 3.0  # which takes a kernel for GPUs; without it the host says so, and goes on
    with pytest.warns(UserWarning, match="Skipping the post-processing step"):
        same(
            transforms.postprocess_masks(logits, (97, 131)), fp.restore(transforms).postprocess_masks(logits, (97, 131))
        )


@JIT
def test_sam2_keeps_the_positions_of_its_levels():
    model = sam2_of()
    encode = lambda: model.image_encoder(torch.zeros(1, 3, 256, 256))["vision_pos_enc"]  # noqa: E731
    with fp.disabled():
        want = [x.clone() for x in encode()]
    first, again = encode(), encode()
    assert all(torch.equal(x, y) for x, y in zip(first, want, strict=True))
    assert [x.data_ptr() for x in first] == [x.data_ptr() for x in again]
    first[0].add_(1)  # the caller's
    assert all(torch.equal(x, y) for x, y in zip(encode(), want, strict=True))


@JIT
def test_sam2_predictor_prepares_an_image_once():
    """It passes a new view of the image for every click."""
    model = sam2_of()
    predictor = predictor_of(model)
    predictor.set_image(PICTURE)
    predictor.predict(**CLICKS["point"])
    prepared = model.sam_mask_decoder.__dict__["_fastprompt_low_rank"]._kept.result
    predictor.predict(**CLICKS["box"])
    assert model.sam_mask_decoder.__dict__["_fastprompt_low_rank"]._kept.result is prepared


@JIT
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:cannot import name '_C'")  # hydra; a kernel for GPUs
def test_a_bounded_video_of_sam2(tmp_path):
    """Forward, then a click on the last frame and on: the same bits, and a bank of 16 frames."""
    pytest.importorskip("hydra")
    image = pytest.importorskip("PIL.Image")
    for n in range(24):
        picture = np.random.default_rng(n).integers(0, 255, (96, 128, 3), dtype=np.uint8)
        image.fromarray(picture).save(tmp_path / f"{n:03}.jpg")
    small = {
        "image_size": 256,
        "image_encoder.trunk.embed_dim": 16,
        "image_encoder.trunk.stages": [1, 1, 2, 1],
        "image_encoder.trunk.global_att_blocks": [3],
        "image_encoder.neck.backbone_channel_list": [128, 64, 32, 16],
        "memory_attention.num_layers": 1,
    }
    torch.manual_seed(0)
    predictor = package("sam2.build_sam").build_sam2_video_predictor(
        "configs/sam2.1/sam2.1_hiera_t.yaml",
        None,
        "cpu",
        hydra_overrides_extra=[f"++model.{k}={v}" for k, v in small.items()],
    )
    randomise(predictor)
    fp.accelerate(predictor)
    results = []
    for bound in (lambda state: state, lambda state: fp.bounded(state, predictor)):
        state, found = bound(predictor.init_state(str(tmp_path))), []
        for frame, label in ((0, 1), (19, 0)):
            predictor.add_new_points_or_box(state, frame, 1, [[60.0, 50.0]], [label])
            found += [masks for *_, masks in predictor.propagate_in_video(state, frame, 19)]
        bank = state["output_dict_per_obj"][0]["non_cond_frame_outputs"]
        results.append(found)
    assert len(found) > 20
    assert sorted(bank) == list(range(8, 24))
    assert [k for k in bank if "maskmem_features" in bank[k]] == list(range(17, 24))
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))


# ---------------------------------------------------------------- masks of a whole image


def same_masks(got, want):
    """Of a mask generator: equal but for pixels whose logits are 0 but for rounding."""
    assert len(got) == len(want) > 20
    for x, y in zip(got, want, strict=True):
        differ = (x["segmentation"] != y["segmentation"]).sum()
        assert differ <= 2
        assert abs(x["predicted_iou"] - y["predicted_iou"]) < 1e-5
        assert x["point_coords"] == y["point_coords"]


EVERY = {"points_per_side": 8, "points_per_batch": 64, "box_nms_thresh": 1.0}  # random masks fill the image


@pytest.mark.skipif(not HAS_TORCHVISION, reason="mask generators need torchvision")
@pytest.mark.parametrize("name", ["segment_anything", "segment_anything_hq HQ", "mobile_sam"])
def test_automatic_mask_generator(name):
    generator = package(name.split()[0]).SamAutomaticMaskGenerator(
        sam_of(name), pred_iou_thresh=-9.0, stability_score_thresh=0.0, **EVERY
    )
    with fp.disabled():
        want = generator.generate(PICTURE)
    same_masks(generator.generate(PICTURE), want)


@JIT
@pytest.mark.skipif(not HAS_TORCHVISION, reason="mask generators need torchvision")
def test_sam2_automatic_mask_generator():
    generators = package("sam2.automatic_mask_generator")
    generator = generators.SAM2AutomaticMaskGenerator(
        sam2_of(), pred_iou_thresh=-9.0, stability_score_thresh=0.0, **EVERY
    )
    generator.predictor._bb_feat_sizes = [(64, 64), (32, 32), (16, 16)]
    with fp.disabled():
        want = generator.generate(PICTURE)
    same_masks(generator.generate(PICTURE), want)


@pytest.mark.skipif(not HAS_TORCHVISION, reason="transformers' image processor needs torchvision")
def test_transformers_mask_generation_pipeline():
    from PIL import Image

    vision = transformers.SamVisionConfig(
        image_size=256, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, mlp_dim=64, global_attn_indexes=[0]
    )
    prompt = transformers.SamPromptEncoderConfig(image_size=256)
    model = transformers.SamModel(transformers.SamConfig(vision_config=vision, prompt_encoder_config=prompt)).eval()
    randomise(model.mask_decoder)
    processor = transformers.SamImageProcessor(
        size={"longest_edge": 256}, pad_size={"height": 256, "width": 256}, mask_size={"longest_edge": 64}
    )
    generate = transformers.pipeline("mask-generation", model=fp.accelerate(model), image_processor=processor)
    options = {
        "points_per_batch": 64,
        "points_per_crop": 8,
        "pred_iou_thresh": -9.0,
        "stability_score_thresh": 0.0,
        "crops_nms_thresh": 1.0,
    }
    with fp.disabled():
        want = generate(Image.fromarray(PICTURE), **options)
    got = generate(Image.fromarray(PICTURE), **options)
    assert len(got["masks"]) == len(want["masks"]) > 20
    assert all((np.asarray(x) != np.asarray(y)).sum() <= 2 for x, y in zip(got["masks"], want["masks"], strict=True))
    same(got["scores"], want["scores"])
