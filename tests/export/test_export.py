"""Exported models against their modules, at shapes other than the example's."""

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

import fastprompt as fp

SIZE = 5  # image tokens along an axis
REFUSED = {"OneHot", "Tile", "If", "Loop", "NonZero"}  # by TensorRT, somewhere in a decoder


def segment_anything():
    hosts.stand_in_for_torchvision()
    modeling = pytest.importorskip("segment_anything.modeling", reason="needs the package segment-anything")
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2, "out_chans": 256}
    options = {"use_rel_pos": True, "window_size": 3, "global_attn_indexes": [1]}
    encoder = modeling.ImageEncoderViT(img_size=16 * SIZE, patch_size=16, **sizes, **options)
    transformer = modeling.TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=256, num_heads=8)
    model = modeling.Sam(
        encoder,
        modeling.PromptEncoder(256, (SIZE, SIZE), (16 * SIZE, 16 * SIZE), 16),
        modeling.MaskDecoder(transformer_dim=256, transformer=transformer),
    )
    return randomised(model, model.image_encoder)


def transformers_sam():
    model = hosts.sam(SIZE)
    return randomised(model, model.vision_encoder)


def randomised(model, encoder):
    hosts.randomise(model.mask_decoder)
    hosts.randomise(encoder)
    return model.eval()


MODELS = {"transformers": transformers_sam, "segment_anything": segment_anything}
made = {}


@pytest.fixture
def exported(tmp_path_factory):
    """``exported(name, part)``: model, file and what was found; made once."""

    def get(name, part):
        if (name, part) not in made:
            torch.manual_seed(0)
            model, path = MODELS[name](), tmp_path_factory.mktemp("export") / f"{name}_{part}.onnx"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch's exporter
                made[name, part] = model, path, fp.export.onnx(model, path, part=part)
        return made[name, part]

    return get


@pytest.mark.filterwarnings("ignore")  # of torch's exporter
def test_the_model_is_as_it_was(tmp_path):
    """Its drop-ins, before and after, and its mode, part by part."""
    model = transformers_sam().train()
    model.mask_decoder.eval()
    fp.accelerate(model.vision_encoder.layers)
    before = [(type(m), m.training) for m in model.modules()]
    fp.export.onnx(model, tmp_path / "encoder.onnx", part="encoder")
    assert [(type(m), m.training) for m in model.modules()] == before


def prompts(count, points):
    g = torch.Generator().manual_seed(count)
    labels = torch.randint(-1, 4, (count, points), generator=g)
    return torch.rand(count, points, 2, generator=g) * 16 * SIZE, labels


@torch.no_grad()
def decoded(model, image, points, labels):
    """By the host's own prompt encoder and decoder; the last point is the padding that it adds itself."""
    given = (points[:, :-1], labels[:, :-1])
    if hasattr(model, "vision_encoder"):
        sparse, dense = model.prompt_encoder(given[0][None], given[1][None], None, None)
        position = model.get_image_wide_positional_embeddings()
        masks, scores = model.mask_decoder(image, position, sparse, dense, True)[:2]
        return masks[0], scores[0]
    sparse, dense = model.prompt_encoder(given, None, None)
    return model.mask_decoder(image, model.prompt_encoder.get_dense_pe(), sparse, dense, True)


def runs(path, registered):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if registered:
        fp.export.onnxruntime.register(options)
    session = onnxruntime.InferenceSession(path, options)
    return lambda *arrays: session.run(None, dict(zip([x.name for x in session.get_inputs()], arrays, strict=True)))


@pytest.mark.parametrize("name", MODELS)
def test_a_decoder_gives_what_its_host_gives(exported, name):
    model, path, found = exported(name, "decoder")
    assert found.nodes == {"MaskDecoder": 1}
    assert len(found.errors) == 4
    assert max(found.errors.values()) < 1e-5
    image = torch.randn(1, 256, SIZE, SIZE)
    for count, points in ((1, 2), (2, 6), (7, 3)):
        at, labels = prompts(count, points)
        labels = labels.clip(-1, 1)
        labels[:, -1] = -1
        want = decoded(model, image, at, labels)
        for registered in (False, True):
            for got, x in zip(runs(path, registered)(image.numpy(), at.numpy(), labels.numpy()), want, strict=True):
                np.testing.assert_allclose(got, x.numpy(), rtol=0, atol=1e-4)


def test_box_corners_are_points(exported):
    model, path, _ = exported("segment_anything", "decoder")
    image, (at, _) = torch.randn(1, 256, SIZE, SIZE), prompts(3, 2)
    with torch.no_grad():
        sparse, dense = model.prompt_encoder(None, at.flatten(1), None)
        want = model.mask_decoder(image, model.prompt_encoder.get_dense_pe(), sparse, dense, True)[0]
    got = runs(path, True)(image.numpy(), at.numpy(), np.full((3, 2), [2, 3]))[0]
    np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_a_decoder_has_nothing_that_tensorrt_refuses(exported, name):
    _, path, _ = exported(name, "decoder")
    model = onnx.load(path)
    kinds = {n.op_type for n in model.graph.node} | {n.op_type for f in model.functions for n in f.node}
    assert not kinds & REFUSED
    assert [x.name for x in model.graph.input] == ["image_embeddings", "points", "labels"]
    assert not any(x.data_location for x in model.graph.initializer)  # one file
    found = fp.export.inspect(path)
    assert found.flavor == "portable"
    assert found.functions == ["MaskDecoder"]
    assert found.inputs["points"] == "float (prompts, points, 2)"
    assert found.notes == []
    assert "register(options)" in str(found)
    for node in model.graph.node:
        if node.domain == "fastprompt":
            attributes = {a.name: a.s for a in node.attribute}
            assert attributes["plugin_namespace"] == b"fastprompt"
            assert attributes["plugin_version"] == b"1"


def test_the_reference_evaluator_runs_a_decoder(exported):
    from onnx.reference import ReferenceEvaluator

    _, path, _ = exported("transformers", "decoder")
    image, (at, labels) = torch.randn(1, 256, SIZE, SIZE), prompts(2, 3)
    given = (image.numpy(), at.numpy(), labels.numpy())
    evaluator = ReferenceEvaluator(str(path))
    got = evaluator.run(None, dict(zip(evaluator.input_names, given, strict=True)))
    for x, want in zip(got, runs(path, False)(*given), strict=True):
        np.testing.assert_allclose(x, want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_an_encoder_gives_what_its_host_gives(exported, name):
    model, path, found = exported(name, "encoder")
    assert found.nodes == {"RelativePositionAttention": 2 if name == "segment_anything" else 1}
    assert max(found.errors.values()) < 1e-5
    pixels = torch.randn(3, 3, 16 * SIZE, 16 * SIZE)
    with torch.no_grad():
        host = model.image_encoder(pixels) if name == "segment_anything" else model.vision_encoder(pixels)[0]
    assert float(host.abs().max()) > 0.1
    for registered in (False, True):
        np.testing.assert_allclose(runs(path, registered)(pixels.numpy())[0], host.numpy(), rtol=0, atol=1e-4)


def test_openvino_runs_a_decoder_inlined_and_with_our_operators(exported, tmp_path):
    openvino = pytest.importorskip("openvino", reason="needs the package openvino")
    _, path, _ = exported("transformers", "decoder")
    inlined = onnx.inliner.inline_local_functions(onnx.load(path))
    onnx.save(inlined, tmp_path / "inlined.onnx")
    assert fp.export.inspect(tmp_path / "inlined.onnx").flavor == "inlined"
    given = [x.numpy() for x in (torch.randn(1, 256, SIZE, SIZE), *prompts(3, 4))]
    want = runs(path, False)(*given)
    for file, extensions in ((tmp_path / "inlined.onnx", []), (path, fp.export.openvino_extension())):
        core = openvino.Core()
        for extension in extensions:
            core.add_extension(extension)
        model = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        for _ in range(2):  # the second call finds the image prepared
            got = model(given)
            for k, x in enumerate(want):
                np.testing.assert_allclose(got[k], x, rtol=0, atol=1e-4)


class Public(torch.nn.Module):
    """Public functions, as they come in a module of a user."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.weights = [torch.randn(*s, generator=g) * 0.2 for s in [(32, 32), (32,)] * 4]
        self.norm = torch.ones(32), torch.zeros(32)

    def forward(self, image, prompt, seeds):
        w = fp.AttentionWeights(*self.weights)
        tokens = fp.prompt_to_image_attention(prompt, image, w, heads=2)
        out = fp.image_to_prompt_attention(image, tokens, w, heads=2, norm=(*self.norm, 1e-5))
        words = fp.pixel_word_attention(image, prompt, w, heads=2)
        flat = (out + words).flatten(2).transpose(1, 2)
        kept, restore = fp.prune_tokens(flat, fp.token_scores(flat, prompts=prompt), count=12)
        merged, sizes, unmerge = fp.merge_tokens(kept, r=3)
        distance = fp.geodesic_distance(image, seeds, lam=0.5)
        return restore(unmerge(merged)), sizes, distance, fp.euclidean_distance_transform(seeds)


@pytest.mark.filterwarnings("ignore")  # of torch's exporter
@pytest.mark.parametrize("flavor", ["portable", "plugin", "inlined"])
def test_public_functions_in_a_module(tmp_path, flavor):
    image, prompt = torch.randn(2, 32, 5, 6), torch.randn(2, 3, 32)
    seeds = torch.zeros(2, 1, 5, 6, dtype=torch.uint8)
    seeds[:, :, 2, 3] = 1
    names = {"prompt": {1: "tokens"}, "image": {}, "seeds": {}}
    found = fp.export.onnx(
        Public(), tmp_path / "public.onnx", flavor=flavor, args=(image, prompt, seeds),
        input_names=["image", "prompt", "seeds"], dynamic_shapes={k: names[k] for k in ("image", "prompt", "seeds")},
    )  # fmt: skip
    wanted = {"PromptToImageAttention", "CosineScores", "PruneTokens", "MatchTokens", "MergeTokens", "GeodesicDistance"}
    assert wanted <= set(found.nodes) if flavor != "inlined" else not found.nodes
    assert len(found.errors) == 4
    inputs = (image, torch.randn(2, 5, 32), seeds)
    with torch.no_grad():
        want = Public()(*inputs)
    for got, x in zip(runs(tmp_path / "public.onnx", True)(*(i.numpy() for i in inputs)), want, strict=True):
        np.testing.assert_allclose(got, x.numpy(), rtol=0, atol=1e-4)


class Toivanen(torch.nn.Module):
    def forward(self, image, seeds):
        return fp.geodesic_distance(image, seeds, method="toivanen", lam=0.5)


@pytest.mark.filterwarnings("ignore")
def test_what_has_no_form_in_standard_onnx(tmp_path):
    path, args = tmp_path / "toivanen.onnx", (torch.rand(1, 1, 6, 7), torch.eye(6, 7, dtype=torch.uint8)[None, None])
    with pytest.raises(ValueError, match="method='toivanen' has no form in standard ONNX"):
        fp.export.onnx(Toivanen(), path, args=args)
    assert not path.exists()
    found = fp.export.onnx(Toivanen(), path, args=args, flavor="plugin")
    assert found.nodes == {"GeodesicDistance": 1}
    assert list(found.errors.values()) == [0.0]  # compared in our library
    assert fp.export.inspect(path).flavor == "plugin"


class TwoMetrics(torch.nn.Module):
    def forward(self, image, seeds):
        one, other = (fp.geodesic_distance(image, seeds, metric=m, lam=0.5) for m in ("fastgeodis", "geodistk"))
        return one + other


@pytest.mark.filterwarnings("ignore")
def test_two_bodies_of_one_operator(tmp_path):
    path, args = tmp_path / "two.onnx", (torch.rand(1, 1, 6, 7), torch.eye(6, 7, dtype=torch.uint8)[None, None])
    with pytest.raises(ValueError, match="one body for every operator, and two nodes of GeodesicDistance"):
        fp.export.onnx(TwoMetrics(), path, args=args)
    for flavor in ("inlined", "plugin"):
        assert max(fp.export.onnx(TwoMetrics(), path, args=args, flavor=flavor).errors.values()) < 1e-5


def test_a_model_is_left_as_it_was(exported):
    model, _, _ = exported("transformers", "decoder")
    assert not fp.report(model).replaced
    assert not any(hasattr(m, "_fastprompt_two_way") for m in model.modules())

    def forward(self, x):
        return x * torch.tensor(float(int(x.shape[0] > 2)))


@pytest.mark.filterwarnings("ignore")
def test_a_file_that_differs_is_not_written(tmp_path):
    module = Public()
    calls = iter(range(100))
    module.forward = lambda x: x + next(calls)  # never the same
    with pytest.raises(RuntimeError, match="nothing was written"):
        fp.export.onnx(module, tmp_path / "x.onnx", args=(torch.ones(3),), input_names=["x"])
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"flavor": "tensorrt"}, ValueError, "flavor must be one of portable, plugin, inlined, got 'tensorrt'"),
        (
            {"part": "prompt"},
            ValueError,
            "part must be one of decoder, encoder, memory_attention, memory_encoder, got 'prompt'",
        ),
        ({}, ValueError, "args must hold example inputs: Public is no SAM"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, error, text):
    with pytest.raises(error, match=text):
        fp.export.onnx(Public(), tmp_path / "x.onnx", **arguments)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
        fp.export.onnx("model", tmp_path / "x.onnx")
