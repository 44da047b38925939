"""Models with random weights, and prompts, for the tests of ``accelerate``."""

import contextlib
import importlib
import sys
import types
from pathlib import Path

import pytest
import torch
import transformers

import fastprompt as fp


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


def randomised(encoder):
    """An image encoder, or a part of one: no parameter is zero, or at its start."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in encoder.named_parameters():
            std = 0.4 if "rel_pos" in name else p[0].numel() ** -0.5 if p.dim() > 1 else 0.3
            p.copy_(torch.randn(p.shape, generator=g) * std)
    return encoder.eval()


# Modules of transformers that carry SAM's image encoder, and what its classes are called there.
VISION = {
    "sam": "SamVision",
    "sam_hq": "SamHQVision",
    "got_ocr2": "GotOcr2Vision",
    "pp_formulanet": "PPFormulaNetVision",
    "slanext": "SLANeXtVision",
    "deepseek_ocr2": "DeepseekOcr2SamVision",
    "unlimited_ocr": "UnlimitedOcrSamVision",
}


def vision(package, kind, window=0, **options):
    """``SamVision<kind>`` ("Layer", "Attention", …) of such a module, for 10 x 10 tokens."""
    module = pytest.importorskip(f"transformers.models.{package}.modeling_{package}")
    config = getattr(module, f"{VISION[package]}Config")(
        **{"image_size": 160, "hidden_size": 64, "num_attention_heads": 2} | options
    )
    return randomised(getattr(module, f"{VISION[package]}{kind}")(config, window))


def vitdet(kind, window=0, **options):
    """``VitDetAttention`` for 10 x 10 tokens, or ``VitDetLayer``."""
    from transformers.models.vitdet import modeling_vitdet

    given = {"image_size": 160, "hidden_size": 64, "num_attention_heads": 2, "use_relative_position_embeddings": True}
    config = transformers.VitDetConfig(**given | options)
    if kind == "Attention":
        return randomised(modeling_vitdet.VitDetAttention(config, (window or 10, window or 10)))
    return randomised(modeling_vitdet.VitDetLayer(config, window_size=window, use_residual_block=kind != "Layer"))


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


def image_encoder():
    """That module of segment-anything, whose package wants torchvision for other things."""
    stand_in_for_torchvision()
    return pytest.importorskip("segment_anything.modeling.image_encoder")


@contextlib.contextmanager
def under_another_name(package):
    """``image_encoder`` of a package that carries segment-anything's code: its files stand in for the package, imported
    under that name; they and the drop-ins made for them are forgotten again."""
    folder = str(Path(image_encoder().__file__).parent)
    before = set(sys.modules)
    try:
        for name, path in ((package, []), (f"{package}.modeling", [folder])):
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = path
        if package.endswith("_hq"):  # which has one file more
            more = sys.modules[f"{package}.modeling.mask_decoder_hq"] = types.ModuleType("mask_decoder_hq")
            more.MaskDecoderHQ = type("MaskDecoderHQ", (torch.nn.Module,), {})
            sys.modules[f"{package}.modeling"].mask_decoder_hq = more
        sys.modules.pop(f"fastprompt.nn.hosts.{package}", None)
        yield importlib.import_module(f"{package}.modeling.image_encoder")
    finally:
        for name in set(sys.modules) - before | {f"fastprompt.nn.hosts.{package}"}:
            if package in name.split("."):
                sys.modules.pop(name, None)


def stand_in_for_torchvision():
    """The package wants torchvision for two functions; where it is missing, these stand in."""
    if "torchvision" in sys.modules:
        return
    with contextlib.suppress(ImportError):
        import torchmetrics  # noqa: F401, which looks for torchvision once, and would take the stand-in for it
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


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model():
    return sam()  # with parameters that require a gradient, as from_pretrained has them


@pytest.fixture
def fast(model):
    yield fp.accelerate(model)
    fp.restore(model)
