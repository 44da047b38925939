"""SAM 2's image encoder, accelerated: the whole call of its three sources, and what takes the host's path."""

import copy
import pickle
import warnings

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
from hosts import randomised, same, stand_in_for_torchvision  # noqa: E402

# Few blocks of the released models: channels, heads, windows, global block.
SIZES = {"T": (96, 1, [8, 4, 14, 7]), "B+": (112, 2, [8, 4, 14, 7]), "L": (144, 2, [8, 4, 16, 8])}
BLOCKS = [1, 2, 2, 1]
GLOBAL = 4


def transformers_encoder(size="T", **options):
    transformers = pytest.importorskip("transformers")
    module = pytest.importorskip("transformers.models.sam2.modeling_sam2")
    channels, heads, windows = SIZES[size]
    stages = [channels * 2**n for n in range(4)]
    trunk = transformers.Sam2HieraDetConfig(
        hidden_size=channels, num_attention_heads=heads, blocks_per_stage=BLOCKS, embed_dim_per_stage=stages,
        num_attention_heads_per_stage=[heads * 2**n for n in range(4)], window_size_per_stage=windows,
        global_attention_blocks=[GLOBAL], **options,
    )  # fmt: skip
    config = transformers.Sam2VisionConfig(backbone_config=trunk, backbone_channel_list=stages[::-1])
    return module, randomised(module.Sam2VisionModel(config))


def package_encoder(size="T", **_):
    stand_in_for_torchvision()
    hieradet = pytest.importorskip("sam2.modeling.backbones.hieradet")
    channels, heads, windows = SIZES[size]
    made = hieradet.Hiera(
        channels, heads, stages=BLOCKS, window_spec=windows, global_att_blocks=(GLOBAL,),
        window_pos_embed_bkg_spatial_size=(7, 7),
    )  # fmt: skip
    return hieradet, randomised(made)


def timm_encoder(size="T", **_):
    stand_in_for_torchvision()
    hieradet = pytest.importorskip("timm.models.hieradet_sam2")
    channels, heads, windows = SIZES[size]
    made = hieradet.HieraDet(
        embed_dim=channels, num_heads=heads, stages=BLOCKS, window_spec=windows, global_att_blocks=(GLOBAL,),
        num_classes=0, global_pool="",
    )  # fmt: skip
    return hieradet, randomised(made)


SOURCES = {"transformers": transformers_encoder, "sam2": package_encoder, "timm": timm_encoder}


def tensors(result):
    if hasattr(result, "fpn_hidden_states"):
        return [*result.fpn_hidden_states, *result.fpn_position_encoding, result.last_hidden_state]
    return result if isinstance(result, list) else [result]


def agree(got, want):
    for g, w in zip(tensors(got), tensors(want), strict=True):
        same(g / w.std(), w / w.std())


@pytest.fixture(autouse=True)
def no_grad(monkeypatch):
    monkeypatch.setattr("fastprompt.nn.parts.host_path._said", set())
    with torch.no_grad():
        yield


def pictures(batch, height, width):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("source", SOURCES)
def test_whole_call(source, size):
    module, model = SOURCES[source](size)
    block = getattr(module, "Sam2MultiScaleBlock", None) or module.MultiScaleBlock
    for shape in ((1, 256, 256), (2, 192, 320), (1, 480, 224)):
        x = pictures(*shape)
        want = model(x)
        fast = fp.accelerate(copy.deepcopy(model))
        assert sum(isinstance(m, block) and type(m) is not block for m in fast.modules()) == sum(BLOCKS)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no block takes the host's path
            agree(fast(x), want)
            agree(fast(x), want)


def test_picture_and_click_of_the_whole_model():
    """What the encoder leaves lies as the model around it wants it."""
    transformers = pytest.importorskip("transformers")
    _, vision = transformers_encoder()
    model = randomised(transformers.Sam2Model(transformers.Sam2Config(vision_config=vision.config)))
    x, points = pictures(1, 1024, 1024), torch.tensor([[[[300.0, 400.0]]]])
    want = model.get_image_embeddings(x)
    masks = model(image_embeddings=want, input_points=points).pred_masks
    fast = fp.accelerate(model)
    got = fast.get_image_embeddings(x)
    agree(list(got), list(want))
    agree([fast(image_embeddings=got, input_points=points).pred_masks], [masks])


def test_odd_rows_take_the_hosts_path():
    """The host itself gives blocks of an odd grid another shape, or refuses them."""
    _, model = transformers_encoder()
    block = model.backbone.blocks[1]
    rows = torch.randn(1, 9, 16, 96)
    fast = fp.accelerate(copy.deepcopy(block))
    want = outcome(block, rows)
    with pytest.warns(UserWarning, match="odd number of rows"):
        got = outcome(fast, rows)
    assert got == want if isinstance(want, str) else torch.equal(got, want)


def outcome(module, x):
    try:
        return module(x)
    except RuntimeError as error:
        return str(error)


def test_asked_outputs():
    _, model = transformers_encoder(attn_implementation="eager")
    trunk, x = model.backbone, pictures(1, 128, 128)
    want = trunk(x, output_hidden_states=True, output_attentions=True)
    with pytest.warns(UserWarning, match="asked for"):
        got = fp.accelerate(trunk)(x, output_hidden_states=True, output_attentions=True)
    assert len(got.hidden_states) == len(want.hidden_states)
    for g, w in zip(got.hidden_states, want.hidden_states, strict=True):
        same(g / w.std(), w / w.std())
    assert (got.attentions is None) == (want.attentions is None)


def test_gradients():
    _, model = transformers_encoder()
    x = pictures(1, 128, 128)
    fast = fp.accelerate(copy.deepcopy(model))
    want = gradients(model, x)
    with pytest.warns(UserWarning, match="gradients are enabled"):
        got = gradients(fast, x)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)


def gradients(model, x):
    with torch.enable_grad():
        model(x).fpn_hidden_states[-1].square().mean().backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("source", ["transformers", "sam2"])
def test_positions_follow_their_parameters(source):
    _, model = SOURCES[source]()
    fast, x = fp.accelerate(copy.deepcopy(model)), pictures(1, 128, 160)
    trunks = [getattr(m, "backbone", m) for m in (model, fast)]
    agree(fast(x), model(x))
    for change in (lambda p: p.mul_(2), lambda p: p.data.add_(0.5), lambda p: p.view(-1)[7:8].fill_(9.0)):
        for trunk in trunks:
            change(trunk.pos_embed)
            change(trunk.pos_embed_window)
        agree(fast(x), model(x))
    agree(fast(pictures(1, 64, 96)), model(pictures(1, 64, 96)))
    with torch.inference_mode():
        agree(fast(x), model(x))
    again = pickle.loads(pickle.dumps(fast))
    agree(again(x), model(x))


def test_a_hook_inside_is_called():
    _, model = transformers_encoder()
    fast, x, seen = fp.accelerate(copy.deepcopy(model)), pictures(1, 64, 64), []
    fast(x)
    fast.backbone.blocks[2].mlp.register_forward_hook(lambda module, given, out: seen.append(1) or out * 2)
    model.backbone.blocks[2].mlp.register_forward_hook(lambda module, given, out: out * 2)
    with pytest.warns(UserWarning, match="hooks"):
        agree(fast(x), model(x))
    assert seen


def test_half_precision_takes_the_hosts_path():
    _, model = transformers_encoder()
    fast = fp.accelerate(copy.deepcopy(model))
    x = pictures(1, 64, 64).bfloat16()
    with pytest.warns(UserWarning, match="float32 only"):
        got = fast.bfloat16()(x)
    want = model.bfloat16()(x)
    for g, w in zip(tensors(got), tensors(want), strict=True):
        assert torch.equal(g, w)


def test_restore():
    module, model = transformers_encoder()
    x = pictures(1, 64, 64)
    want = model(x)
    fp.restore(fp.accelerate(model))
    assert type(model.backbone) is module.Sam2HieraDetModel
    assert torch.equal(model(x).last_hidden_state, want.last_hidden_state)
