"""Guidance maps and clicks that a GPU must compute as the CPU does: on executed PTX (test_guidance_triton.py) and on a
device (test_gpu_guidance.py)."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

import fastprompt as fp
from fastprompt.nn import DistMaps


class Case(NamedTuple):
    name: str
    operator: str
    function: Callable
    arguments: dict  # tensors on the CPU, and options
    tolerance: float = 0.0  # 0: the same bits

    def run(self, device="cpu"):
        return self.function(**{name: moved(x, device) for name, x in self.arguments.items()})

    def compare(self, got, expected):
        if not isinstance(expected, torch.Tensor):
            assert got == expected
            return
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        got, expected = got.cpu().numpy(), expected.numpy()
        if self.tolerance:
            np.testing.assert_allclose(got, expected, rtol=0, atol=self.tolerance)
        else:
            np.testing.assert_array_equal(got, expected)


def moved(x, device):
    if isinstance(x, list):
        return [moved(y, device) for y in x]
    return x.to(device) if isinstance(x, torch.Tensor) else x


def clicks(seed, batch, count, size):
    """Clicks in and around the image, whole and between pixels, with empty slots and labels that no channel shows."""
    rng = np.random.default_rng(seed)
    height, width = size
    points = rng.uniform(-4, 4, (batch, count, 2)) + rng.random((batch, count, 2)) * (width, height)
    points[:, ::2] = np.rint(points[:, ::2])
    if count > 3:
        points[0, 1], points[-1, 2], points[-1, 3] = (-1, -1), (np.nan, 3), (2, np.inf)
    return torch.from_numpy(points.astype(np.float32)), torch.from_numpy(rng.integers(-1, 2, (batch, count)))


ENCODINGS = [  # options, tolerance
    ({"encoding": "disk", "radius": 5}, 0.0),
    ({"encoding": "disk", "radius": [0.0, 3, 7.5, 20, 1000]}, 0.0),
    ({"encoding": "tanh", "radius": 60}, 1e-6),
    ({"encoding": "tanh", "radius": 2}, 1e-6),
    ({"encoding": "euclidean"}, 0.0),
    ({"encoding": "euclidean", "clip": 12.0, "normalize": "clip"}, 0.0),
    ({"encoding": "euclidean", "normalize": "minmax"}, 0.0),
    ({"encoding": "gaussian", "sigma": 6.0}, 1e-6),
    ({"encoding": "gaussian", "sigma": 0.05, "sigma_unit": "relative"}, 1e-6),
    ({"encoding": "gaussian", "sigma": [4.0, 9.0], "normalize": "minmax"}, 1e-6),
]
SHAPES = [
    (1, 1, (1, 1)),
    (2, 5, (17, 65)),
    (1, 0, (3, 5)),
    (3, 40, (33, 130)),
]  # tiles are 16 x 64, 32 clicks at a time


def click_cases(shapes):
    for shape in shapes:
        points, labels = clicks(7, *shape)
        for k, (options, tolerance) in enumerate(ENCODINGS):
            arguments = {"points": points, "labels": labels, "size": shape[2], **options}
            yield Case(f"click_map {shape} {k}", "click_map", fp.click_map, arguments, tolerance)


def other_click_cases(size):
    points, labels = clicks(3, 2, 6, size)
    new = functools.partial(Case, operator="click_map", function=fp.click_map)
    yield new("one channel", arguments={"points": points[0], "size": size, "radius": 4})
    channels = {"channels": (0, 1, -1, 5, 0), "radius": [2.0, 5.0]}
    yield new("five channels", arguments={"points": points, "labels": labels, "size": size, **channels})
    ragged = {"points": [points[0], points[1, :2]], "labels": [labels[0], labels[1, :2]]}
    yield new("ragged", arguments={**ragged, "size": size, "radius": 6})
    rounded = {"rounding": "ritm_cython", "radius": 6}
    yield new("rounding", arguments={"points": points, "labels": labels, "size": size, **rounded})
    coords = torch.cat([points.flip(-1), torch.zeros(2, 6, 1)], 2)
    for disks, scale, cython in ((True, 1.0, False), (False, 0.5, False), (True, 1.0, True)):
        module = DistMaps(5, scale, cython, disks)
        arguments = {"x": torch.zeros(2, 3, *size), "coords": coords}
        yield Case(f"DistMaps {disks} {scale} {cython}", "click_map", module, arguments, 0.0 if disks else 1e-6)


def box_cases(size):
    rng = np.random.default_rng(5)
    boxes = torch.from_numpy(rng.uniform(-9, max(size), (2, 3, 4)).astype(np.float32))
    boxes[0, 1, 2] = np.nan
    for function, options in (
        (fp.box_map, {}),
        (fp.box_distance_map, {}),
        (fp.box_distance_map, {"clip": None, "offset": -3.0}),
    ):
        arguments = {"boxes": boxes, "size": size, **options}
        yield Case(f"{function.__name__} {size} {options}", "box_map", function, arguments)
    arguments = {"boxes": boxes[:, :0], "size": size}
    yield Case(f"no box {size}", "box_map", fp.box_distance_map, arguments)


def region_cases(size, batch=2, number=9):
    rng = np.random.default_rng(6)
    height, width = size
    region = torch.from_numpy(rng.integers(0, min(number, height * width), (batch, *size)))
    points = torch.from_numpy((rng.random((batch, 6, 2)) * (width - 1, height - 1)).astype(np.float32))
    points[0, 0] = -1
    labels = torch.from_numpy(rng.integers(-1, 2, (batch, 6)))
    common = {"points": points, "labels": labels}
    for options in ({}, {"clip": 3.0, "channels": (1, 0, 1, -1, 1)}):
        arguments = {"superpixels": region, **common, **options}
        yield Case(f"superpixels {size} {options}", "superpixel_map", fp.superpixel_map, arguments)
    for proposals in (0, 1, number):
        member = torch.from_numpy(rng.random((batch, proposals, *size)) < 0.4)
        arguments = {"proposals": member, **common}
        yield Case(f"{proposals} proposals {size}", "proposal_vote_map", fp.proposal_vote_map, arguments)
    arguments |= {"channels": (1, 0, 1, -1, 1)}
    yield Case(f"votes {size}, five channels", "proposal_vote_map", fp.proposal_vote_map, arguments)


def masks(rng, batch, size):
    """Blocks, so that errors have an inside, with holes."""
    coarse = rng.random((batch, -(-size[0] // 9), -(-size[1] // 9))) < 0.5
    blocks = np.kron(coarse, np.ones((9, 9), bool))[:, : size[0], : size[1]]
    return torch.from_numpy(blocks ^ (rng.random((batch, *size)) < 0.02))


def next_click_cases(size, batch=3):
    rng = np.random.default_rng(size[0])
    target, pred = masks(rng, batch, size), masks(rng, batch, size)
    logits = torch.where(pred, 1.0, -1.0) * torch.from_numpy(rng.random((batch, *size))).float()
    logits[0, 0, 0] = np.nan
    ignored = target.byte().masked_fill_(torch.from_numpy(rng.random((batch, *size)) < 0.01), 255)
    new = functools.partial(Case, operator="next_click", function=fp.next_click)
    yield new(f"masks {size}", arguments={"target": target, "pred": pred})
    yield new(f"no error {size}", arguments={"target": target, "pred": target, "compat": True})
    everything = {"target": torch.ones_like(target), "pred": torch.zeros_like(pred)}
    yield new(f"all an error {size}", arguments=everything)
    options = {"threshold": 0.2, "ignore": 255}
    yield new(f"logits {size}", arguments={"target": ignored, "pred": logits, **options})
    first = fp.next_click(target, pred, compat=True)
    taken = torch.tensor([[c.point, (-5, 3), (size[1], 0)] for c in first], dtype=torch.float32)
    taken[0, 1] = np.nan
    yield new(f"clicked {size}", arguments={"target": target, "pred": pred, "clicked": taken})


def long_run():
    """Errors across rows 63 and 64, where one step of the scans ends: one has its middle above, one below."""
    target = torch.zeros(1, 80, 62, dtype=torch.bool)
    target[0, 54:78, 2:29] = target[0, 50:74, 33:60] = True
    return Case("long run", "next_click", fp.next_click, {"target": target, "pred": torch.zeros_like(target)})


SMALL = [
    *click_cases(SHAPES),
    *other_click_cases((19, 70)),
    *box_cases((1, 1)),
    *box_cases((18, 67)),
    *region_cases((1, 1)),
    *region_cases((7, 201)),
    *next_click_cases((1, 1)),
    *next_click_cases((20, 35)),
    *next_click_cases((4, 140)),
    long_run(),
]


def real_cases():
    """For a device."""
    yield from click_cases([(2, 48, (1024, 1024)), (4, 20, (480, 854))])
    yield from other_click_cases((333, 517))
    yield from box_cases((480, 854))
    yield from region_cases((480, 854), number=500)
    yield from next_click_cases((480, 854))
    yield from next_click_cases((1025, 333))
