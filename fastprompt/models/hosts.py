"""The table of hosts: which of their classes have a drop-in, and which encoders can be pruned."""

import importlib
from typing import Any, NamedTuple

from fastprompt._drop_ins import HOSTS as FOLDER
from fastprompt._drop_ins import full_name


class Host(NamedTuple):
    """Classes of a host; those of its file in ``fastprompt.nn.hosts`` have the same names."""

    module: str  # or the package that all of them are in
    classes: tuple[str, ...]
    encoder: str | None = None  # that can be pruned: swapped only where `accelerate` is told to

    def full(self, name: str) -> str:
        return f"{self.module}.{name}"


SEGMENT_ANYTHING = (
    "mask_decoder.MaskDecoder",
    "prompt_encoder.PositionEmbeddingRandom",
    "image_encoder.Attention",
    "image_encoder.Block",
    "sam.Sam",
)
_T = "transformers.models"
# By the name of the file. Of RITM only the name of a class is known, see `drop_in`.
HOSTS = {
    "transformers_sam": Host(
        f"{_T}.sam.modeling_sam",
        (
            "SamMaskDecoder",
            "SamModel",
            "SamPositionalEmbedding",
            "SamVisionAttention",
            "SamVisionSdpaAttention",
            "SamVisionLayer",
        ),
        "SamVisionEncoder",
    ),
    "transformers_sam_hq": Host(
        f"{_T}.sam_hq.modeling_sam_hq",
        (
            "SamHQMaskDecoder",
            "SamHQModel",
            "SamHQPositionalEmbedding",
            "SamHQVisionAttention",
            "SamHQVisionSdpaAttention",
            "SamHQVisionLayer",
        ),
        "SamHQVisionEncoder",
    ),
    "transformers_sam2": Host(
        f"{_T}.sam2.modeling_sam2",
        (
            "Sam2MaskDecoder",
            "Sam2Model",
            "Sam2PositionalEmbedding",
            "Sam2SinePositionEmbedding",
            "Sam2MultiScaleBlock",
            "Sam2HieraDetModel",
            "Sam2PatchEmbeddings",
        ),
    ),
    "transformers_sam3_tracker": Host(
        f"{_T}.sam3_tracker.modeling_sam3_tracker",
        ("Sam3TrackerMaskDecoder", "Sam3TrackerModel", "Sam3TrackerPositionalEmbedding"),
    ),
    "transformers_edgetam": Host(
        f"{_T}.edgetam.modeling_edgetam",
        ("EdgeTamMaskDecoder", "EdgeTamModel", "EdgeTamPositionalEmbedding", "EdgeTamSinePositionEmbedding"),
    ),
    "transformers_sam2_video": Host(
        f"{_T}.sam2_video.modeling_sam2_video",
        (
            "Sam2VideoMaskDecoder",
            "Sam2VideoModel",
            "Sam2VideoMemoryAttention",
            "Sam2VideoPositionalEmbedding",
        ),
    ),
    "transformers_sam3_tracker_video": Host(
        f"{_T}.sam3_tracker_video.modeling_sam3_tracker_video",
        (
            "Sam3TrackerVideoMaskDecoder",
            "Sam3TrackerVideoModel",
            "Sam3TrackerVideoMemoryAttention",
            "Sam3TrackerVideoPositionalEmbedding",
        ),
    ),
    "transformers_edgetam_video": Host(
        f"{_T}.edgetam_video.modeling_edgetam_video",
        (
            "EdgeTamVideoMaskDecoder",
            "EdgeTamVideoModel",
            "EdgeTamVideoMemoryAttention",
            "EdgeTamVideoPositionalEmbedding",
        ),
    ),
    "transformers_seggpt": Host(f"{_T}.seggpt.modeling_seggpt", ("SegGptAttention", "SegGptLayer")),
    "transformers_vitdet": Host(f"{_T}.vitdet.modeling_vitdet", ("VitDetAttention", "VitDetLayer")),
    "transformers_got_ocr2": Host(f"{_T}.got_ocr2.modeling_got_ocr2", ("GotOcr2VisionAttention", "GotOcr2VisionLayer")),
    "transformers_pp_formulanet": Host(
        f"{_T}.pp_formulanet.modeling_pp_formulanet", ("PPFormulaNetVisionAttention", "PPFormulaNetVisionLayer")
    ),
    "transformers_slanext": Host(f"{_T}.slanext.modeling_slanext", ("SLANeXtVisionAttention", "SLANeXtVisionLayer")),
    "transformers_deepseek_ocr2": Host(
        f"{_T}.deepseek_ocr2.modeling_deepseek_ocr2",
        ("DeepseekOcr2SamVisionAttention", "DeepseekOcr2SamVisionSdpaAttention", "DeepseekOcr2SamVisionLayer"),
    ),
    "transformers_unlimited_ocr": Host(
        f"{_T}.unlimited_ocr.modeling_unlimited_ocr",
        ("UnlimitedOcrSamVisionAttention", "UnlimitedOcrSamVisionSdpaAttention", "UnlimitedOcrSamVisionLayer"),
    ),
    "transformers_clipseg": Host(f"{_T}.clipseg.modeling_clipseg", ("CLIPSegVisionModel",)),
    "segment_anything": Host("segment_anything.modeling", SEGMENT_ANYTHING, "image_encoder.ImageEncoderViT"),
    "segment_anything_hq": Host("segment_anything_hq.modeling", (*SEGMENT_ANYTHING, "mask_decoder_hq.MaskDecoderHQ")),
    "mobile_sam": Host("mobile_sam.modeling", SEGMENT_ANYTHING, "image_encoder.ImageEncoderViT"),
    "sam2": Host(
        "sam2.modeling",
        (
            "sam.mask_decoder.MaskDecoder",
            "position_encoding.PositionEmbeddingRandom",
            "position_encoding.PositionEmbeddingSine",
            "backbones.hieradet.MultiScaleBlock",
            "backbones.hieradet.Hiera",
            "backbones.utils.PatchEmbed",
            "memory_attention.MemoryAttention",
        ),
    ),
    "sam2_transforms": Host("sam2.utils.transforms", ("SAM2Transforms",)),
    "zegclip": Host("models.decode_heads.decode_seg", ("Attention",)),
    "cris": Host("model.layers", ("TransformerDecoderLayer",)),
    "timm_hieradet_sam2": Host("timm.models.hieradet_sam2", ("HieraPatchEmbed", "MultiScaleBlock")),
    "timm": Host("timm.models.vision_transformer", (), "VisionTransformer"),
}
DROP_INS = {host.full(name): file for file, host in HOSTS.items() for name in host.classes}
PRUNABLE = {host.full(host.encoder): file for file, host in HOSTS.items() if host.encoder}


def drop_in(cls: type) -> Any:
    """The class of ours for a host's class; None: there is none."""
    if file := DROP_INS.get(full_name(cls)):
        return getattr(imported(file), cls.__name__)
    if cls.__name__ == "DistMaps" and not cls.__module__.startswith("fastprompt.nn."):  # RITM's, in any module
        return imported("ritm").drop_in(cls)
    return None


def pruned_encoder(cls: type) -> Any:
    """The same of an encoder that can be pruned."""
    file = PRUNABLE.get(full_name(cls))
    return getattr(imported(file), cls.__name__) if file else None


def imported(file: str) -> Any:
    return importlib.import_module(f"{FOLDER}.{file}")


__all__ = ["DROP_INS", "HOSTS", "PRUNABLE", "drop_in", "pruned_encoder"]
