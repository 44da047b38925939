"""The whole call of a model around its decoder: what it copies for every click is a view, and nothing else changes."""

import copy
import re

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from hosts import no_grad, points, randomise, same  # noqa: E402, F401

from fastprompt.nn.parts.around import Wide  # noqa: E402

SIZE = 10  # image tokens along an axis
G = torch.Generator().manual_seed(0)
BOXES = torch.tensor([[[10.0, 20.0, 90.0, 100.0], [30.0, 30.0, 60.0, 80.0]]])
PROMPTS = {
    "point": {"input_points": points(1, 1, 1) / 8},
    "many points": {"input_points": points(1, 3, 4) / 8, "input_labels": torch.tensor([[[1, 0, -1, -10]] * 3])},
    "boxes": {"input_boxes": BOXES},
    "both": {"input_points": points(1, 2, 1) / 8, "input_boxes": BOXES},
    "nothing": {},
    "mask": {"input_points": points(1, 1, 1) / 8, "input_masks": torch.randn(1, 1, 40, 40, generator=G)},
    "one mask": {"input_points": points(1, 1, 1) / 8, "multimask_output": False},
    "two images": {"input_points": points(2, 2, 1) / 8},
}


def sam(name):
    vision = {"image_size": 16 * SIZE, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"mlp_dim": 64, "global_attn_indexes": [0]}
    decoder = {"vit_dim": 32} if name == "SamHQ" else {}
    config = getattr(transformers, f"{name}Config")(
        vision_config=getattr(transformers, f"{name}VisionConfig")(**vision),
        prompt_encoder_config=getattr(transformers, f"{name}PromptEncoderConfig")(image_size=16 * SIZE),
        mask_decoder_config=getattr(transformers, f"{name}MaskDecoderConfig")(**decoder),
    )
    return getattr(transformers, f"{name}Model")(config)


def hiera():
    trunk = {"hidden_size": 16, "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [16, 32, 64, 128]}
    trunk |= {"num_attention_heads_per_stage": [1, 2, 4, 8], "global_attention_blocks": [3], "image_size": [160, 160]}
    return transformers.Sam2VisionConfig(
        backbone_config=transformers.Sam2HieraDetConfig(**trunk),
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=[[4 * SIZE] * 2, [2 * SIZE] * 2, [SIZE] * 2],
    )


def sam2(name):
    """With the encoder of SAM 2, whatever the model: it is not what is looked at here."""
    prompt = getattr(transformers, f"{name}PromptEncoderConfig")(image_size=16 * SIZE, patch_size=16)
    config = getattr(transformers, f"{name}Config")(vision_config=hiera(), prompt_encoder_config=prompt)
    return getattr(transformers, f"{name}Model")(config)


BUILDERS = {name: sam for name in ("Sam", "SamHQ")} | {name: sam2 for name in ("Sam2", "Sam3Tracker", "EdgeTam")}


@pytest.fixture(scope="module", params=BUILDERS)
def host(request):
    torch.manual_seed(0)
    model = BUILDERS[request.param](request.param).eval()
    with torch.no_grad():
        randomise(model)
    return fp.accelerate(model)


def embeddings(model, images=1):
    """As ``get_image_embeddings`` gives them."""
    draw = lambda *shape: torch.randn(images, *shape, generator=torch.Generator().manual_seed(3)) * 0.3  # noqa: E731
    found = draw(256, SIZE, SIZE)
    if type(model).__name__ == "SamHQModel":
        return {"image_embeddings": found, "intermediate_embeddings": [draw(SIZE, SIZE, 32)]}
    if type(model).__name__ == "SamModel":
        return {"image_embeddings": found}
    return {"image_embeddings": [draw(32, 4 * SIZE, 4 * SIZE), draw(64, 2 * SIZE, 2 * SIZE), found]}


def positions_given(model, call):
    """The positions that the decoder is given in a call, seen by no hook."""
    cls, given = type(model.mask_decoder), []
    forward = cls.forward

    def noted(self, *args, **kwargs):
        given.append(kwargs["image_positional_embeddings"])
        return forward(self, *args, **kwargs)

    own = cls.__dict__.get("forward")
    cls.forward = noted
    try:
        call()
    finally:
        if own is None:
            del cls.forward
        else:
            cls.forward = own
    return given[0]


def equal_outputs(got, want):
    assert type(got) is type(want)
    assert list(got) == list(want)
    for name, x in want.items():
        pairs = zip(got[name], x, strict=True) if isinstance(x, (list, tuple)) else [(got[name], x)]
        for y, z in pairs:
            same(y, z)


@pytest.mark.parametrize("kind", PROMPTS)
def test_a_click(host, kind):
    if kind == "nothing" and type(host).__name__ == "SamHQModel":
        pytest.skip("the host's own decoder wants a prompt")
    call = embeddings(host, 2 if kind == "two images" else 1) | PROMPTS[kind]
    with fp.disabled():
        want = host(**call)
    for _ in range(2):
        equal_outputs(host(**call), want)


def test_from_pixels(host):
    pixels = torch.randn(1, 3, 16 * SIZE, 16 * SIZE, generator=torch.Generator().manual_seed(1))
    with fp.disabled():
        want = host(pixel_values=pixels, output_hidden_states=True, **PROMPTS["point"])
    equal_outputs(host(pixel_values=pixels, output_hidden_states=True, **PROMPTS["point"]), want)


def test_positions_are_handed_on(host):
    """One memory for all clicks and images, known at once; a plain tensor, which knows nothing of us."""
    first, again = (positions_given(host, lambda: host(**embeddings(host), **PROMPTS["point"])) for _ in range(2))
    two = positions_given(host, lambda: host(**embeddings(host, 2), **PROMPTS["two images"]))
    assert first.data_ptr() == again.data_ptr() == two.data_ptr()
    assert type(two) is torch.Tensor
    assert (two.shape[0], two.stride(0)) == (2, 0)


def test_the_method_gives_what_the_host_gives(host):
    found = host.get_image_wide_positional_embeddings()
    with fp.disabled():
        want = host.get_image_wide_positional_embeddings()
    assert type(found) is torch.Tensor
    assert torch.equal(found, want)
    assert found.repeat(1, 1, 1, 1).data_ptr() != found.data_ptr()


def test_a_hook_may_write_into_its_arguments(host):
    call = embeddings(host, 2) | PROMPTS["two images"]
    before = host(**call).pred_masks

    def write(module, args, kwargs):
        kwargs["image_positional_embeddings"].add_(0.5)

    handle = host.mask_decoder.register_forward_pre_hook(write, with_kwargs=True)
    try:
        with fp.disabled():
            want = host(**call).pred_masks
        got = host(**call).pred_masks
    finally:
        handle.remove()
    same(got, want)
    assert not torch.equal(got, before)
    assert torch.equal(host(**call).pred_masks, before)


def test_errors_are_the_hosts(host):
    given = embeddings(host) | {"input_points": points(1, 3, 1), "input_boxes": BOXES}
    for call in ({}, given):
        with fp.disabled(), pytest.raises(ValueError, match=r"provide") as want:
            host(**call)
        with pytest.raises(ValueError, match=re.escape(str(want.value))):
            host(**call)


HOST_PATH = pytest.mark.filterwarnings("ignore:fastprompt")  # which the decoder says that it takes


@HOST_PATH
def test_attentions_and_tuples(host):
    call = embeddings(host) | PROMPTS["point"]
    with fp.disabled():
        want, parts = host(**call, output_attentions=True), host(**call, return_dict=False)
    got = host(**call, output_attentions=True)
    assert len(got.mask_decoder_attentions) == len(want.mask_decoder_attentions) > 0
    equal_outputs(got, want)
    assert len(host(**call, return_dict=False)) == len(parts)


@HOST_PATH
def test_gradients(host):
    call = embeddings(host) | PROMPTS["point"]
    table = host.prompt_encoder.not_a_point_embed.weight
    with torch.enable_grad():
        host(**call).pred_masks.sum().backward()
        got, table.grad = table.grad, None
        with fp.disabled():
            host(**call).pred_masks.sum().backward()
    same(got, table.grad, 1e-4)
    host.zero_grad()


def test_half_precision(host):
    model = copy.deepcopy(host).bfloat16()
    low = lambda x: [low(y) for y in x] if isinstance(x, list) else x.bfloat16()  # noqa: E731
    call = {name: low(x) for name, x in embeddings(host).items()} | {"input_boxes": BOXES.bfloat16()}
    with fp.disabled():
        want = model(**call)
    got = model(**call)
    assert got.pred_masks.dtype == want.pred_masks.dtype == torch.bfloat16
    assert float((got.pred_masks - want.pred_masks).abs().max()) < 0.1 * float(want.pred_masks.abs().max())


def test_a_changed_host(host, monkeypatch):
    """Methods of the model or of its class that somebody has replaced are called."""
    call = embeddings(host) | PROMPTS["point"]
    method = "get_image_wide_positional_embeddings"
    cls = type(host).__bases__[-1]
    before, own = host(**call).pred_masks, getattr(cls, method)
    for patch in (
        lambda: monkeypatch.setattr(cls, method, lambda self: 2 * own(self)),
        lambda: setattr(host, method, lambda: 2 * own(host)),
    ):
        patch()
        with fp.disabled():
            want = host(**call).pred_masks
        same(host(**call).pred_masks, want)
        assert not torch.allclose(want, before, atol=1e-4)
        monkeypatch.undo()
    delattr(host, method)
    same(host(**call).pred_masks, before)


def test_report_names_the_model_and_what_remains(host):
    found = fp.report(host)
    assert found.replaced[""].endswith(f".{type(host).__name__}")
    if "vision_encoder.backbone" in found.remains:
        assert "vision_encoder" not in found.replaced
    assert not found.skipped


def test_wide_is_a_tensor_to_all_others():
    x = torch.randn(1, 2, 3, 4).as_subclass(Wide)
    assert type(x + 1) is type(x[0]) is type(torch.cat([x, x])) is torch.Tensor
    assert torch.equal(x.repeat(2, 1, 1, 1), torch.cat([x, x]))
    assert x.repeat(2, 1, 2, 1).shape == (2, 2, 6, 4)
    assert x.repeat(0, 1, 1, 1).shape == (0, 2, 3, 4)
    assert x.repeat(3, 1, 1, 1, 1).shape == (3, 1, 2, 3, 4)


# ---------------------------------------------------------------- positions of a pyramid's levels


@pytest.fixture(params=["Sam2", "EdgeTam"])
def sines(request):
    module = getattr(transformers.models, request.param.lower())
    module = getattr(module, f"modeling_{request.param.lower()}")
    return fp.accelerate(getattr(module, f"{request.param}SinePositionEmbedding")(16, normalize=True))


def level(sines, size, dtype=torch.float32, images=1, **options):
    return sines(torch.Size((images, 32, size, size + 1)), torch.device("cpu"), dtype, **options)


LEVELS = [(24, torch.float32, 1), (12, torch.float32, 1), (6, torch.bfloat16, 1), (24, torch.float32, 2)]


def test_levels_are_kept_bit_for_bit(sines):
    with fp.disabled():
        want = [level(sines, *asked).clone() for asked in LEVELS]
    for _ in range(2):
        with torch.inference_mode():
            got = [level(sines, *asked) for asked in LEVELS]
        assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))
        assert [x.dtype for x in got] == [x.dtype for x in want]
        assert [x.stride() for x in got] == [x.stride() for x in want]
    assert [level(sines, *asked).data_ptr() for asked in LEVELS] == [x.data_ptr() for x in got]


def test_no_more_than_four_levels_are_kept(sines):
    for size in range(5, 15):
        level(sines, size)
    assert len(sines.__dict__["_fastprompt_positions"].kept) == 4


@pytest.mark.parametrize("write", [lambda x: x.add_(1), lambda x: x.data.add_(1), lambda x: x.numpy().fill(3)])
def test_what_a_caller_writes_is_noticed(sines, write):
    with fp.disabled():
        want = level(sines, 11).clone()
        level(sines, 3)  # the host keeps the last one, too
    write(level(sines, 11))
    assert torch.equal(level(sines, 11), want)


def test_other_numbers_and_masks_are_other_positions(sines):
    first = level(sines, 8)
    sines.temperature = 100
    with fp.disabled():
        want = level(sines, 8).clone()
    assert torch.equal(level(sines, 8), want)
    assert not torch.equal(first, want)
    mask = torch.ones(1, 8, 9)
    mask[:, :, 5:] = 0
    with fp.disabled():
        want = level(sines, 8, mask=mask).clone()
    assert torch.equal(level(sines, 8, mask=mask), want)


def test_copies_are_empty(sines):
    kept = level(sines, 8)
    assert "kept" in vars(sines.__dict__["_fastprompt_positions"])
    other = copy.deepcopy(sines)
    assert not other.__dict__["_fastprompt_positions"].kept
    assert torch.equal(level(other, 8), kept)
    fp.restore(sines)
    assert not [name for name in vars(sines) if name.startswith("_fastprompt")]
