"""What transformers asks a model for besides its masks, and how it looks a model's class up."""

import copy
import inspect

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from decoders import host  # noqa: E402
from hosts import no_grad, points, randomise, same  # noqa: E402, F401

ASKED = [{"output_attentions": True}, {"output_hidden_states": True}]
SAM2 = ["Sam2", "Sam3Tracker", "EdgeTam", "Sam2Video", "Sam3TrackerVideo", "EdgeTamVideo"]


def sam(name):
    """SamModel or SamHQModel of 8 x 8 tokens."""
    vision = getattr(transformers, f"{name}VisionConfig")(
        image_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_dim=64, window_size=4,
        global_attn_indexes=[1],
    )  # fmt: skip
    prompt = getattr(transformers, f"{name}PromptEncoderConfig")(image_size=128)
    decoder = getattr(transformers, f"{name}MaskDecoderConfig")(**({"vit_dim": 32} if name == "SamHQ" else {}))
    parts = {"vision_config": vision, "prompt_encoder_config": prompt, "mask_decoder_config": decoder}
    config = getattr(transformers, f"{name}Config")(**parts)
    return getattr(transformers, f"{name}Model")(config)


def sam2():
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=16, image_size=[128, 128], blocks_per_stage=[1, 2, 7, 2], embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
    )  # fmt: skip
    sizes = {"backbone_channel_list": [128, 64, 32, 16], "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]]}
    vision = transformers.Sam2VisionConfig(backbone_config=backbone, **sizes)
    prompt = transformers.Sam2PromptEncoderConfig(image_size=128)
    return transformers.Sam2Model(transformers.Sam2Config(vision_config=vision, prompt_encoder_config=prompt))


MODELS = {"Sam": lambda: sam("Sam"), "SamHQ": lambda: sam("SamHQ"), "Sam2": sam2}


def tensors(x):
    if isinstance(x, torch.Tensor):
        return [x]
    return [t for y in x for t in tensors(y)] if isinstance(x, (tuple, list)) else []


@pytest.mark.parametrize("asked", ASKED, ids=str)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:fastprompt")
def test_outputs_of_a_model(name, asked):
    model = MODELS[name]().eval()
    randomise(model)
    arguments = {"pixel_values": torch.rand(1, 3, 128, 128), "input_points": points(1, 1, 1) / 8} | asked
    want = model(**arguments)
    got = fp.accelerate(model)(**arguments)
    assert "mask_decoder" in fp.report(model).replaced
    assert got.keys() == want.keys()
    for key in want:
        assert type(got[key]) is type(want[key]), key
        for x, y in zip(tensors(got[key]), tensors(want[key]), strict=True):
            same(x, y, 1e-4)


@pytest.mark.parametrize("asked", ASKED, ids=str)
@pytest.mark.parametrize("name", SAM2)
def test_what_is_asked_of_the_model_is_not_asked_of_the_decoder(name, asked, monkeypatch):
    decoder, arguments = copy.deepcopy(fp.restore(host(name).decoder)), host(name).arguments()
    want = decoder(**arguments)
    cls = type(decoder)
    fp.accelerate(decoder)
    refuse = lambda *_, **__: pytest.fail("the host's path")  # noqa: E731
    refuse.__module__ = cls.__module__  # else the host's path would be taken
    monkeypatch.setattr(cls, "forward", refuse)
    for x, y in zip(decoder(**arguments, **asked), want, strict=True):
        same(x, y)


def clipseg():
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.CLIPSegVisionModel(transformers.CLIPSegVisionConfig(**sizes, image_size=32, patch_size=16))


def pruned(name):
    model = sam(name)
    return fp.accelerate(model, prune=fp.Prune(keep=0.5, at=1)).vision_encoder


ENCODERS = {
    "CLIPSeg": lambda: fp.accelerate(clipseg()),
    "Sam": lambda: pruned("Sam"),
    "SamHQ": lambda: pruned("SamHQ"),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_class_passes_for_its_host(name):
    """transformers knows its own classes by their module, and what they take by the annotations of ``forward``."""
    model = ENCODERS[name]()
    ours, theirs = type(model), type(model).__bases__[-1]
    assert ours.__module__.startswith("fastprompt.")
    assert inspect.signature(ours.forward) == inspect.signature(theirs.forward)
    for question in ("is_custom_code", "_can_set_attn_implementation", "_can_set_experts_implementation"):
        assert getattr(ours, question)() == getattr(theirs, question)()


def test_an_old_checkpoint(tmp_path):
    """Whose parameters had another name: transformers renames them for classes of its own."""
    model = clipseg().eval()
    model.save_pretrained(tmp_path)
    from safetensors.torch import load_file, save_file

    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    old = {name if name.startswith("vision_model.") else f"vision_model.{name}": x for name, x in weights.items()}
    save_file(old, file, metadata={"format": "pt"})
    found, info = type(fp.accelerate(clipseg())).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    pixels = torch.rand(1, 3, 32, 32)
    same(found.eval()(pixels).pooler_output, model(pixels).pooler_output)
