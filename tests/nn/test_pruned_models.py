"""Models whose image encoders drop windows: what the host covers, whole models, what is refused."""

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from hosts import under_another_name  # noqa: E402
from pruned_hosts import (  # noqa: E402, F401
    DEPTH,
    ENCODERS,
    close,
    embedding,
    one_thread,
    pictures,
    vit,
)


@pytest.mark.filterwarnings("ignore:fastprompt")
@torch.no_grad()
def test_calls_of_the_host(monkeypatch):
    """With all tokens, and said once: where layers are asked for, in double precision, with dropout in training."""
    monkeypatch.setattr("fastprompt.nn.parts.host_path._said", set())
    make = ENCODERS["transformers eager"]
    encoder, x = make(), pictures()
    want = encoder(x, output_hidden_states=True, output_attentions=True)
    fp.accelerate(encoder, prune=fp.Prune(keep=0.2, at=0))
    with pytest.warns(UserWarning, match="nothing is pruned: layers are asked for"):
        got = encoder(x, output_hidden_states=True)
    assert len(got.hidden_states) == len(want.hidden_states) == DEPTH + 1
    close(got.hidden_states[-1], want.hidden_states[-1])
    assert len(encoder(x, output_attentions=True).attentions) == DEPTH
    assert embedding(encoder(x)).shape == encoder(x, return_dict=False)[0].shape
    assert not torch.equal(embedding(encoder(x)), embedding(got))
    with pytest.warns(UserWarning, match="there is no kernel for this dtype"):
        encoder.double()(x.double())
    encoder = fp.accelerate(make(attention_dropout=0.5), prune=fp.Prune(keep=0.2, at=0)).train()
    with pytest.warns(UserWarning, match="attention dropout in training"):
        encoder(x)
    with pytest.raises(ValueError, match="pixel_values"):
        encoder()


@torch.no_grad()
def test_whole_model_and_compile():
    """SamModel with its prompts, and the encoder compiled: the windows are chosen outside the graph."""
    import transformers

    vision = transformers.SamVisionConfig(
        image_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_dim=32, window_size=3,
        global_attn_indexes=[1],
    )  # fmt: skip
    prompts = transformers.SamPromptEncoderConfig(image_size=128)
    torch.manual_seed(0)
    model = transformers.SamModel(transformers.SamConfig(vision_config=vision, prompt_encoder_config=prompts)).eval()
    given = {"pixel_values": pictures(1, 128), "input_points": torch.tensor([[[[20.0, 100.0]]]])}
    want = model(**given).pred_masks
    fp.accelerate(model, prune=fp.Prune(keep=1.0, at=0, score="prompt"))
    assert list(fp.report(model).pruned) == ["vision_encoder"]
    assert "mask_decoder" in fp.report(model).replaced
    with fp.prompt(points=given["input_points"].flatten(1, 2)):
        close(model(**given).pred_masks, want, 1e-4)
    encoder = fp.accelerate(model, prune=fp.Prune(keep=0.5, at=0)).vision_encoder
    want = encoder(given["pixel_values"]).last_hidden_state
    compiled = torch.compile(encoder, backend="aot_eager")
    close(compiled(given["pixel_values"]).last_hidden_state, want)


@pytest.mark.parametrize(
    ("options", "prune", "message"),
    [
        ({}, {"at": DEPTH}, "at must be below the number of blocks 4, got 4"),
        ({}, {"score": "cls"}, "needs a class token"),
        ({"use_rel_pos": False}, {}, "it has no relative position"),
        ({"window_size": 0}, {}, r"it must have windows of one size, got \[\]"),
    ],
)
def test_unsupported(options, prune, message):
    encoder = ENCODERS["transformers sdpa"](**options)
    kinds = [type(m) for m in encoder.modules()]
    with pytest.raises(ValueError, match=message):
        fp.accelerate(encoder, prune=fp.Prune(**{"keep": 0.5, "at": 0} | prune))
    assert [type(m) for m in encoder.modules()] == kinds  # nothing is replaced


def test_layers_of_another_kind():
    encoder = ENCODERS["segment_anything"]()
    encoder.blocks[1].__class__ = type("Adapted", (type(encoder.blocks[1]),), {})
    with pytest.raises(ValueError, match="its layers must be Block"):
        fp.accelerate(encoder, prune=fp.Prune(keep=0.5, at=0))


@torch.no_grad()
def test_the_same_code_under_another_name():
    with under_another_name("mobile_sam") as made:
        encoder, x = vit(made), pictures()
        want = encoder(x)
        fp.accelerate(encoder, prune=fp.Prune(keep=1.0, at=1))
        assert fp.report(encoder).pruned[""].windows == (25, 25)
        close(encoder(x), want)
