"""SAM's mask side: the mask head, the MLPs of its output tokens, and masks of an image's size."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from gpu.case import Case, Run

SHAPES = [(256, 64, 2, 2), (64,), (64,), (64,), (64, 32, 2, 2), (32,)]  # of SAM's mask head
OUTPUTS = (32, 32, 32, 32, 4)  # four hyper-networks and the IoU head
SIZES = {
    "3 x 256^2 to 1024^2": ((3, 256, 256), (1024, 1024), None, None),
    "3 x 256^2 to 480 x 854 by 1024^2": ((3, 256, 256), (480, 854), (1024, 1024), (576, 1024)),
    "64 x 256^2 to 480 x 854 by 1024^2": ((64, 256, 256), (480, 854), (1024, 1024), (576, 1024)),
}


def normal(*shape: int, dtype: Any) -> Any:
    import torch

    return torch.randn(shape, device="cuda", dtype=dtype)


def head(prompts: int, masks: int, kind: str) -> tuple[Run, dict[str, Run], Any]:
    import torch
    import torch.nn.functional as F

    import fastprompt as fp
    from fastprompt.ops.decoder.formulas import mask_head as formula

    dtype = getattr(torch, kind)
    image, vectors = normal(prompts, 256, 64, 64, dtype=dtype), normal(prompts, masks, 32, dtype=dtype)
    tokens = image.flatten(2).transpose(1, 2).contiguous().transpose(1, 2).unflatten(2, (64, 64))
    weights = [normal(*shape, dtype=dtype) / shape[0] ** 0.5 for shape in SHAPES]
    w = fp.MaskHeadWeights(*weights)

    def eager() -> Any:
        conv1, bias1, norm, shift, conv2, bias2 = weights
        x = F.conv_transpose2d(image, conv1, bias1, stride=2)
        x = F.gelu(F.layer_norm(x.movedim(1, -1), norm.shape, norm, shift, 1e-6).movedim(-1, 1))
        x = F.gelu(F.conv_transpose2d(x, conv2, bias2, stride=2))
        return (vectors @ x.flatten(2)).unflatten(2, x.shape[2:])

    first = [x.cpu().float() for x in (image[:1], vectors[:1], *weights)]
    expected = formula(*first, None, None, 1e-6).expand(prompts, -1, -1, -1)
    image[:], vectors[:] = image[:1].clone(), vectors[:1].clone()  # so that one prompt on the CPU checks all of them
    tokens[:] = image
    peers = {"eager": eager, "compile": torch.compile(eager, dynamic=False)}
    return lambda: fp.mask_head(tokens, vectors, w), peers, expected


def mlps(prompts: int, kind: str) -> tuple[Run, dict[str, Run], Any]:
    import torch
    import torch.nn.functional as F

    from fastprompt.ops.decoder.formulas import token_mlps as formula
    from fastprompt.ops.decoder.operators import token_mlps

    dtype, rows = getattr(torch, kind), [1, 2, 3, 4, 0]
    tokens, weights = normal(prompts, 7, 256, dtype=dtype), []
    for last in OUTPUTS:
        for n, width in enumerate((256, 256, last)):
            weights += [
                normal(width, 256, dtype=dtype) / 16,
                normal(width, dtype=dtype) if n < 2 else normal(last, dtype=dtype),
            ]

    def eager() -> Any:
        found = []
        for k, row in enumerate(rows):
            x, own = tokens[:, row], weights[6 * k : 6 * k + 6]
            x = F.relu(F.linear(F.relu(F.linear(x, *own[:2])), *own[2:4]))
            found.append(F.linear(x, *own[4:]))
        return found

    padded = [F.pad(w, (0, 0, 0, 28) if w.ndim == 2 else (0, 28)) if len(w) == 4 else w for w in weights]
    stacks = [torch.stack(padded[n::6]) for n in range(6)]

    def stacked() -> Any:
        x = tokens[:, rows].transpose(0, 1)
        for n in (0, 2, 4):
            x = torch.baddbmm(stacks[n + 1][:, None], x if n == 0 else x.relu_(), stacks[n].transpose(1, 2))
        return x

    expected = torch.cat(formula(tokens.cpu().float(), rows, [w.cpu().float() for w in weights], 3), 1)
    peers = {"eager": eager, "stacked weights": stacked, "compile": torch.compile(eager, dynamic=False)}
    return lambda: Together(token_mlps(tokens, rows, weights, 3)), peers, expected


class Together(list[Any]):
    """The outputs of all MLPs, put together when they are compared and not while they are timed."""

    def double(self) -> Any:
        import torch

        return torch.cat(list(self), 1).double()


def resize(name: str) -> tuple[Run, dict[str, Run], Any]:
    import torch
    import torch.nn.functional as F

    import fastprompt as fp

    shape, size, frame, crop = SIZES[name]
    logits = normal(*shape, dtype=torch.float32)

    def full() -> Any:
        x = logits[None]
        if frame is not None and crop is not None:
            x = F.interpolate(x, frame, mode="bilinear", align_corners=False)[..., : crop[0], : crop[1]]
        return F.interpolate(x, size, mode="bilinear", align_corners=False)[0]

    def eager() -> Any:
        return full() > 0

    expected = eager().flatten(1).sum(1)  # areas: single pixels at the threshold may differ
    peers = {"eager, masks alone": eager, "compile, masks alone": torch.compile(eager, dynamic=False)}
    return lambda: fp.resize_masks(logits, size, frame=frame, crop=crop).area, peers, expected


def cases() -> Iterator[Case]:
    tolerance = {"float32": 2e-5, "bfloat16": 3e-2}
    for kind, size in (("float32", 4), ("bfloat16", 2)):
        for prompts, masks in ((1, 3), (16, 1), (64, 1)):
            bytes_ = size * (prompts * (4096 * 256 + masks * 65536) + 256 * 256 + 64 * 128)
            flops = 2.0 * prompts * (4096 * 256 * 256 + 16384 * 64 * 128 + masks * 65536 * 32)
            make = partial(head, prompts, masks, kind)
            yield Case("mask head", f"{prompts} x {masks} masks, {kind}", make, bytes_, flops, 1, tolerance[kind])
    for kind, size in (("float32", 4), ("bfloat16", 2)):
        for prompts in (1, 16):
            count = 5 * 2 * 256 * 256 + 256 * sum(OUTPUTS)
            make = partial(mlps, prompts, kind)
            shape = f"{prompts} prompts, 5 MLPs, {kind}"
            yield Case("token MLPs", shape, make, size * count, 2.0 * prompts * count, 2, tolerance[kind])
    for name, (shape, size, _, _) in SIZES.items():
        bytes_ = float(shape[0] * (4 * shape[1] * shape[2] + size[0] * size[1]))
        yield Case("resize masks", name, partial(resize, name), bytes_, 8.0 * shape[0] * size[0] * size[1], 2, 1e-4)
