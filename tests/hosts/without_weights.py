"""The video models' own tests want weights and films of the hub. Here they get random ones, and their numbers are noted:
plain and accelerated, the two lists of a test must be equal.
"""

import functools
import inspect

import numpy as np
import torch
import transformers
from calls import videos

MODELS = {
    "Sam2VideoModel": lambda: videos.sam2_video("T", "sdpa", False),
    "EdgeTamVideoModel": lambda: videos.edgetam_video("sdpa", False),
    "Sam3TrackerVideoModel": lambda: videos.sam3_tracker_video(1, "sdpa", False),
}
NUMBERS: dict[str, list] = {}  # by test: what it compares with numbers of the real weights


def stand_in(module):
    """In a module of tests: models, processors, films, pictures."""
    for name, thing in list(vars(module).items()):
        if name in MODELS:
            thing.from_pretrained = functools.partial(instead, MODELS[name])
        elif name.endswith("VideoProcessor"):
            thing.from_pretrained = functools.partial(instead, functools.partial(processor, thing))
        elif name == "prepare_video":
            module.prepare_video = film
        elif name.startswith("prepare_") and inspect.isfunction(thing):
            setattr(module, name, lambda: film()[0])


def instead(make, *_, **__):
    return make()


def processor(kind):
    if kind.__name__.startswith("Sam3"):
        size, images = 1008, transformers.Sam3ImageProcessor()
    else:
        size, images = 1024, transformers.Sam2ImageProcessor()
    films = transformers.Sam2VideoVideoProcessor(size={"height": size, "width": size})
    return kind(image_processor=images, video_processor=films, target_size=size)


def film():
    """Squares that move, and noise."""
    g = np.random.default_rng(0)
    frames = g.integers(0, 60, (6, 540, 960, 3), np.uint8)
    for n, frame in enumerate(frames):
        frame[200 + 5 * n : 380 + 5 * n, 100 + 9 * n : 330 + 9 * n] += 120
        frame[60:200, 500 - 7 * n : 700 - 7 * n] += 180
    return frames


def note(test):
    """``torch.testing.assert_close`` notes what it is given."""
    torch.testing.assert_close = lambda got, want, **_: NUMBERS.setdefault(test, []).append(
        torch.as_tensor(got).detach().double().flatten().tolist()
    )
