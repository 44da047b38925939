"""Frames of a video whose memory bank is full: encode, read the memory, decode, encode the memory, for every object."""

import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from calls import images, packages
from calls.weights import draw

KNOWN = 16  # frames before those that are timed: the bank holds 7, and pointers to the object in 16
FRAMES = KNOWN + 40


def sam2_video(size, kind, small):
    vision = images.hiera("small" if small else size)
    sizes = {"image_size": 256, "memory_attention_rope_feat_sizes": [16, 16]} if small else {}
    prompt = transformers.Sam2VideoPromptEncoderConfig(**({"image_size": 256} if small else {}))
    config = transformers.Sam2VideoConfig(vision_config=vision, prompt_encoder_config=prompt, **sizes)
    return images.built(transformers.Sam2VideoModel, config, kind)


def edgetam_video(kind, small):
    sizes = {"image_size": 256, "memory_attention_rope_feat_sizes": [16, 16]} if small else {}
    prompt = transformers.EdgeTamVideoPromptEncoderConfig(**({"image_size": 256} if small else {}))
    config = transformers.EdgeTamVideoConfig(vision_config=images.repvit(small), prompt_encoder_config=prompt, **sizes)
    return images.built(transformers.EdgeTamVideoModel, config, kind)


def sam3_tracker_video(layers, kind, small):
    """With so many layers in the image encoder."""
    vision = transformers.Sam3TrackerVideoConfig().vision_config.to_dict()
    backbone = {"num_hidden_layers": layers, "global_attn_indexes": [layers - 1]}
    if small:
        backbone |= {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "window_size": 8}
    vision["backbone_config"] |= backbone
    config = transformers.Sam3TrackerVideoConfig(vision_config=vision, **({"image_size": 224} if small else {}))
    return images.built(transformers.Sam3TrackerVideoModel, config, kind)


def sam2_package(kind, small):
    return packages.sam2(small, "build_sam2_video_predictor")


def video(size):
    """A still picture with some noise, another one in every frame."""
    still = draw(3, size, size, seed=5)
    return lambda n: still + draw(3, size, size, seed=100 + n, scale=0.1)


def frame(objects, model, folder):
    """A function that tracks one frame after the other; the bank of the first one to ask is kept in ``folder``."""
    make = of_package if module_of(model).startswith("sam2.") else of_transformers
    return make(model, objects, Path(folder))


def module_of(model):
    """The host's, where the model has become one of ours."""
    return next(c.__module__ for c in type(model).__mro__ if not c.__module__.startswith("fastprompt."))


def points(objects, size):
    return [[size * (0.3 + 0.2 * k), size * (0.4 + 0.1 * k)] for k in range(objects)]


def of_transformers(model, objects, folder):
    module = __import__(module_of(model), fromlist=["session"])
    kind = next(x for name, x in vars(module).items() if name.endswith("InferenceSession"))
    size = model.config.image_size
    of = video(size)
    session = kind(video_height=size, video_width=size, dtype=torch.float32)
    session.processed_frames = Frames(of)
    for k, point in enumerate(points(objects, size)):
        given = {"point_coords": torch.tensor([[[point]]]), "point_labels": torch.ones(1, 1, 1, dtype=torch.int32)}
        session.add_point_inputs(session.obj_id_to_idx(k + 1), 0, given)
    session.obj_with_new_inputs = list(range(1, objects + 1))
    bank = folder / "bank.pt"
    if bank.exists():
        session.output_dict_per_obj, session.frames_tracked_per_obj = torch.load(bank, weights_only=False)
        session.obj_with_new_inputs = []
    else:
        for n in range(2):
            model(session, frame_idx=n)
        fill(session.output_dict_per_obj)
        torch.save((session.output_dict_per_obj, session.frames_tracked_per_obj), bank)
    numbers = iter(range(KNOWN, FRAMES))
    return lambda: model(session, frame_idx=next(numbers)).pred_masks


def fill(outputs):
    """Two frames have been tracked; the second, with some noise, stands for those up to ``KNOWN``."""
    for k, found in outputs.items():
        frames = found["non_cond_frame_outputs"]
        for n in range(2, KNOWN):
            frames[n] = {name: noisy(x, 100 * k + n) for name, x in frames[1].items()}


def noisy(x, seed):
    if not isinstance(x, torch.Tensor):
        return x
    return x + (0.1 * x.std() * draw(*x.shape, seed=seed)).to(x.dtype) if x.numel() > 1 else x.clone()


class Frames(dict):
    """Frames of a session, made when they are asked for."""

    def __init__(self, of):
        super().__init__()
        self.of = of

    def __missing__(self, n):
        return self.of(n)

    def __len__(self):
        return FRAMES


def of_package(model, objects, folder):
    from PIL import Image

    of = video(256)
    with tempfile.TemporaryDirectory() as pictures:
        for n in range(FRAMES):
            x = (of(n).permute(1, 2, 0) * 40 + 128).clamp(0, 255).to(torch.uint8)
            Image.fromarray(np.asarray(x)).save(f"{pictures}/{n:05d}.jpg")
        state = model.init_state(pictures)
    for k, point in enumerate(points(objects, 256)):
        model.add_new_points_or_box(state, 0, k + 1, points=[point], labels=[1])
    bank, kept = folder / "bank.pt", ("output_dict_per_obj", "temp_output_dict_per_obj", "frames_tracked_per_obj")
    if bank.exists():
        state.update(torch.load(bank, weights_only=False))
    else:
        for _ in model.propagate_in_video(state, 0, 1):
            pass
        fill(state["output_dict_per_obj"])
        torch.save({name: state[name] for name in kept}, bank)
    frames = model.propagate_in_video(state, KNOWN)
    return lambda: next(frames)[2]
