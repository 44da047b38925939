"""Write a model of the SAM family as a file for a runtime, compared with the model before it is written.

  fastprompt export --list
  fastprompt export sam-decoder --checkpoint facebook/sam-vit-base --target onnxruntime -o decoder.onnx
  fastprompt export sam-decoder --checkpoint sam_vit_b_01ec64.pth --type vit_b --target openvino
  fastprompt export sam-encoder --checkpoint ./sam-vit-base --target tensorrt --precision float16
  fastprompt export sam-decoder --random --target tensorrt-rtx --profile prompts=1:1:16

--checkpoint is a directory or a name that transformers' from_pretrained takes, or a .pth of segment-anything with its
--type. --random makes a small model with random weights, to try the way: with --config FILE, a config.json of
transformers, one of its sizes. What the files take and give: docs/export.md.
"""

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from fastprompt.cli import UserError, needs


class Model(NamedTuple):
    """A line of ``export --list``."""

    host: str  # class of transformers
    part: str
    about: str


MODELS = {
    "sam-decoder": Model("SamModel", "decoder", "clicks and boxes to masks, any number of prompts and points"),
    "sam-encoder": Model("SamModel", "encoder", "image to embedding"),
    "sam-hq-decoder": Model("SamHQModel", "decoder", "as sam-decoder, with the encoder's early features"),
    "sam-hq-encoder": Model("SamHQModel", "encoder", "image to embedding and early features"),
    "sam2-decoder": Model("Sam2Model", "decoder", "as sam-decoder, with features at two and four times the size"),
    "sam2-encoder": Model("Sam2Model", "encoder", "image to embedding and both features"),
    "sam2-video-encoder": Model("Sam2VideoModel", "encoder", "as sam2-encoder, of a frame"),
    "sam2-video-memory-attention": Model("Sam2VideoModel", "memory_attention", "embedding and memory to embeddings"),
    "sam2-video-memory-encoder": Model("Sam2VideoModel", "memory_encoder", "embedding and masks to memory"),
    "sam2-video-decoder": Model("Sam2VideoModel", "decoder", "clicks of each object to its masks and pointers"),
}
# Flavor of a target, and what comes next; {} is the file.
TARGETS = {
    "onnxruntime": (
        "portable",
        'onnxruntime.InferenceSession("{}", fastprompt.export.onnxruntime.register(onnxruntime.SessionOptions()))',
    ),
    "openvino": (
        "portable",
        'core.add_extension(x) for x in fastprompt.export.openvino_extension(); core.compile_model("{}", "CPU")',
    ),
    "tensorrt": ("portable", 'trtexec --loadEngine="{}", or docs/tensorrt.md'),
    "tensorrt-rtx": ("portable", 'tensorrt_rtx --loadEngine="{}", or docs/tensorrt.md'),
}
FLAVORS = {
    "portable": "our nodes, and what they mean in standard ONNX: for all but OpenVINO without our extension",
    "plugin": "our nodes alone: for a runtime with our library",
    "inlined": "standard ONNX alone: for every runtime, without our kernels",
}
TYPES = ("vit_b", "vit_l", "vit_h")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="one of --list")
    add("--list", action="store_true", help="models, targets and flavors")
    add("--checkpoint", metavar="NAME", help="directory or name for transformers, or a .pth of segment-anything")
    add("--type", choices=TYPES, help="of a .pth")
    add("--random", action="store_true", help="random weights instead of a checkpoint")
    add("--config", metavar="FILE", help="with --random: a config.json of transformers; left out: a small model")
    add("--target", choices=tuple(TARGETS), default="onnxruntime", help="what runs it (%(default)s)")
    add("--flavor", choices=tuple(FLAVORS), help="what stands in the ONNX file; left out: what the target wants")
    add("-o", "--output", metavar="FILE", help="left out: MODEL.onnx, or MODEL.engine for TensorRT")
    add("--single-mask", action="store_true", help="decoder: one mask for a prompt instead of three")
    add("--mask-prompts", action="store_true", help="decoder: also takes a mask for each prompt")
    add("--images", action="store_true", help="decoder: takes several images in a call")
    add("--profile", default="", metavar="SIZES", help="TensorRT: sizes of axes, as prompts=1:8:64,points=1:3:10")
    add("--precision", default="float32", help="TensorRT: float32, tf32, float16 or bfloat16 (%(default)s)")


def run(options: argparse.Namespace) -> int:
    if options.list:
        print(listing())
        return 0
    chosen = check(options)
    model = load(chosen, options)
    flavor = options.flavor or TARGETS[options.target][0]
    of_engine = options.target.startswith("tensorrt")
    output = Path(options.output or f"{options.model}.{'engine' if of_engine else 'onnx'}")
    file = output.with_suffix(".onnx") if of_engine else output
    if of_engine and file == output:
        raise UserError(f"--output must name an engine, not {output}: the ONNX file is written beside it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's exporter
            report(write(model, file, chosen, flavor, options))
            if of_engine:
                print(engine(file, output, options))
    except ImportError as error:
        raise UserError(str(error)) from None
    except RuntimeError as error:
        print(f"fastprompt export: {error}", file=sys.stderr)
        return 1
    print(f"next      {TARGETS[options.target][1].format(output)}")
    return 0


def check(options: argparse.Namespace) -> Model:
    if options.model is None:
        raise UserError("MODEL is missing: see `fastprompt export --list`")
    if options.model not in MODELS:
        raise UserError(f"MODEL must be one of {', '.join(MODELS)}, got {options.model!r}")
    if bool(options.checkpoint) == options.random:
        raise UserError("give either --checkpoint or --random")
    if options.config and not options.random:
        raise UserError("--config is for --random: a checkpoint has its own")
    file = (options.checkpoint or "").endswith((".pth", ".pt"))
    if file != (options.type is not None):
        raise UserError("--type must be given with a .pth of segment-anything, and with nothing else")
    if (file and not options.model.startswith("sam-")) or (file and "hq" in options.model):
        raise UserError(f"{options.model} is taken from transformers: a directory or a name, not {options.checkpoint}")
    chosen = MODELS[options.model]
    for name in ("single_mask", "mask_prompts", "images"):
        if getattr(options, name) and chosen.part != "decoder":
            raise UserError(f"--{name.replace('_', '-')} is an option of decoders")
    return chosen


def listing() -> str:
    lines = ["models"] + [f"  {name:<27} {m.about} (transformers' {m.host})" for name, m in MODELS.items()]
    lines += ["targets"] + [f"  {name:<16} flavor {flavor}" for name, (flavor, _) in TARGETS.items()]
    lines += [
        "flavors",
        "  portable         our nodes, and what they mean in standard ONNX: runs everywhere but OpenVINO",
    ]
    lines += ["  plugin           our nodes alone: for a runtime with our library"]
    return "\n".join([*lines, "  inlined          standard ONNX alone: for every runtime, without our kernels"])


def load(chosen: Model, options: argparse.Namespace) -> Any:
    if options.type:
        return of_segment_anything(options.checkpoint, options.type)
    try:
        import transformers
    except ImportError:
        raise needs("transformers") from None
    host = getattr(transformers, chosen.host)
    if not options.random:
        try:
            return host.from_pretrained(options.checkpoint)
        except OSError as error:  # of transformers: several lines, the first one says what is wrong
            raise UserError(f"--checkpoint: {str(error).splitlines()[0]}") from None
    config = host.config_class.from_json_file(options.config) if options.config else small(chosen.host)
    transformers.set_seed(0)
    return host(config).eval()


def of_segment_anything(path: str, kind: str) -> Any:
    if not Path(path).exists():
        raise UserError(f"--checkpoint: there is no file {path}")
    try:
        from segment_anything import sam_model_registry
    except ImportError as error:
        raise UserError(f"a .pth needs the package segment-anything, and what it imports: {error}") from None
    try:
        return sam_model_registry[kind](checkpoint=path).eval()
    except RuntimeError as error:
        raise UserError(f"--checkpoint: {path} holds no {kind}: {str(error).splitlines()[0]}") from None


def small(host: str) -> Any:
    """A configuration with SAM's decoder, and an encoder of two narrow layers on 256 x 256 pixels."""
    import transformers as t

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "mlp_dim": 128}
    prompt: dict[str, Any] = {"image_size": 256, "image_embedding_size": 16}
    if host in ("Sam2Model", "Sam2VideoModel"):
        backbone = t.Sam2HieraDetConfig(image_size=[256, 256], blocks_per_stage=[1, 1, 2, 1])
        levels = [[64, 64], [32, 32], [16, 16]]
        vision = t.Sam2VisionConfig(backbone_config=backbone, backbone_feature_sizes=levels)
        kind, video = host.removesuffix("Model"), {"image_size": 256, "memory_attention_rope_feat_sizes": [16, 16]}
        more: dict[str, Any] = video if kind == "Sam2Video" else {}
        prompt = getattr(t, f"{kind}PromptEncoderConfig")(image_size=256)
        return getattr(t, f"{kind}Config")(vision_config=vision, prompt_encoder_config=prompt, **more)
    own = {"image_size": 256, "global_attn_indexes": [1], **sizes}
    if host == "SamHQModel":
        return t.SamHQConfig(
            vision_config=t.SamHQVisionConfig(**own),
            prompt_encoder_config=t.SamHQPromptEncoderConfig(**prompt),
            mask_decoder_config=t.SamHQMaskDecoderConfig(vit_dim=64),
        )
    return t.SamConfig(vision_config=t.SamVisionConfig(**own), prompt_encoder_config=t.SamPromptEncoderConfig(**prompt))


def write(model: Any, file: Path, chosen: Model, flavor: str, options: argparse.Namespace) -> Any:
    from fastprompt import export

    decoder = {"multimask": not options.single_mask, "mask_prompts": options.mask_prompts, "images": options.images}
    more = decoder if chosen.part == "decoder" else {}
    return export.onnx(model, file, part=chosen.part, flavor=flavor, **more)


def report(written: Any) -> None:
    from fastprompt.export import inspect

    found = inspect(written.path)
    print(f"wrote     {written.path}, {Path(written.path).stat().st_size / 2**20:.1f} MB, flavor {written.flavor}")
    for direction, values in (("takes", found.inputs), ("gives", found.outputs)):
        for name, shape in values.items():
            print(f"{direction}     {name}: {shape}")
    nodes = ", ".join(f"{name} x {count}" for name, count in written.nodes.items())
    print(f"nodes     {nodes or 'standard ONNX only'}")
    for shapes, error in written.errors.items():
        print(f"verified  {shapes}: differs from the model by {error:.1e} of the largest number")
    for note in found.notes:
        print(f"note      {note}")


def engine(file: Path, output: Path, options: argparse.Namespace) -> str:
    from fastprompt import export

    build = getattr(export, "tensorrt", None)
    if build is None:
        raise UserError(f"this build of fastprompt has no fastprompt.export.tensorrt; {file} is written: use trtexec")
    return str(build(file, output, profile=options.profile, precision=options.precision, target=options.target))
