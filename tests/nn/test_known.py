"""Hosts that have been changed, before or after ``accelerate``: the host's numbers, and never others in silence."""

import copy
import pickle
import warnings

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from changed_hosts import CHANGES, Lora  # noqa: E402

nn = torch.nn
pytestmark = pytest.mark.filterwarnings("ignore")


def make():
    """SAM of 8 x 8 tokens, whose every part has a drop-in, with weights of a trained size."""
    vision = transformers.SamVisionConfig(
        image_size=128, hidden_size=32, output_channels=64, num_pos_feats=32, num_hidden_layers=2, num_attention_heads=2, mlp_dim=64,
        window_size=5, global_attn_indexes=[1],
    )  # fmt: skip
    prompt = transformers.SamPromptEncoderConfig(image_size=128, hidden_size=64)
    decoder = transformers.SamMaskDecoderConfig(
        hidden_size=64, mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=64
    )
    model = transformers.SamModel(
        transformers.SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    ).eval()
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (p[0].numel() ** -0.5 if p.dim() > 1 else 0.3))
            p.mul_(3 if "q_proj" in name or "k_proj" in name else 1)  # attention that looks somewhere
    return model


torch.manual_seed(0)
IMAGE, PIXELS = torch.randn(1, 64, 8, 8), torch.randn(1, 3, 128, 128)
POINTS = torch.tensor([[[[50.0, 30.0]]]])


def masks(model):
    dtype = model.dtype
    with torch.no_grad():
        return model(image_embeddings=IMAGE.to(dtype), input_points=POINTS.to(dtype)).pred_masks.float()


def embeddings(model):
    with torch.no_grad():
        return model.get_image_embeddings(PIXELS.to(model.dtype)).float()


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


PLACES = {
    "attention of the decoder": (masks, lambda m: (m.mask_decoder.transformer.layers[1].self_attn, "v_proj")),
    "last attention": (masks, lambda m: (m.mask_decoder.transformer.final_attn_token_to_image, "v_proj")),
    "MLP of the decoder": (masks, lambda m: (m.mask_decoder.transformer.layers[1].mlp, "lin1")),
    "MLP of a mask": (masks, lambda m: (m.mask_decoder.output_hypernetworks_mlps[1], "proj_in")),
    "attention of the encoder": (embeddings, lambda m: (m.vision_encoder.layers[0].attn, "qkv")),
    "MLP of the encoder": (embeddings, lambda m: (m.vision_encoder.layers[1].mlp, "lin2")),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("change", CHANGES)
def test_changed_hosts(place, change, monkeypatch):
    call, find = PLACES[place]
    before = call(make())
    for first in (True, False):
        model = make()
        if first:
            call(fp.accelerate(model))
            call(model)  # the picture is known
        parent, name = find(model)
        CHANGES[change](parent, name, monkeypatch)
        if not first:
            fp.accelerate(model)
        got = [call(model), call(model)]
        with fp.disabled():
            want = call(model)
        getattr(parent, "removed", lambda: None)()
        monkeypatch.undo()
        assert float((want - before).abs().max()) > 3e-4 * float(before.abs().max())  # or the test shows nothing
        if change != "spectral norm, old" and change != "spectral norm":  # which go on at every call
            close(got[0], want)
        close(got[1], want)


ATTRIBUTES = {
    "activation of an MLP": (masks, lambda m: setattr(m.mask_decoder.transformer.layers[0].mlp, "act", nn.GELU())),
    "activation of the up-scaling": (masks, lambda m: setattr(m.mask_decoder, "activation", nn.ReLU())),
    "approximate GELU": (masks, lambda m: setattr(m.mask_decoder, "activation", nn.GELU("tanh"))),
    "scaling": (
        masks,
        lambda m: setattr(m.mask_decoder.transformer.layers[1].cross_attn_token_to_image, "scaling", 1.0),
    ),
    "eps": (masks, lambda m: setattr(m.mask_decoder.transformer.layer_norm_final_attn, "eps", 0.5)),
    "eps of one layer": (masks, lambda m: setattr(m.mask_decoder.transformer.layers[0].layer_norm1, "eps", 0.5)),
    "positions": (masks, lambda m: m.shared_image_embedding.positional_embedding.data.mul_(0.3)),
    "encoder's activation": (embeddings, lambda m: setattr(m.vision_encoder.layers[0].mlp, "act", nn.ReLU())),
    "encoder's eps": (embeddings, lambda m: setattr(m.vision_encoder.layers[0].layer_norm1, "eps", 0.5)),
    "encoder's scale": (embeddings, lambda m: setattr(m.vision_encoder.layers[1].attn, "scale", 1.0)),
    "table": (embeddings, lambda m: m.vision_encoder.layers[1].attn.rel_pos_h.data.mul_(3.0)),
    "heads": (
        masks,
        lambda m: setattr(m.mask_decoder.transformer.layers[1].cross_attn_image_to_token, "num_attention_heads", 1),
    ),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_changed_attributes(name):
    call, change = ATTRIBUTES[name]
    model = fp.accelerate(make())
    before = call(model)
    change(model)
    got = call(model)
    with fp.disabled():
        want = call(model)
    close(got, want)
    if name != "encoder's scale":  # which sdpa does not look at
        assert float((want - before).abs().max()) > 2e-4 * float(before.abs().max())


@pytest.mark.parametrize("kind", ["data", "half and back", "EMA"])
def test_half_precision_sees_new_weights(kind):
    model = fp.accelerate(make().to(torch.bfloat16))
    masks(model), masks(model)
    with torch.no_grad():
        for p in model.mask_decoder.parameters():
            if kind == "half and back":
                p.data = (1.5 * p.data).half().bfloat16()
            elif kind == "EMA":
                p.data.lerp_(torch.ones_like(p), 0.1)
            else:
                p.data.copy_(1.5 * p.data)
    got = masks(model)
    with fp.disabled():
        want = masks(model)
    assert float((got - want).abs().max()) < 0.05 * float(want.abs().max())


WRITERS = {
    "data": lambda x, y: x.data.copy_(y),
    "NumPy": lambda x, y: x.numpy().__setitem__(..., y.numpy()),
    "storage": lambda x, y: x.untyped_storage().copy_(y.untyped_storage()),
    "a row": lambda x, y: x.numpy()[:, :, 3].__setitem__(..., y.numpy()[:, :, 3]),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_picture_in_memory_that_others_write(writer):
    model, image, other = fp.accelerate(make()), IMAGE.clone(), torch.randn_like(IMAGE)
    ask = lambda: model(image_embeddings=image, input_points=POINTS).pred_masks  # noqa: E731
    with torch.no_grad():
        first = ask()
        assert torch.equal(ask(), first)
        WRITERS[writer](image, other)
        got = ask()
        with fp.disabled():
            close(got, ask())
        assert not torch.allclose(got, first, atol=1e-3)


def test_positions_that_the_caller_wrote_into():
    model = fp.accelerate(make())
    with torch.no_grad():
        first = model.shared_image_embedding(torch.rand(8, 8, 2, generator=torch.Generator().manual_seed(0)))
        want = first.clone()
        first.numpy()[...] = 0
        again = model.shared_image_embedding(torch.rand(8, 8, 2, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(again, want)


def test_the_reason_is_said_once_and_reported(monkeypatch):
    monkeypatch.setattr("fastprompt.nn.parts.host_path._said", set())
    model = fp.accelerate(make())
    model.mask_decoder.transformer.layers[0].self_attn.q_proj = Lora(nn.Linear(64, 64))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        masks(model), masks(model)
    texts = [str(w.message) for w in said if "SamMaskDecoder" in str(w.message)]
    assert len(texts) == 1
    assert f"self_attn.q_proj is a {Lora.__module__}.Lora" in texts[0]
    assert "Lora" in fp.report(model).skipped["mask_decoder"]


def test_a_host_that_cannot_be_replaced_stays_whole():
    model = make()
    model.mask_decoder.transformer.layers[0].self_attn.q_proj = Lora(nn.Linear(64, 64))
    model.vision_encoder.forward = model.vision_encoder.layers[1].forward = None
    fp.accelerate(model)
    report = fp.report(model)
    assert {"mask_decoder", "vision_encoder.layers.1"} <= set(report.skipped)
    assert "forward of its own" in report.skipped["vision_encoder.layers.1"]
    assert "vision_encoder.layers.0" in report.replaced


def test_looks_are_not_copied():
    model = fp.accelerate(make())
    want = masks(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.mask_decoder.__dict__["_fastprompt_look"].seen is None
        assert torch.equal(masks(other), want)
    assert not [k for k in fp.restore(model).mask_decoder.__dict__ if k.startswith("_fastprompt")]


def test_a_look_is_remembered_while_nothing_changes():
    model = fp.accelerate(make())
    masks(model)
    look = model.mask_decoder.__dict__["_fastprompt_look"]
    model.train(), model.eval()
    masks(model)
    assert model.mask_decoder.__dict__["_fastprompt_look"] is look
    model.mask_decoder.transformer.layers[0].note = "anything"
    masks(model)
    assert model.mask_decoder.__dict__["_fastprompt_look"] is not look
