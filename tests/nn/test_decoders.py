"""Every decoder that has a drop-in against its host, for every kind of prompt."""

import copy

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from decoders import BUILDERS, KINDS, host  # noqa: E402
from hosts import no_grad, same  # noqa: E402, F401


def check(decoder, arguments):
    want = fp.restore(decoder)(**arguments)
    fp.accelerate(decoder)
    for _ in range(2):  # an image that is new, and one that is known
        got = decoder(**arguments)
        assert len(got) == len(want)
        for x, y in zip(got, want, strict=True):
            same(x, y)


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BUILDERS)
def test_one_prompt(name, kind, multimask):
    check(host(name).decoder, host(name).arguments(kind, 1, multimask))


@pytest.mark.parametrize(("count", "kind"), [(16, "10 points"), (16, "mask"), (64, "point"), (64, "mask")])
@pytest.mark.parametrize("name", BUILDERS)
def test_many_prompts(name, count, kind):
    check(host(name).decoder, host(name).arguments(kind, count))


SAM2 = ["Sam2", "Sam3Tracker", "EdgeTam", "Sam2Video", "Sam3TrackerVideo", "EdgeTamVideo"]  # of transformers


@pytest.mark.parametrize("name", ["Sam", "SamHQ", *SAM2])
def test_two_images(name):
    for kind in ("point", "mask"):
        check(host(name).decoder, host(name).arguments(kind, 3, images=2))


def changed(name, **attributes):
    """A copy of a decoder with other attributes."""
    decoder = copy.deepcopy(fp.restore(host(name).decoder))
    for key, value in attributes.items():
        setattr(decoder, key, value)
    return decoder


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("name", [*SAM2, "sam2 features"])
def test_the_choice_among_masks(name, dynamic, training):
    decoder = changed(name, dynamic_multimask_via_stability=dynamic).train(training)
    for threshold in (0.0, 0.98):  # the first mask is stable, and is not
        decoder.dynamic_multimask_stability_thresh = threshold
        check(decoder, host(name).arguments("point", 3, multimask=False))


def test_sam2_of_one_image_for_each_prompt():
    """As the video predictor calls it, with an image for each object."""
    arguments = host("sam2 features").arguments("point", 3)
    arguments["high_res_features"] = [torch.cat([x, x + 1, x + 2]) for x in arguments["high_res_features"]]
    images = torch.cat([arguments["image_embeddings"] + k for k in range(3)])
    check(host("sam2 features").decoder, arguments | {"image_embeddings": images, "repeat_image": False})
    for tokens in (True, False):
        decoder = changed("sam2 features", use_multimask_token_for_obj_ptr=tokens)
        check(decoder, host("sam2 features").arguments("point", 2))


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("name", ["SamHQ", "segment_anything_hq HQ"])
def test_the_mask_of_hq_alone(name, multimask):
    check(host(name).decoder, host(name).arguments("point", 2, multimask) | {"hq_token_only": True})


@pytest.mark.parametrize(
    ("name", "key"), [("SamHQ", "intermediate_embeddings"), ("segment_anything_hq HQ", "interm_embeddings")]
)
def test_early_features_that_change(name, key):
    decoder, arguments = fp.accelerate(host(name).decoder), host(name).arguments()

    def kept():  # nothing is forgotten between two calls, as `check` does
        with fp.disabled():
            want = decoder(**arguments)
        for x, y in zip(decoder(**arguments), want, strict=True):
            same(x, y)

    kept()
    for x in (arguments[key][0], arguments["image_embeddings"]):
        x.mul_(0.5)
        kept()
    layers = [m for m in decoder.modules() if isinstance(m, (torch.nn.ConvTranspose2d, torch.nn.Conv2d))]
    for layer in layers:
        layer.weight.mul_(1.1)
        kept()
    for layer in layers:
        layer.weight.div_(1.1)


def test_samhq_without_early_features():
    check(host("SamHQ").decoder, host("SamHQ").arguments() | {"intermediate_embeddings": None})


@pytest.mark.parametrize("name", ["segment_anything", "segment_anything_hq HQ", "sam2"])
def test_another_activation_is_not_replaced(name):
    decoder = copy.deepcopy(fp.restore(host(name).decoder))
    decoder.output_upscaling[4] = torch.nn.SiLU()
    assert "must have GELU, got SiLU" in fp.report(fp.accelerate(decoder)).skipped[""]


@pytest.mark.parametrize("name", BUILDERS)
def test_the_path_of_the_host(name):
    decoder, arguments = host(name).decoder, host(name).arguments()
    want = fp.restore(decoder)(**arguments)
    fp.accelerate(decoder)
    with fp.disabled():
        assert all(torch.equal(x, y) for x, y in zip(decoder(**arguments), want, strict=True))
    with fp.backend("reference"):
        assert all(torch.equal(x, y) for x, y in zip(decoder(**arguments), want, strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", ["Sam", "Sam2"])
def test_layers_that_are_quantised_afterwards(name):
    """Their weights are packed, and the host alone knows how."""
    decoder = torch.ao.quantization.quantize_dynamic(fp.accelerate(changed(name)), {torch.nn.Linear})
    arguments = host(name).arguments("point", 2)
    got = decoder(**arguments)
    with fp.disabled():
        want = decoder(**arguments)
    for x, y in zip(got, want, strict=True):
        same(x, y)


def test_the_table_is_complete():
    """Every class of the table is tested here, where its package is; image encoders and models are elsewhere."""
    from fastprompt._drop_ins import full_name
    from fastprompt.models.hosts import DROP_INS

    hosts = [host(name) for name in BUILDERS if available(name)]
    tested = {full_name(type(fp.restore(h.decoder))) for h in hosts} | {full_name(type(positions(h))) for h in hosts}
    assert tested <= set(DROP_INS)
    installed = {name.split(".")[0] for name in tested}
    others = ("Attention", "VisionLayer", "SegGptLayer", "VitDetLayer", "image_encoder.Block", "CLIPSegVisionModel")
    others += ("Model", "sam.Sam", "SAM2Transforms", "SinePositionEmbedding", "PositionEmbeddingSine")
    others += ("MultiScaleBlock", "PatchEmbed", "PatchEmbeddings", "HieraDetModel", "hieradet.Hiera")
    decoders = {name for name in DROP_INS if not name.endswith(others)}
    assert {name for name in decoders if name.split(".")[0] in installed} <= tested


def available(name):
    try:
        host(name)
    except pytest.skip.Exception:
        return False
    return True


# ---------------------------------------------------------------- the positions of the image's tokens


def positions(h):
    return fp.restore(h.encoder).shared_embedding if hasattr(h.encoder, "shared_embedding") else h.encoder.pe_layer


def grids(name, size):
    """Arguments of a call: a grid of coordinates in transformers, its size elsewhere."""
    if name.islower() or "_" in name:  # the name of a package
        return (size,)
    axes = [(torch.arange(n) + 0.5) / n for n in size]
    return (torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1),)


@pytest.mark.parametrize("name", BUILDERS)
def test_positions(name):
    module = copy.deepcopy(positions(host(name)))
    matrix = next(iter(module.state_dict().values()))
    for size in ((9, 9), (9, 10), (10, 9)):
        want = fp.restore(module)(*grids(name, size))
        fp.accelerate(module)
        first = module(*grids(name, size))
        assert torch.equal(first, want)
        again = module(*grids(name, size))
        assert again.data_ptr() == first.data_ptr()
        assert torch.equal(copy.deepcopy(module)(*grids(name, size)), want)
        again.mul_(2)  # whoever writes into the result gets a new one
        assert torch.equal(module(*grids(name, size)), want)
    matrix.mul_(1.5)
    assert not torch.equal(module(*grids(name, size)), want)
    with torch.inference_mode():
        want = module(*grids(name, size)).clone()
    with torch.autocast("cpu", torch.bfloat16):
        lowered = module(*grids(name, size))
        with fp.disabled():
            assert torch.equal(lowered, module(*grids(name, size)))
    assert torch.equal(module(*grids(name, size)), want)
    assert [key for key in fp.restore(module).__dict__ if key.startswith("_fastprompt")] == []


def test_positions_with_a_gradient():
    module = fp.accelerate(copy.deepcopy(positions(host("Sam"))))
    with torch.enable_grad():
        module(*grids("Sam", (4, 4))).sum().backward()
    assert module.positional_embedding.grad is not None
