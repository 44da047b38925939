"""Every class of the installed transformers that belongs to a promptable segmentation model, or has decomposed relative
position: it has a drop-in, or a reason why not is written here. A new class of a new release turns this red."""

import ast
import re
from pathlib import Path

import pytest

from fastprompt.models.hosts import DROP_INS, PRUNABLE

transformers = pytest.importorskip("transformers")

PROMPTABLE = r"sam(\d|_hq)?(_|$)|edgetam|clipseg|seggpt"  # names of packages; others are known by their classes
RELATIVE = ("rel_pos_h", "relative_position_h")

# Why a class has no drop-in: reason -> prefixes of models -> the rest of the names.
REASONS = {
    "it is the model around modules that are replaced": {
        "CLIPSeg SegGpt": "Decoder Encoder ForImageSegmentation",
        "SegGpt": "DecoderHead",
        "": "DeepseekOcr2PreTrainedModel GotOcr2PreTrainedModel PPFormulaNetPreTrainedModel SLANeXtPreTrainedModel UnlimitedOcrPreTrainedModel VitDetPreTrainedModel",
        "CLIPSeg Sam3 Sam3LiteText Sam3Video SegGpt": "Model",
        "CLIPSeg EdgeTam EdgeTamVideo Sam Sam2 Sam2Video Sam3 Sam3LiteText Sam3Tracker Sam3TrackerVideo Sam3Video SamHQ SegGpt": "PreTrainedModel",
        "CLIPSeg Sam3LiteText": "TextModel",
        "Sam3": "ViTModel",
        "Sam SamHQ": "VisionEncoder",
        "EdgeTam Sam Sam2 Sam3 SamHQ": "VisionModel",
    },
    "its mask decoder or its layer is replaced as a whole": {
        "EdgeTam EdgeTamVideo Sam Sam2 Sam2Video Sam3Tracker Sam3TrackerVideo SamHQ": "Attention FeedForward TwoWayAttentionBlock TwoWayTransformer",
        "SegGpt": "DropPath Mlp",
        "Sam2": "MultiScaleAttention",
        "EdgeTam EdgeTamVideo Sam Sam2 Sam2Video Sam3Tracker Sam3TrackerVideo SamHQ SegGpt": "LayerNorm",
        "Sam SamHQ": "MLPBlock",
    },
    "it holds what is not computed, or computes next to nothing": {
        "SegGpt": "Embeddings Loss",
        "EdgeTamVideo Sam2Video Sam3TrackerVideo Sam3Video": "InferenceCache InferenceSession",
        "Sam3LiteText": "LayerScaledResidual TextEncoderOutput TextPositionEmbedding",
        "EdgeTam EdgeTamVideo Sam Sam2 Sam2Video Sam3Tracker Sam3TrackerVideo SamHQ": "MaskEmbedding PromptEncoder",
        "Sam SamHQ SegGpt": "PatchEmbeddings",
        "CLIPSeg Sam3LiteText": "TextEmbeddings",
        "Sam3": "ViTEmbeddings ViTLayerScale ViTPatchEmbeddings",
        "CLIPSeg": "VisionEmbeddings",
        "EdgeTam EdgeTamVideo Sam2 Sam2Video Sam3 Sam3LiteText Sam3Tracker Sam3TrackerVideo": "VisionEncoderOutput",
    },
    "no kernel yet: rotary positions in an image encoder": {
        "Sam3": "ViTLayer ViTRoPEAttention ViTRotaryEmbedding",
    },
    "its memory attention is replaced as a whole": {
        "EdgeTamVideo Sam2Video Sam3TrackerVideo": "MemoryAttentionLayer VisionRotaryEmbedding",
        "EdgeTamVideo": "MemoryAttentionMLP RoPECrossAttention RoPESelfAttention",
        "Sam2Video Sam3TrackerVideo": "RoPEAttention",
    },
    "no kernel yet: the memory encoder of a video model": {
        "EdgeTamVideo Sam2Video Sam3TrackerVideo": "MaskDownSampler MaskDownSamplerLayer MemoryEncoder MemoryFuser MemoryFuserCXBlock",
        "EdgeTamVideo": "PerceiverAttention PerceiverEncoderLayer PerceiverMLP PerceiverResampler",
    },
    "no kernel yet: a neck of convolutions": {
        "Sam3": "FPNLayer",
        "EdgeTam Sam Sam2 Sam3 SamHQ": "VisionNeck",
    },
    "it keeps its results itself, or is asked for one size": {
        "EdgeTamVideo Sam2Video Sam3TrackerVideo": "PositionEmbeddingSine",
        "Sam3 Sam3LiteText": "SinePositionEmbedding",
    },
    "no kernel yet: a DETR that is asked in words": {
        "Sam3 Sam3LiteText": "Attention DecoderMLP DetrDecoder DetrDecoderLayer DetrEncoder DetrEncoderLayer DotProductScoring GeometryEncoder GeometryEncoderLayer MLP MaskDecoder MaskEmbedder PixelDecoder",
    },
    "no kernel yet: a text encoder or a plain transformer": {
        "CLIPSeg": "Attention DecoderLayer EncoderLayer MLP",
        "Sam3LiteText": "ConvMLP ConvolutionalFeedForward MobileOneBlock RepMixer RepMixerBlock TextAttention TextEncoderLayer TextMLP",
    },
}


def belongs(package, source):
    return re.match(PROMPTABLE, package) or ("PromptEncoder(" in source and "MaskDecoder(" in source)


def classes(file):
    """Names of the classes of a module that somebody must have looked at."""
    source = file.read_text()
    ours, lines = belongs(file.parent.name, source), source.splitlines()
    if not ours and not any(name in source for name in RELATIVE):
        return
    for found in ast.parse(source).body:
        if isinstance(found, ast.ClassDef) and not any(ast.unparse(b).endswith("Output") for b in found.bases):
            text = "\n".join(lines[found.lineno - 1 : found.end_lineno])
            if ours or any(name in text for name in RELATIVE):
                yield f"transformers.models.{file.parent.name}.{file.stem}.{found.name}"


FOLDER = Path(transformers.__file__).parent / "models"
FOUND = [name for file in sorted(FOLDER.glob("*/modeling_*.py")) for name in classes(file)]
KNOWN = {
    f"{prefix}{rest}"
    for rows in REASONS.values()
    for prefixes, names in rows.items()
    for prefix in prefixes.split() or [""]
    for rest in names.split()
}


def test_something_is_found():
    assert {"sam", "sam2_video", "vitdet", "got_ocr2"} <= {name.split(".")[2] for name in FOUND}


@pytest.mark.parametrize("package", sorted({name.split(".")[2] for name in FOUND}))
def test_a_drop_in_or_a_reason(package):
    names = [name for name in FOUND if name.split(".")[2] == package]
    unknown = [n for n in names if n not in DROP_INS and n not in PRUNABLE and n.rsplit(".", 1)[1] not in KNOWN]
    assert not unknown, "add drop-ins (CONTRIBUTING has the recipe), or write here why not"


def test_reasons_are_of_classes_without_a_drop_in():
    accelerated = {name.rsplit(".", 1)[1] for name in DROP_INS if name.startswith("transformers.")}
    assert not accelerated & KNOWN
