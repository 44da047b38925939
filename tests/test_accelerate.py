"""``accelerate``: the drop-ins against their hosts, in everything a user does with a model."""

import copy
import io
import pickle
import sys
import types
import warnings

import numpy as np
import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@torch.no_grad()
def randomise(decoder):
    """As if trained: every parameter has its say, and the logits have a standard deviation near 1."""
    generator = torch.Generator().manual_seed(0)
    for name, p in decoder.named_parameters():
        if p.dim() > 1:
            std = 0.5 if "token" in name.split(".")[0] else p[0].numel() ** -0.5
            p.copy_(torch.randn(p.shape, generator=generator) * std)
        elif name.endswith("bias"):
            p.copy_(torch.randn(p.shape, generator=generator) * 0.05)
        else:
            p.copy_(torch.rand(p.shape, generator=generator) * 0.6 + 0.7)


def sam(size=64):
    vision = transformers.SamVisionConfig(
        image_size=16 * size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        mlp_dim=64,
        global_attn_indexes=[0],
    )
    prompt = transformers.SamPromptEncoderConfig(image_size=16 * size)
    torch.manual_seed(0)
    model = transformers.SamModel(transformers.SamConfig(vision_config=vision, prompt_encoder_config=prompt)).eval()
    randomise(model.mask_decoder)
    return model


def embedding(batch=1, size=64, seed=0):
    return torch.randn(batch, 256, size, size, generator=torch.Generator().manual_seed(seed)) * 0.3


def points(*shape):
    return torch.rand(*shape, 2, generator=torch.Generator().manual_seed(1)) * 1024


BOX = torch.tensor([[[100.0, 100.0, 500.0, 600.0]]])
PROMPTS = {
    "point": {"input_points": points(1, 1, 1)},
    "box": {"input_boxes": BOX},
    "point and box": {"input_points": points(1, 1, 1), "input_boxes": BOX},
    "10 points": {"input_points": points(1, 1, 10)},
    "30 points": {"input_points": points(1, 1, 30)},
    "mask": {
        "input_points": points(1, 1, 1),
        "input_masks": torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(2)),
    },
    "padding": {"input_points": points(1, 1, 3), "input_labels": torch.tensor([[[1, -1, -10]]])},
    "nothing": {},
    "one mask": {"input_points": points(1, 1, 1), "multimask_output": False},
    "16 prompts": {"input_points": points(1, 16, 1)},
    "two images": {"input_points": points(2, 3, 1)},
}


def same(got, want, tolerance=1e-5):
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    assert float((got - want).detach().abs().max()) <= tolerance * max(1.0, float(want.detach().abs().max()) / 4)


@pytest.fixture(scope="module")
def model():
    return sam()  # with parameters that require a gradient, as from_pretrained has them


@pytest.fixture
def fast(model):
    yield fp.accelerate(model)
    fp.restore(model)


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


# ---------------------------------------------------------------- the cache of an image


def test_an_image_that_changes_is_not_taken_for_the_old_one(fast):
    image = embedding()
    ask = lambda: fast(image_embeddings=image, **PROMPTS["point"]).pred_masks  # noqa: E731
    first = ask()
    image.mul_(0.5)  # in place: the version counts
    with fp.disabled():
        want = ask()
    assert not torch.equal(first, want)
    same(ask(), want)
    fast.mask_decoder.transformer.layers[0].cross_attn_token_to_image.k_proj.weight.mul_(1.1)  # so does a weight's
    with fp.disabled():
        want = ask()
    same(ask(), want)
    fast.prompt_encoder.no_mask_embed.weight.add_(0.1)
    with fp.disabled():
        want = ask()
    same(ask(), want)
    randomise(fast.mask_decoder)


def test_inference_mode(fast):
    with torch.inference_mode():
        image = embedding() * 1
        with fp.disabled():
            want = fast(image_embeddings=image, **PROMPTS["point"]).pred_masks
        for _ in range(2):
            same(fast(image_embeddings=image, **PROMPTS["point"]).pred_masks, want)
        image.mul_(0.5)
        with fp.disabled():
            want = fast(image_embeddings=image, **PROMPTS["point"]).pred_masks
        same(fast(image_embeddings=image, **PROMPTS["point"]).pred_masks, want)


def test_the_cache_is_dropped_with_the_image(fast):
    image = embedding()
    fast(image_embeddings=image, **PROMPTS["point"])
    cache = fast.mask_decoder.__dict__["_fastprompt_images"]
    assert cache._kept is not None
    del image
    assert cache._kept is None


def test_a_mask_prompt_is_not_cached(fast):
    image = embedding()
    fast(image_embeddings=image, **PROMPTS["mask"])
    cache = fast.mask_decoder.__dict__["_fastprompt_images"]
    assert cache._kept is None or cache._kept.image() is not image


# ---------------------------------------------------------------- the model remains a model


def test_accelerate_is_idempotent_and_reversible(model):
    host, keys = type(model.mask_decoder), list(model.state_dict())
    assert "not accelerated" in fp.report(model).skipped["mask_decoder"]
    assert fp.accelerate(model) is model
    fast = type(model.mask_decoder)
    assert fast is not host
    assert issubclass(fast, host)
    assert type(fp.accelerate(model).mask_decoder) is fast
    assert fp.report(model).replaced == {"mask_decoder": "transformers.models.sam.modeling_sam.SamMaskDecoder"}
    assert list(model.state_dict()) == keys
    model(image_embeddings=embedding(), **PROMPTS["point"])
    assert list(model.state_dict()) == keys
    assert type(fp.restore(model).mask_decoder) is host
    assert "_fastprompt_images" not in model.mask_decoder.__dict__


def test_save_load_copy_and_pickle(fast, tmp_path):
    arguments = {"image_embeddings": embedding(), **PROMPTS["point"]}
    want = fast(**arguments).pred_masks
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert type(other.mask_decoder) is type(fast.mask_decoder)
        assert torch.equal(other(**arguments).pred_masks, want)
    fast.save_pretrained(tmp_path)
    loaded = transformers.SamModel.from_pretrained(tmp_path).eval()
    same(fp.accelerate(loaded)(**arguments).pred_masks, want)
    buffer = io.BytesIO()
    torch.save(fast.state_dict(), buffer)
    plain = sam()
    plain.load_state_dict(torch.load(io.BytesIO(buffer.getvalue())))
    same(plain(**arguments).pred_masks, want)


def test_hooks_run(fast):
    seen = []
    handle = fast.mask_decoder.register_forward_hook(lambda module, inputs, output: seen.append(output[0].shape))
    fast(image_embeddings=embedding(), **PROMPTS["point"])
    handle.remove()
    assert seen == [(1, 1, 3, 256, 256)]


@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_compile(fast):
    arguments = {"image_embeddings": embedding(), **PROMPTS["point"]}
    want = fast(**arguments).pred_masks
    compiled = torch.compile(fast.mask_decoder, backend="aot_eager", fullgraph=True)
    sparse, dense = fast.prompt_encoder(arguments["input_points"], torch.ones(1, 1, 1, dtype=torch.int), None, None)
    position = fast.get_image_wide_positional_embeddings()
    same(compiled(arguments["image_embeddings"], position, sparse, dense, True)[0], want)


def test_opcheck():
    from fastprompt.ops._torch_two_way import TwoWayWeights, prepare, two_way

    w = TwoWayWeights(sam(size=4).mask_decoder.transformer)
    image, prompt = embedding(size=4), torch.randn(3, 7, 256)
    prepared = prepare(image, embedding(size=4, seed=1), w)
    sizes = (1, 16, w.heads, w.width, w.mlp, w.depth, w.eps)
    weights, first = ([x.detach() for x in xs] for xs in (w.all, w.prepare))
    namespace = torch.ops.fastprompt
    torch.library.opcheck(namespace.two_way.default, (prompt, prepared, weights, *sizes))
    # The numbers behind the last tile are not written, so only shapes can be compared.
    torch.library.opcheck(
        namespace.two_way_prepare.default, (image, image, first), test_utils=("test_schema", "test_faketensor")
    )
    assert [x.shape for x in two_way(prompt[:0], prepared, 1, 16, w)] == [(0, 7, 256), (0, 256, 16)]


# ---------------------------------------------------------------- the host's path


def test_the_reference_backend_is_the_host(fast):
    arguments = {"image_embeddings": embedding(), **PROMPTS["point"]}
    with fp.disabled():
        want = fast(**arguments).pred_masks
    with fp.backend("reference"):
        assert torch.equal(fast(**arguments).pred_masks, want)


def fallback(fast, match, **arguments):
    from fastprompt.nn import _decoder

    _decoder._said.clear()
    with pytest.warns(UserWarning, match=match):
        got = fast(**arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast(**arguments)  # said once
    with fp.disabled():
        want = fast(**arguments)
    same(got.pred_masks, want.pred_masks)


def test_calls_that_are_not_covered(fast):
    arguments = {"image_embeddings": embedding(), **PROMPTS["point"]}
    fallback(fast, "target_embedding is given", target_embedding=torch.zeros(1, 1, 1, 256), **arguments)
    similarity = torch.zeros(1, 1, 1, 4096)
    fallback(fast, "attention_similarity is given", attention_similarity=similarity, **arguments)


def test_gradients_take_the_host(fast):
    arguments = {"image_embeddings": embedding().requires_grad_(), **PROMPTS["point"]}
    with torch.enable_grad():
        fallback(fast, "gradients are enabled", **arguments)
        fast(**arguments).pred_masks.sum().backward()
    assert arguments["image_embeddings"].grad.abs().sum() > 0
    fast.zero_grad()


def test_half_precision_takes_the_host(model):
    half = fp.accelerate(copy.deepcopy(model)).bfloat16()
    fallback(half, "float32 only", image_embeddings=embedding().bfloat16(), **PROMPTS["point"])


def test_what_cannot_be_replaced_is_reported(model):
    other = copy.deepcopy(model)
    other.mask_decoder.transformer.layers[0].mlp.act = torch.nn.GELU()
    host = type(other.mask_decoder)
    assert type(fp.accelerate(other).mask_decoder) is host
    assert "activation must be ReLU" in fp.report(other).skipped["mask_decoder"]
    assert "nothing to replace" in str(fp.report(fp.accelerate(torch.nn.Linear(2, 2))))
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got int"):
        fp.accelerate(3)


# ---------------------------------------------------------------- segment-anything


@pytest.fixture(scope="module")
def predictor():
    """The package wants torchvision for two functions; where it is missing, these stand in."""
    if "torchvision" not in sys.modules:
        try:
            import torchvision  # noqa: F401
        except ImportError:
            image = pytest.importorskip("PIL.Image")
            names = ("", ".transforms", ".transforms.functional", ".ops", ".ops.boxes")
            made = {f"torchvision{n}": types.ModuleType(f"torchvision{n}") for n in names}
            functional = made["torchvision.transforms.functional"]
            functional.to_pil_image = image.fromarray
            functional.resize = lambda picture, size: picture.resize(size[::-1])
            made["torchvision.ops.boxes"].batched_nms = made["torchvision.ops.boxes"].box_area = None
            sys.modules.update(made)
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
